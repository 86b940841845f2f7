// How much there is to do, for whom, and how the workers do.

import { z } from "zod";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { optional, parameters, runType } from "../_shared/schemas.ts";

export const handler = endpoint({
  body: z.object({ run_type: optional(runType), include_active: optional(z.boolean()) }),
  run: (body, caller) => asCaller(caller, (sql) => call(sql, "task_counts", parameters(body))),
});
