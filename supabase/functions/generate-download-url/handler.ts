// Where to read an object of the bucket: its public address, or a signed one when the bucket is private.

import { z } from "zod";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import { mayRead } from "../_shared/reading.ts";
import { id, optional, text } from "../_shared/schemas.ts";
import { checkedKey, download, head, keyOf } from "../_shared/storage.ts";

export const handler = endpoint({
  // task_id: a worker asks for a row that somebody wrote; then its owner's rights count
  body: z.object({ location: text, task_id: optional(id) }),
  run: async ({ location, task_id }, caller) => {
    const key = keyOf(location) ?? keyIn(location);
    if (!await mayRead(key, caller, task_id) || await head(key) === null) {
      throw new Refused(404, `there is no object ${key}`, "location");
    }
    const { url, expires_at } = await download(key);
    return { download_url: url, expires_at };
  },
});

function keyIn(location: string): string {
  if (URL.canParse(location)) {
    throw badInput("location", "this address is not of our storage; read it as it is");
  }
  return checkedKey(location);
}
