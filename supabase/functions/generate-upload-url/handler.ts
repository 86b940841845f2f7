// Where a worker puts a file of the row that it holds. The file is declared first; complete-task looks for it.

import { z } from "zod";
import { asCaller, call, type Sql } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { objectName, thumbnailName } from "../_shared/filenames.ts";
import { claim, contentType, count, hex, MAX_FILE_BYTES, name, optional } from "../_shared/schemas.ts";
import { publicUrl, type Signed, signedUpload } from "../_shared/storage.ts";

const body = claim.extend({
  // without them: a client of the older contract
  worker_id: optional(name),
  claim_number: optional(count),
  filename: z.string().min(1).max(1000),
  content_type: contentType,
  size_bytes: optional(count.max(MAX_FILE_BYTES, "more than 5 GB do not go into one upload")),
  sha256: optional(hex(64)),
  md5: optional(hex(32)),
  generate_thumbnail_url: optional(z.boolean()),
});

type Body = z.output<typeof body>;

/** Declares a file of the row; its key. Raises PT409 when the claim does not hold the row. */
async function declare(sql: Sql, body: Body, filename: string, about: Partial<Body> = {}): Promise<string> {
  const declared = await call<{ storage_path: string }>(sql, "declare_upload", {
    p_task_id: body.task_id,
    p_worker_id: body.worker_id ?? null,
    p_claim_number: body.claim_number ?? null,
    p_filename: objectName(filename),
    p_size_bytes: about.size_bytes,
    p_sha256: about.sha256,
    p_md5: about.md5,
  });
  return declared.storage_path;
}

export const handler = endpoint({
  body,
  run: async (body, caller) => {
    const [key, thumbnail] = await asCaller(caller, async (sql) => {
      // 404 for a row that the caller does not see
      await call(sql, "get_task", { p_task_id: body.task_id });
      return [
        await declare(sql, body, body.filename, body),
        body.generate_thumbnail_url ? await declare(sql, body, thumbnailName(body.filename)) : null,
      ];
    });
    const upload = await signedUpload(key!, body.content_type, body);
    return {
      upload_url: upload.url,
      upload_headers: upload.headers,
      storage_path: key,
      public_url: publicUrl(key!),
      token: tokenOf(upload),
      expires_at: upload.expires_at,
      ...(thumbnail ? await thumbnailFields(thumbnail) : {}),
    };
  },
});

async function thumbnailFields(key: string): Promise<Record<string, unknown>> {
  const upload = await signedUpload(key, "image/jpeg", {});
  return {
    thumbnail_upload_url: upload.url,
    thumbnail_upload_headers: upload.headers,
    thumbnail_storage_path: key,
    thumbnail_public_url: publicUrl(key),
    thumbnail_token: tokenOf(upload),
  };
}

/** Older answers had one beside the address. It is of no use without it. */
function tokenOf(upload: Signed): string | null {
  return new URL(upload.url).searchParams.get("X-Amz-Signature");
}
