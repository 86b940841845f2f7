// The children of an orchestrator, oldest first.

import { z } from "zod";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { id } from "../_shared/schemas.ts";
import type { Task } from "../_shared/tasks.ts";

export const handler = endpoint({
  body: z.object({ orchestrator_task_id: id }),
  run: ({ orchestrator_task_id }, caller) =>
    asCaller(caller, async (sql) => {
      // raises PT404 when there is no such row
      await call(sql, "get_task", { p_task_id: orchestrator_task_id });
      const children = await call<Task[]>(sql, "orchestrator_children", {
        p_orchestrator_task_id: orchestrator_task_id,
      });
      return { tasks: children.map(shown) };
    }),
});

function shown({ id, task_type, status, params, output_location }: Task): Partial<Task> {
  return { id, task_type, status, params, output_location };
}
