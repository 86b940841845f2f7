// A worker's result. Ours: the claim and where the files are, which generate-upload-url declared before. Clients of the
// older contract send the file itself, or the key that it lies under.

import { z } from "zod";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput } from "../_shared/errors.ts";
import { count, id, json, name, optional, text } from "../_shared/schemas.ts";
import { completeClaim } from "./claimed.ts";
import { completeStored, completeWithData } from "./older.ts";

const body = z.object({
  task_id: id,
  worker_id: optional(name),
  claim_number: optional(count),
  output_location: optional(text),
  result_data: optional(json),
  file_data: optional(z.string()),
  filename: optional(text),
  first_frame_data: optional(z.string()),
  first_frame_filename: optional(text),
  storage_path: optional(text),
  thumbnail_storage_path: optional(text),
});

export type Body = z.output<typeof body>;

// a file of 10 MB and its first frame in base64
const MAX_BODY_BYTES = 20 * 1024 * 1024;

export const handler = endpoint({
  body,
  maxBytes: MAX_BODY_BYTES,
  run: async (body, caller) => {
    const { task_id, worker_id, claim_number, storage_path } = body;
    if (worker_id !== undefined && claim_number !== undefined) {
      return await completeClaim({ ...body, worker_id, claim_number }, caller);
    }
    if (body.file_data !== undefined) return await completeWithData(body, caller);
    if (storage_path !== undefined) return await completeStored({ ...body, storage_path }, caller);
    throw badInput(
      undefined,
      `task ${task_id}: a result needs worker_id and claim_number with its output_location; or storage_path of an ` +
        "uploaded file, or file_data with filename",
    );
  },
});
