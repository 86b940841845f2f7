// Where a person puts a picture, video or sound that rows shall name: {user}/inputs/{digest}-{name}. The same file twice
// is one. No row has to be there, so nothing is written down: the key says who owns it and what it holds.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { Refused } from "../_shared/errors.ts";
import { objectName } from "../_shared/filenames.ts";
import { contentType, count, hex, id, MAX_FILE_BYTES, optional } from "../_shared/schemas.ts";
import { head, publicUrl, signedUpload } from "../_shared/storage.ts";

// The project of rows that the service adds without naming one.
const INSTALLATION = "00000000-0000-0000-0000-000000000000";
const DIGEST_DIGITS = 16;

const body = z.object({
  filename: z.string().min(1).max(1000),
  content_type: contentType.regex(/^(image|video|audio)\//, "must be that of an image, a video or a sound"),
  size_bytes: count.min(1).max(MAX_FILE_BYTES, "more than 5 GB do not go into one upload"),
  sha256: hex(64),
  md5: hex(32),
  // the service: of whose rows it is; people's files are their own
  project_id: optional(id),
});

export const handler = endpoint({
  body,
  run: async (body, caller) => {
    const owner = await ownerOf(caller, body.project_id);
    const key = `${owner}/inputs/${body.sha256.slice(0, DIGEST_DIGITS)}-${objectName(body.filename)}`;
    const known = await head(key);
    const upload = await signedUpload(key, body.content_type, body);
    return {
      upload_url: upload.url,
      upload_headers: upload.headers,
      storage_path: key,
      public_url: publicUrl(key),
      expires_at: upload.expires_at,
      // an interrupted PUT leaves nothing behind
      stored: known !== null && known.size_bytes === body.size_bytes,
    };
  },
});

/** The first part of the key: a person, or the id of a project without one. Raises Refused (404). */
async function ownerOf(caller: Caller, project: string | undefined): Promise<string> {
  if (caller.kind === "person") return caller.userId;
  if (project === undefined) return INSTALLATION;
  const [found] = await asCaller(caller, (sql) =>
    sql<{ owner: string }[]>`
      select coalesce(user_id, id) as owner from public.projects where id = ${project}`);
  if (found === undefined) throw new Refused(404, `there is no project ${project}`, "project_id");
  return found.owner;
}
