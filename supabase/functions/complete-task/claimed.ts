// The completion by a claim: what was declared is looked at first, outside of any transaction; then one transaction
// completes the row, if the claim still holds it.

import type { Caller } from "../_shared/auth.ts";
import { asCaller, call } from "../_shared/database.ts";
import { Refused } from "../_shared/errors.ts";
import { type Declared, fault, keyOf } from "../_shared/storage.ts";
import type { Body } from "./handler.ts";

type Claimed = Body & { worker_id: string; claim_number: number };

export interface Row {
  project_id: string;
  task_type: string;
  worker_id: string;
  claim_number: number;
  output_location: string | null;
  result_data: { thumbnail_url?: unknown } | null;
}

/** Complete the row. Raises Refused: 409 when the claim is stale, 403 for a file that it did not declare, 424 with the
 * code `upload_incomplete` for one that is not there as declared; the row is as before then. */
export async function completeClaim(body: Claimed, caller: Caller): Promise<Record<string, unknown>> {
  const claim = { p_task_id: body.task_id, p_worker_id: body.worker_id, p_claim_number: body.claim_number };
  const locations = locationsIn(body);
  const [state, declared] = await asCaller(caller, async (sql) =>
    [
      await call<string>(sql, "claim_state", claim),
      await call<Declared[]>(sql, "declared_uploads", {
        p_task_id: body.task_id,
        p_claim_number: body.claim_number,
      }),
    ] as const);
  if (state === "held") await checkUploads(locations, declared);
  const [fresh, row] = await asCaller(caller, async (sql) =>
    [
      await call<boolean>(sql, "complete_task", {
        ...claim,
        p_output_location: body.output_location ?? null,
        p_result_data: body.result_data,
      }),
      await call<Row>(sql, "get_task", { p_task_id: body.task_id }),
    ] as const);
  return {
    success: true,
    task_id: body.task_id,
    status: "Complete",
    output_location: row.output_location,
    thumbnail_url: thumbnailOf(row),
    message: fresh ? "Task completed" : "This claim had completed the task before",
    repeated: !fresh,
  };
}

export function thumbnailOf(row: Row): string | null {
  const url = row.result_data?.thumbnail_url;
  return typeof url === "string" ? url : null;
}

/** The texts of a result that may name files of ours, by the field that holds them. */
function locationsIn({ output_location, result_data }: Claimed): [string, string][] {
  const { outputs, thumbnail_url } = result_data ?? {};
  const listed = Array.isArray(outputs) ? outputs : [];
  const named: [string, unknown][] = [
    ["output_location", output_location],
    ["result_data.thumbnail_url", thumbnail_url],
    ...listed.map((output, place): [string, unknown] => [`result_data.outputs.${place}`, output]),
  ];
  return named.filter((entry): entry is [string, string] => typeof entry[1] === "string");
}

/** Every location that is ours must have been declared, and lie there as declared. */
async function checkUploads(locations: [string, string][], declared: Declared[]): Promise<void> {
  const seen = new Set<string>();
  for (const [field, location] of locations) {
    const key = keyOf(location);
    if (key === null || seen.has(key)) continue;
    seen.add(key);
    const upload = declared.find(({ storage_path }) => storage_path === key);
    if (!upload) {
      throw new Refused(403, `this claim did not declare ${key}; ask generate-upload-url first`, field);
    }
    const wrong = await fault(upload);
    if (wrong !== null) throw incomplete(key, wrong, field);
  }
}

function incomplete(key: string, wrong: string, field: string): Refused {
  const message = `the uploaded file ${key} ${wrong}; upload it again, the task is still yours`;
  return new Refused(424, message, field, { storage_path: key }, "upload_incomplete");
}
