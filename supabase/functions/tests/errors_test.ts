// deno-lint-ignore-file no-console
// What a failure becomes, and what of it a caller may read.

import assert from "node:assert/strict";
import { answerOf, badInput, Refused } from "../_shared/errors.ts";
import { parseJson } from "../_shared/json.ts";

function raised(code: string, column_name?: string): Error {
  return Object.assign(new Error("what the database said"), { code, column_name });
}

/** The answer, with the log kept away from the tests' output. Returns what was logged too. */
async function answered(
  error: unknown,
): Promise<{ answer: Response; body: Record<string, unknown>; logged: string }> {
  // what is logged is what the test is about
  const before = console.error;
  let logged = "";
  console.error = (line: string) => logged += line;
  try {
    const answer = answerOf(error, "request-1");
    return { answer, body: await answer.json(), logged };
  } finally {
    console.error = before;
  }
}

const STATUSES: [string, number][] = [
  ["PT400", 400],
  ["23514", 400],
  ["22P02", 400],
  ["54001", 400],
  ["PT403", 403],
  ["42501", 403],
  ["PT404", 404],
  ["PT409", 409],
  ["PT422", 422],
  ["40001", 503],
  ["40P01", 503],
  ["55P03", 503],
  ["57P01", 503],
  ["57014", 503],
  ["08006", 503],
  ["53300", 503],
  ["CONNECTION_CLOSED", 503],
  ["CONNECT_TIMEOUT", 503],
  ["ECONNREFUSED", 503],
  ["42883", 500],
  ["23505", 500],
];

Deno.test("each SQLSTATE has its status", async () => {
  for (const [code, status] of STATUSES) {
    const { answer, body } = await answered(raised(code));
    assert.equal(answer.status, status, code);
    assert.equal(answer.headers.get("Retry-After"), status === 503 ? "1" : null, code);
    assert.equal(body.code, status === 500 ? "PT500" : code);
  }
});

Deno.test("a refusal names the field and says why", async () => {
  const { body } = await answered(raised("PT400", "params"));
  assert.deepEqual(body, {
    success: false,
    error: "what the database said",
    code: "PT400",
    field: "params",
    message: "params: what the database said",
  });
  assert.equal((await answered(badInput("limit", "too large"))).body.field, "limit");
  assert.equal((await answered(new Refused(429, "wait"))).answer.headers.get("Retry-After"), "60");
});

Deno.test("a fault of ours is logged and told to nobody", async () => {
  for (const fault of [new Error("password=hunter2"), "hunter2", raised("42P01"), null]) {
    const { answer, body, logged } = await answered(fault);
    assert.equal(answer.status, 500);
    assert.ok(!JSON.stringify(body).includes("hunter2") && !JSON.stringify(body).includes("database"));
    assert.ok(String(body.error).includes("request-1") && logged.includes("request-1"));
  }
});

Deno.test("numbers survive the way through a function", () => {
  const texts = [
    '{"seed":9007199254740993,"deep":[{"id":-123456789012345678901}]}',
    '{"text":"9007199254740993","small":1.5,"exact":9007199254740991}',
    '{"huge":1e400}',
  ];
  for (const text of texts) assert.equal(JSON.stringify(parseJson(text)), text);
});
