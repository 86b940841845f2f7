// The write of a worker that holds the row by its claim number.

import { call, type Sql } from "../_shared/database.ts";
import { badInput } from "../_shared/errors.ts";
import type { Change } from "./handler.ts";

/** Raises what the database raises: PT409 when the claim is stale. */
export async function writeClaimed(sql: Sql, change: Change): Promise<void> {
  const claim = {
    p_task_id: change.task_id,
    p_worker_id: change.worker_id,
    p_claim_number: change.claim_number,
  };
  const said = change.error_details ?? change.output_location;
  switch (change.status) {
    case "Complete":
      throw badInput(
        "status",
        "a claimed task becomes Complete by complete-task, which looks at its files",
      );
    case "Failed":
      await call(sql, "fail_task", {
        ...claim,
        p_message: said ?? "no reason given",
        p_error_class: "unknown",
      });
      break;
    case "Cancelled":
      await call(sql, "task_cancelled", claim);
      break;
    case "Queued":
      await call(sql, "release_task", claim);
      break;
    case "In Progress":
      await call(sql, "claim_state", claim);
      if (change.reset_generation_started_at) await call(sql, "generation_started", claim);
      if (said !== undefined) await call(sql, "task_progress", { ...claim, p_progress: { message: said } });
  }
}
