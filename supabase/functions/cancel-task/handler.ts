// Asks for the cancellation of a task and its children. Answers with the status now: a running task stays In Progress
// until its worker has stopped.

import { z } from "zod";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { id } from "../_shared/schemas.ts";

export const handler = endpoint({
  body: z.object({ task_id: id }),
  run: async ({ task_id }, caller) => {
    const status = await asCaller(caller, (sql) => call<string>(sql, "cancel_task", { p_task_id: task_id }));
    return { success: true, task_id, status };
  },
});
