// Queues one task, or with `tasks` many in one transaction. An id that exists already counts as queued, so a request
// whose answer was lost can be repeated.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call, type Sql } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { refusalOf, Refused } from "../_shared/errors.ts";
import { id, newTask, newTasks, optional } from "../_shared/schemas.ts";

// Of one person, children aside: a travel has more segments than a person presses buttons.
const MAX_A_MINUTE = 120;

const one = newTask.extend({ task_id: optional(id), project_id: id });
const many = z.object({ tasks: newTasks });

export const handler = endpoint({
  // by hand, not z.union: an error must name the field of the one that was meant
  body: z.unknown().transform((body, context) => {
    const schema = typeof body === "object" && body !== null && "tasks" in body ? many : one;
    const result = schema.safeParse(body);
    if (result.success) return result.data;
    for (const issue of result.error.issues) context.issues.push({ ...issue, input: body } as never);
    return z.NEVER;
  }),
  run: async (body, caller) => {
    if ("tasks" in body) return { task_ids: await add(body.tasks, caller) };
    const { task_id, ...task } = body;
    try {
      const [added] = await add([{ ...task, id: task_id }], caller);
      return { task_id: added, status: "Task queued" };
    } catch (error) {
      throw asBefore(error, caller);
    }
  },
});

/** As the older contract has it: to the service a project that is not there is 404, and an id is `task_id`. */
function asBefore(error: unknown, caller: Caller): unknown {
  const refused = refusalOf(error);
  if (refused?.status !== 403) return error;
  const missing = refused.field === "project_id" && caller.kind === "service";
  return new Refused(
    missing ? 404 : 403,
    refused.message,
    refused.field === "id" ? "task_id" : refused.field,
  );
}

function add(tasks: z.output<typeof newTasks>, caller: Caller): Promise<string[]> {
  return asCaller(caller, async (sql) => {
    if (caller.kind === "person") await checkPace(sql);
    return await call<string[]>(sql, "add_tasks", { p_tasks: tasks });
  });
}

/** Raises Refused (429) for a person who adds faster. */
async function checkPace(sql: Sql): Promise<void> {
  const made = await call<number>(sql, "creations_in_last_minute", {});
  if (made >= MAX_A_MINUTE) {
    throw new Refused(429, `more than ${MAX_A_MINUTE} tasks a minute; wait a little`);
  }
}
