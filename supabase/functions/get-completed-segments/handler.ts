// The outputs of the segments of one run of travel, in their order. A segment that was made twice counts once: the newest.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, type Sql } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import { id, name, optional } from "../_shared/schemas.ts";

const MAX_SEGMENTS = 1000;

export const handler = endpoint({
  body: z.object({ run_id: name, project_id: optional(id) }),
  run: async ({ run_id, project_id }, caller) => {
    if (caller.kind === "person" && project_id === undefined) {
      throw badInput("project_id", "is missing; only the service may leave it out");
    }
    return await asCaller(caller, async (sql) => {
      await checkProject(sql, project_id, caller);
      return await segmentsOf(sql, run_id, project_id ?? null);
    });
  },
});

async function checkProject(sql: Sql, projectId: string | undefined, caller: Caller): Promise<void> {
  if (projectId === undefined) return;
  const [seen] = await sql`select from public.projects where id = ${projectId}`;
  if (seen === undefined) {
    const whose = caller.kind === "person" ? " of yours" : "";
    throw new Refused(404, `there is no project ${projectId}${whose}`, "project_id");
  }
}

async function segmentsOf(sql: Sql, runId: string, projectId: string | null): Promise<unknown> {
  return await sql`
    select segment_index, output_location from (
      select distinct on (segment_index) (params ->> 'segment_index')::integer as segment_index, output_location
      from public.tasks
      where task_type = 'travel_segment' and status = 'Complete' and params ->> 'orchestrator_run_id' = ${runId}
        and output_location is not null and params ->> 'segment_index' ~ '^[0-9]{1,9}$'
        and (${projectId}::uuid is null or project_id = ${projectId}::uuid)
      order by segment_index, created_at desc, seq desc
    ) as newest
    order by segment_index limit ${MAX_SEGMENTS}`;
}
