// What storage tests start from: people with tasks, which workers of both contracts have claimed. Written by a superuser,
// past the functions.

import { createHash } from "node:crypto";
import postgres from "postgres";
import type { Handler } from "../_shared/endpoint.ts";

export const SERVICE_KEY = Deno.env.get("SUPABASE_SERVICE_ROLE_KEY")!;

let opened: postgres.Sql | undefined;

function admin(): postgres.Sql {
  opened ??= postgres(Deno.env.get("TEST_ADMIN_URL")!, { max: 1, onnotice: () => {} });
  return opened;
}

/** A test that leaves its connections to the next one. */
export function tested(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, sanitizeOps: false, sanitizeResources: false });
}

export interface Person {
  id: string;
  project: string;
  token: string;
}

export async function person(): Promise<Person> {
  const made = { id: crypto.randomUUID(), project: crypto.randomUUID(), token: crypto.randomUUID() };
  const hash = createHash("sha256").update(made.token).digest("hex");
  await admin()`insert into public.users (id) values (${made.id})`;
  await admin()`insert into public.projects (id, user_id) values (${made.project}, ${made.id})`;
  await admin()`insert into public.user_api_tokens (user_id, token_hash) values (${made.id}, ${hash})`;
  return made;
}

export interface Claim {
  task_id: string;
  worker_id: string;
  claim_number: number;
}

/** A task of the owner (null: of the installation) that a worker with a lease holds. */
export async function claimed(owner: Person | null): Promise<Claim> {
  const type = crypto.randomUUID();
  const worker = `worker-${crypto.randomUUID()}`;
  const id = await queued(owner, type);
  await admin()`select public.claim_tasks(${worker}, 60, p_task_types => array[${type}])`;
  return { task_id: id, worker_id: worker, claim_number: 1 };
}

/** A task that a client of the older contract holds. Its id. */
export async function claimedByOlder(owner: Person, type = "t2v", worker = "older"): Promise<string> {
  const id = await queued(owner, type, 9);
  const [row] = await admin()`select task_id from public.claim_next_task_service_role(${worker})`;
  if (row?.task_id !== id) throw new Error(`claimed ${row?.task_id} instead of ${id}`);
  return id;
}

export async function queued(owner: Person | null, type: string, priority = 0): Promise<string> {
  const id = crypto.randomUUID();
  const project = owner?.project ?? "00000000-0000-0000-0000-000000000000";
  await admin()`insert into public.tasks (id, task_type, params, project_id, priority)
    values (${id}, ${type}, '{"prompt": "a"}', ${project}, ${priority})`;
  return id;
}

/** The lease has run out and another worker took the row. */
export async function claimedAnew(claim: Claim): Promise<Claim> {
  await admin()`select public.release_task(${claim.task_id}, ${claim.worker_id}, ${claim.claim_number})`;
  const [row] = await admin()`select task_type from public.tasks where id = ${claim.task_id}`;
  await admin()`select public.claim_tasks('another', 60, p_task_types => array[${row!.task_type}])`;
  return { task_id: claim.task_id, worker_id: "another", claim_number: claim.claim_number + 1 };
}

export async function row(id: string): Promise<postgres.Row> {
  const [found] = await admin()`select * from public.tasks where id = ${id}`;
  return found!;
}

export async function generations(id: string): Promise<postgres.Row[]> {
  return await admin()`select location, thumbnail_url from public.generations where task_id = ${id}`;
}

export interface Answer {
  status: number;
  // deno-lint-ignore no-explicit-any -- the tests look into many shapes
  body: any;
}

/** The answer of a function to a body. */
export async function post(handler: Handler, body: unknown, token = SERVICE_KEY): Promise<Answer> {
  const answer = await handler(
    new Request("http://functions/", {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    }),
  );
  return { status: answer.status, body: await answer.json() };
}
