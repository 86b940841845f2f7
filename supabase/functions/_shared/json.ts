// JSON whose numbers survive: a seed of 64 bits does not fit into a number of JavaScript, so it is kept as its text.

interface RawJson {
  rawJSON(text: string): unknown;
}

const { rawJSON } = JSON as unknown as RawJson;

// Only then is it worth looking at each number: one with so many digits, or with an exponent.
const SUSPECT = /\d{16}|\d[eE]/;

/** The value. An integer beyond 2^53, or a number beyond 1e308, becomes an object that JSON.stringify writes as it
 * was. Raises SyntaxError, and RangeError when it is nested too deeply. */
export function parseJson(text: string): unknown {
  return SUSPECT.test(text)
    ? JSON.parse(text, exactly as (this: unknown, key: string, value: unknown) => unknown)
    : JSON.parse(text);
}

function exactly(_key: string, value: unknown, context: { source: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  return Number.isInteger(value) || !Number.isFinite(value) ? rawJSON(context.source) : value;
}
