// Where to read an object of the bucket: its public address, or a signed one when the bucket is private.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import { id, text } from "../_shared/schemas.ts";
import { checkedKey, download, head, keyOf } from "../_shared/storage.ts";

export const handler = endpoint({
  body: z.object({ location: text }),
  run: async ({ location }, caller) => {
    const key = keyOf(location) ?? keyIn(location);
    if (!await mayRead(key, caller) || await head(key) === null) {
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

/** People read what is under their own id, and what belongs to tasks that they see. */
async function mayRead(key: string, caller: Caller): Promise<boolean> {
  if (caller.kind === "service") return true;
  const [owner, folder, task] = key.split("/");
  if (owner === caller.userId) return true;
  if (folder !== "tasks" || !id.safeParse(task).success) return false;
  await asCaller(caller, (sql) => call(sql, "get_task", { p_task_id: task }));
  return true;
}
