// Keeps leases alive. With `lease_s` by claim number; without, as the older contract knows it (for the service only:
// older claims of people bear no worker's name).

import { z } from "zod";
import { asCaller, call, PostgresArray } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput } from "../_shared/errors.ts";
import { count, id, json, name, optional, parameters, seconds } from "../_shared/schemas.ts";

const body = z.object({
  worker_id: name,
  status: optional(name),
  logs: optional(z.array(json).max(1000)),
  lease_s: optional(seconds),
  claims: optional(z.array(z.object({ task_id: id, claim_number: count })).max(1000)),
  current_model: optional(name),
  metadata: optional(json),
  sample: optional(json),
  vram_total_mb: optional(count),
  vram_used_mb: optional(count),
  current_task_id: optional(id),
});

export const handler = endpoint({
  body,
  run: async ({ vram_total_mb, vram_used_mb, current_task_id, ...beat }, caller) => {
    if (beat.lease_s !== undefined) {
      // who names no claims at all does not say that it has none
      const unknown = beat.claims === undefined ? { unknown_after_s: null } : {};
      const values = parameters({ ...beat, claims: beat.claims ?? [], ...unknown });
      return await asCaller(caller, (sql) => call(sql, "worker_heartbeat", values));
    }
    if (caller.kind !== "service") throw badInput("lease_s", "is missing, in seconds");
    return await asCaller(caller, (sql) =>
      call(sql, "func_worker_heartbeat_with_logs", {
        worker_id_param: beat.worker_id,
        vram_total_mb_param: vram_total_mb,
        vram_used_mb_param: vram_used_mb,
        logs_param: new PostgresArray((beat.logs ?? []).map((entry) => JSON.stringify(entry, withoutNul))),
        current_task_id_param: current_task_id,
        status_param: beat.status,
      }));
  },
});

/** Postgres keeps no NUL in a text, and a line of a log must not cost the lease. */
function withoutNul(_key: string, value: unknown): unknown {
  return typeof value === "string" ? value.replaceAll("\0", "") : value;
}
