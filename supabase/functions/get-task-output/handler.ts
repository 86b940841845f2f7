// What a task was asked for and what came out. `download_url` can be opened also where the bucket is private.

import { z } from "zod";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { id } from "../_shared/schemas.ts";
import { readable } from "../_shared/storage.ts";
import type { Task } from "../_shared/tasks.ts";

export const handler = endpoint({
  body: z.object({ task_id: id }),
  run: async ({ task_id }, caller) => {
    const task = await asCaller(caller, (sql) => call<Task>(sql, "get_task", { p_task_id: task_id }));
    const { status, output_location, params, dependant_on } = task;
    const download_url = output_location === null ? null : await readable(output_location);
    return { status, output_location, download_url, params, dependant_on };
  },
});
