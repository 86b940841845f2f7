// What a task was asked for and what came out. `download_url` can be opened also where the bucket is private; it is null
// for a file there that is not the task's owner's.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { mayRead } from "../_shared/reading.ts";
import { id } from "../_shared/schemas.ts";
import { keyOf, readable } from "../_shared/storage.ts";
import type { Task } from "../_shared/tasks.ts";

export const handler = endpoint({
  body: z.object({ task_id: id }),
  run: async ({ task_id }, caller) => {
    const task = await asCaller(caller, (sql) => call<Task>(sql, "get_task", { p_task_id: task_id }));
    const { status, output_location, params, dependant_on } = task;
    const download_url = output_location === null ? null : await openable(output_location, task_id, caller);
    return { status, output_location, download_url, params, dependant_on };
  },
});

async function openable(location: string, task_id: string, caller: Caller): Promise<string | null> {
  const url = await readable(location);
  const signed = url !== location;
  return !signed || await mayRead(keyOf(location)!, caller, task_id) ? url : null;
}
