// Failures and the answers that they become. What a caller may know is in a `Refused`; anything else is logged and
// answered with 500 and a request id.

/** What was wrong, for the caller to read. `field` names the part of the body at fault, `extra` goes into the answer. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly field?: string,
    readonly extra: Record<string, unknown> = {},
    readonly code = `PT${status}`,
  ) {
    super(message);
  }
}

/** A part of the body is wrong. */
export function badInput(field: string | undefined, message: string): Refused {
  return new Refused(400, message, field);
}

// Seconds to wait: a conflict or a restarting database is over soon, the limit on new tasks counts one minute.
const RETRY_AFTER_S: Record<number, string> = { 429: "60", 503: "1" };

// What the database client says about the connection, and Postgres about itself: starting, stopping, full, too slow.
const NO_DATABASE = new Set([
  "CONNECTION_CLOSED",
  "CONNECTION_ENDED",
  "CONNECTION_DESTROYED",
  "CONNECT_TIMEOUT",
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
  "57014",
  "57P01",
  "57P02",
  "57P03",
  "57P05",
]);

const CONFLICTS = new Set(["40001", "40P01", "55P03"]);

/** The refusal that stands for a failure; null when it is a fault of ours. */
export function refusalOf(error: unknown): Refused | null {
  if (error instanceof Refused) return error;
  // JSON.stringify and the like recurse: a body may be nested too deeply for them
  if (error instanceof RangeError) return badInput("body", "the body is nested too deeply");
  const { code, message, column_name: field } = (error ?? {}) as Record<string, string | undefined>;
  if (code === undefined) return null;
  if (CONFLICTS.has(code)) {
    return new Refused(503, "somebody else changed the same rows; try again", undefined, {}, code);
  }
  if (NO_DATABASE.has(code) || code.startsWith("08") || code.startsWith("53")) {
    return new Refused(503, "the database does not answer; try again", undefined, {}, code);
  }
  const status = statusOf(code);
  return status === null ? null : new Refused(status, message ?? code, field, {}, code);
}

function statusOf(code: string): number | null {
  const own = /^PT(4\d\d)$/.exec(code);
  if (own) return Number(own[1]);
  if (code === "42501") return 403;
  // checks, values that cannot be read, and JSON that is nested too deeply for Postgres
  if (code === "23514" || code.startsWith("22") || code.startsWith("54")) return 400;
  return null;
}

/** The answer that says so. A fault of ours is logged; `requestId` is all that the caller learns of it. */
export function answerOf(error: unknown, requestId: string): Response {
  const refused = refusalOf(error);
  if (refused === null) log("error", requestId, error);
  else if (refused.status === 503) log("warning", requestId, error);
  const { status, message, field, extra, code } = refused ??
    new Refused(500, `the server failed; request ${requestId}`);
  const headers: Record<string, string> = {};
  if (status in RETRY_AFTER_S) headers["Retry-After"] = RETRY_AFTER_S[status]!;
  const named = field === undefined ? { message } : { field, message: `${field}: ${message}` };
  const body = { success: false, error: message, code, ...named, ...extra };
  return Response.json(body, { status, headers });
}

// Never the body, nor what was sent to the database: both carry what belongs to people.
function log(level: string, requestId: string, error: unknown): void {
  const { message, code, stack } = error instanceof Error
    ? error as Error & { code?: string }
    : { message: String(error), code: undefined, stack: undefined };
  // deno-lint-ignore no-console -- the platform collects what functions write
  console.error(JSON.stringify({ level, request_id: requestId, code, message, stack }));
}
