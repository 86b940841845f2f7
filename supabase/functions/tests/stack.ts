// The local stack that tests ask, over HTTP, and the people who ask there. tests/integration/test_edge_functions.py
// starts it and says where it is; a plain `deno test` leaves out what needs it.

import assert from "node:assert/strict";
import { SignJWT } from "jose";

export interface Person {
  user_id: string;
  project_id: string;
  access_token: string;
  /** two images on a timeline */
  shot_id: string;
}

export interface Answer {
  status: number;
  // deno-lint-ignore no-explicit-any -- what a test looks at, it asserts
  body: any;
  headers: Headers;
}

export const hasStack = Deno.env.has("TEST_PEOPLE");
export const [anna, bert, carla] = ownPeople();
export const SERVICE_KEY = Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "";

/** The names of all functions that there are. */
export const FUNCTIONS = [...Deno.readDirSync(new URL("..", import.meta.url))]
  .filter(({ isDirectory, name }) => isDirectory && hasHandler(name))
  .map(({ name }) => name).sort();

function hasHandler(name: string): boolean {
  return [...Deno.readDirSync(new URL(`../${name}`, import.meta.url))].some((file) =>
    file.name === "handler.ts"
  );
}

/** Three for each file of tests, so that what one adds in a minute is no other's hindrance. */
function ownPeople(): [Person, Person, Person] {
  const people: Record<string, [Person, Person, Person]> = JSON.parse(Deno.env.get("TEST_PEOPLE") ?? "{}");
  const nobody = { user_id: "", project_id: "", access_token: "", shot_id: "" };
  return people[Deno.mainModule.split("/").at(-1)!] ?? [nobody, nobody, nobody];
}

/** A test that needs the stack. */
export function stackTest(name: string, run: () => Promise<void>): void {
  Deno.test({ name, ignore: !hasStack, fn: run });
}

export async function ask(name: string, body: unknown, token: string | null = SERVICE_KEY): Promise<Answer> {
  return await post(name, JSON.stringify(body), token);
}

/** The text as it is, for what JSON.stringify would not write. */
export async function post(name: string, text: string, token: string | null = SERVICE_KEY): Promise<Answer> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(address(name), { method: "POST", headers, body: text });
  const answered = await response.text();
  return {
    status: response.status,
    body: answered === "" ? null : JSON.parse(answered),
    headers: response.headers,
  };
}

export function address(name: string): string {
  return `${Deno.env.get("SUPABASE_URL")}/functions/v1/${name}`;
}

/** The answer of a call that must succeed. */
// deno-lint-ignore no-explicit-any -- see Answer
export async function done(name: string, body: unknown, token: string | null = SERVICE_KEY): Promise<any> {
  const answer = await ask(name, body, token);
  assert.ok(answer.status < 300, `${name} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}

/** Fails unless the answer is a refusal of this kind, which names the field. */
export function refused({ status, body }: Answer, expected: number, field?: string): void {
  assert.equal(status, expected, JSON.stringify(body));
  assert.equal(body.success, false);
  assert.equal(typeof body.error, "string");
  if (field !== undefined) assert.equal(body.field, field, JSON.stringify(body));
}

// -- tokens --------------------------------------------------------------------------------------------------------

export interface Signed {
  sub?: string;
  role?: string;
  secret?: string;
  /** seconds; negative: it has expired */
  lasts?: number;
}

/** A JWT as Supabase Auth signs them with the project's secret. */
export async function jwt({ sub, role = "authenticated", secret, lasts = 3600 }: Signed): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  const key = new TextEncoder().encode(secret ?? Deno.env.get("JWT_SECRET"));
  const claims = { role, ...(sub === undefined ? {} : { sub }) };
  const unsigned = new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" });
  return await unsigned.setIssuedAt(now).setExpirationTime(now + lasts).sign(key);
}

/** The token with another payload under its old signature. */
export function edited(token: string, change: Record<string, unknown>): string {
  const [header, payload, signature] = token.split(".");
  const claims = JSON.parse(atob(payload!.replaceAll("-", "+").replaceAll("_", "/")));
  return [header, base64url({ ...claims, ...change }), signature].join(".");
}

/** A token that says that it needs no signature. */
export function unsigned(claims: Record<string, unknown>): string {
  return `${base64url({ alg: "none", typ: "JWT" })}.${base64url(claims)}.`;
}

function base64url(value: unknown): string {
  return btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

// -- tasks ---------------------------------------------------------------------------------------------------------

export interface Claimed {
  task_id: string;
  worker_id: string;
  claim_number: number;
}

/** A queued task of Anna's, or of another project. Returns its id. */
export async function queued(task: Record<string, unknown> = {}): Promise<string> {
  const defaults = { task_type: "t2v", params: { prompt: "a cat" }, project_id: anna.project_id };
  return (await done("create-task", { ...defaults, ...task })).task_id;
}

/** A task of Anna's that a new worker of hers has claimed. */
export async function claimed(task: Record<string, unknown> = {}): Promise<Claimed> {
  const task_type = unique("type");
  const task_id = await queued({ task_type, ...task });
  const worker_id = unique("worker");
  const wish = { worker_id, lease_s: 60, task_types: [task.task_type ?? task_type] };
  const { tasks } = await done("claim-next-task", wish, anna.access_token);
  assert.equal(tasks[0]?.id, task_id);
  return { task_id, worker_id, claim_number: tasks[0].claim_number };
}

/** A task of Anna's that a client of the older contract has claimed. */
export async function claimedAsBefore(task: Record<string, unknown> = {}): Promise<string> {
  // before everything else that is queued
  const task_id = await queued({ priority: 2 ** 40, ...task });
  const answer = await done(
    "claim-next-task",
    { worker_id: unique("older"), run_type: "gpu" },
    anna.access_token,
  );
  assert.equal(answer.task_id, task_id);
  return task_id;
}

/** The row, as the service sees it. */
// deno-lint-ignore no-explicit-any -- see Answer
export async function row(task_id: string): Promise<any> {
  return (await done("task-store", { operation: "get_task", task_id })).result;
}

export function unique(what: string): string {
  return `${what}_${crypto.randomUUID().slice(0, 8)}`;
}
