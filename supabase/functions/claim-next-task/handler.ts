// Claims rows. With `lease_s` full rows with a lease and a claim number; without, one row as the older contract knows it.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call, PostgresArray, type Sql } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput } from "../_shared/errors.ts";
import { count, name, optional, parameters, runType, seconds } from "../_shared/schemas.ts";

const body = z.object({
  worker_id: optional(name),
  run_type: optional(runType),
  lease_s: optional(seconds),
  limit: optional(z.int().min(1).max(100)),
  loaded_model: optional(name),
  task_types: optional(z.array(name).max(1000)),
  max_attempts: optional(z.int().min(1).max(1000)),
  affinity_tasks: optional(count),
  affinity_wait_s: optional(z.number().min(0).max(30 * 86_400)),
  same_model_only: optional(z.boolean()),
});

type Body = z.output<typeof body>;

export const handler = endpoint({
  body,
  run: async (body, caller) => {
    if (body.lease_s !== undefined) return { tasks: await asCaller(caller, (sql) => claim(sql, body)) };
    const task = await asCaller(caller, (sql) => claimAsBefore(sql, body, caller));
    return task ?? new Response(null, { status: 204 });
  },
});

function claim(sql: Sql, { same_model_only: _, task_types, ...wish }: Body): Promise<unknown[]> {
  if (wish.worker_id === undefined) throw badInput("worker_id", "is missing; a lease is somebody's");
  return call(sql, "claim_tasks", {
    ...parameters(wish),
    p_task_types: task_types && new PostgresArray(task_types),
  });
}

async function claimAsBefore(sql: Sql, body: Body, caller: Caller): Promise<unknown> {
  const runType = body.run_type ?? null;
  const rows = caller.kind === "service"
    ? await sql`select task_id, params, task_type, project_id from public.claim_next_task_service_role(
        p_worker_id => ${body.worker_id ?? `edge_${crypto.randomUUID()}`}, p_run_type => ${runType},
        p_same_model_only => ${body.same_model_only ?? false})`
    : await sql`select task_id, params, task_type, project_id from public.claim_next_task_user_pat(
        p_user_id => ${caller.userId}, p_run_type => ${runType})`;
  return rows[0];
}
