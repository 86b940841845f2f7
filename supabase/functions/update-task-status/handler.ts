// Changes a task's status: by its claim (worker_id and claim_number), or as the older contract does, without one. Then
// it must have been claimed by such a client.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import { count, id, name, optional, status, text } from "../_shared/schemas.ts";
import type { Task } from "../_shared/tasks.ts";
import { writeClaimed } from "./claimed.ts";
import { writeUnfenced } from "./unfenced.ts";

const body = z.object({
  task_id: id,
  status,
  output_location: optional(text),
  error_details: optional(text),
  attempts: optional(count),
  reset_generation_started_at: optional(z.boolean()),
  worker_id: optional(name),
  claimed_at: optional(z.string().max(100)),
  claim_number: optional(count),
});

export type Change = z.output<typeof body>;

export const handler = endpoint({
  body,
  run: async (change, caller) => {
    if (change.claim_number !== undefined && change.worker_id === undefined) {
      throw badInput("worker_id", "is missing; a claim_number comes with it");
    }
    try {
      const now = await asCaller(caller, async (sql) => {
        await (change.claim_number === undefined
          ? writeUnfenced(sql, change, caller)
          : writeClaimed(sql, change));
        return await call<Task>(sql, "get_task", { p_task_id: change.task_id });
      });
      const asked = now.status === change.status ? "" : `; ${change.status} was asked for`;
      const message = `Task ${now.id} is ${now.status}${asked}`;
      return { success: true, task_id: now.id, status: now.status, message };
    } catch (error) {
      throw await explained(error, change, caller);
    }
  },
});

/** Older clients expect 400 for a change that does not exist, and read the status out of the answer. */
async function explained(error: unknown, change: Change, caller: Caller): Promise<unknown> {
  const { code, message } = error as { code?: string; message: string };
  if (code !== "PT422") return error;
  const { status } = await asCaller(
    caller,
    (sql) => call<Task>(sql, "get_task", { p_task_id: change.task_id }),
  );
  const more = { current_status: status, requested_status: change.status };
  return new Refused(400, message, "status", more, code);
}
