// The worker's store: `{operation, …}` calls the SQL function of that name and answers `{result}`.

import { z } from "zod";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint, parsed } from "../_shared/endpoint.ts";
import { badInput } from "../_shared/errors.ts";
import { parameters } from "../_shared/schemas.ts";
import { nearest, type Operation, OPERATIONS } from "./operations.ts";

export const handler = endpoint({
  body: z.looseObject({ operation: z.string().max(100) }),
  run: async ({ operation, ...body }, caller) => {
    if (!Object.hasOwn(OPERATIONS, operation)) {
      throw badInput("operation", `there is no operation ${operation}; the nearest is ${nearest(operation)}`);
    }
    const values = parsed(OPERATIONS[operation as Operation] as z.ZodType<Record<string, unknown>>, body);
    const result = await asCaller(caller, (sql) => call(sql, operation, parameters(values)));
    return { result };
  },
});
