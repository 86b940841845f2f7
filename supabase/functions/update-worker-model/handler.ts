// Notes which model a worker has loaded. Older workers call the field `model`.

import { z } from "zod";
import { asCaller } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput } from "../_shared/errors.ts";
import { name, optional } from "../_shared/schemas.ts";

export const handler = endpoint({
  callers: "service",
  body: z.object({ worker_id: name, current_model: optional(name), model: optional(name) }),
  run: async ({ worker_id, current_model, model }, caller) => {
    const loaded = current_model ?? model;
    if (loaded === undefined) throw badInput("current_model", "is missing");
    await asCaller(
      caller,
      (sql) =>
        sql`insert into public.workers (id, current_model) values (${worker_id}, ${loaded})
        on conflict (id) do update set current_model = excluded.current_model`,
    );
    return { success: true, worker_id, current_model: loaded };
  },
});
