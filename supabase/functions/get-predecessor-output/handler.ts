// What the tasks that a task depends on have made. The first one is the main one; its output is told when all are
// complete.

import { z } from "zod";
import { asCaller, call, type Sql } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { id } from "../_shared/schemas.ts";
import type { Task } from "../_shared/tasks.ts";

interface Predecessor {
  predecessor_id: string;
  output_location: string | null;
  status: string;
}

export const handler = endpoint({
  body: z.object({ task_id: id }),
  run: async ({ task_id }, caller) => {
    const predecessors = await asCaller(caller, (sql) => predecessorsOf(sql, task_id));
    const [first] = predecessors;
    if (first === undefined) return { predecessor_id: null, output_location: null, predecessors };
    const all_complete = predecessors.every(({ status }) => status === "Complete");
    return {
      ...first,
      output_location: all_complete ? first.output_location : null,
      predecessors,
      all_complete,
    };
  },
});

/** In the order of dependant_on. A row that is gone, or another person's, is "not_found". */
async function predecessorsOf(sql: Sql, taskId: string): Promise<Predecessor[]> {
  const { dependant_on } = await call<Task>(sql, "get_task", { p_task_id: taskId });
  const found = await call<Task[]>(sql, "task_dependencies", { p_task_id: taskId });
  return dependant_on.map((predecessor_id) => {
    const task = found.find(({ id }) => id === predecessor_id);
    const output_location = task?.status === "Complete" ? task.output_location : null;
    return { predecessor_id, output_location, status: task?.status ?? "not_found" };
  });
}
