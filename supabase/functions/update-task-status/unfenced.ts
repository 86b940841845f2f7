// A write of the older contract, without a claim number.

import type { Caller } from "../_shared/auth.ts";
import { call, type Sql } from "../_shared/database.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import type { Task } from "../_shared/tasks.ts";
import type { Change } from "./handler.ts";

/** Raises what the database raises: PT409 for a row that was not claimed by a client of the older contract, PT422 for a
 * change that does not exist. */
export async function writeUnfenced(sql: Sql, change: Change, caller: Caller): Promise<void> {
  const { task_id, status, worker_id } = change;
  const task = await call<Task>(sql, "get_task", { p_task_id: task_id });
  if (task.status === "In Progress" && worker_id !== undefined && worker_id !== task.worker_id) {
    throw new Refused(409, `task ${task_id} was claimed by ${task.worker_id}`);
  }
  if (status === "In Progress" && task.status !== status) checkHolder(change);
  const said = status === "Failed"
    ? change.error_details ?? change.output_location
    : change.output_location ?? change.error_details;
  const held = task.status === "In Progress" && !change.reset_generation_started_at && said !== undefined;
  if (status === "In Progress" && !held) {
    await sql`select public.safe_update_task_status(${task_id}, ${status}, ${worker_id ?? null},
      case when ${change.reset_generation_started_at ?? false} then clock_timestamp() end)`;
  }
  if (status !== "In Progress" || said !== undefined) {
    const values = {
      p_task_id: task_id,
      p_status: status,
      p_output_location: said,
      p_worker_id: worker_id,
    };
    await call(sql, "func_update_task_status", values);
  }
  if (caller.kind === "service") await note(sql, change);
}

/** Nobody makes a row In Progress that nothing would end. */
function checkHolder({ worker_id, claimed_at }: Change): void {
  const missing = worker_id === undefined ? "worker_id" : claimed_at === undefined ? "claimed_at" : null;
  if (missing !== null) {
    throw badInput(missing, "is missing, and nobody would hold the task; claim it by claim-next-task");
  }
}

/** What only the service may write besides: the failures counted so far, and why a row went back into the queue. */
async function note(sql: Sql, { task_id, status, attempts, error_details }: Change): Promise<void> {
  const reason = status === "Queued" ? error_details ?? null : null;
  if (attempts === undefined && reason === null) return;
  await sql`update public.tasks
    set attempts = coalesce(${attempts ?? null}, attempts), error_message = coalesce(${reason}, error_message)
    where id = ${task_id}`;
}
