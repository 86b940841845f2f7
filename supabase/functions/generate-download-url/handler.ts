// Where to read an object of the bucket: its public address, or a signed one when the bucket is private.

import { z } from "zod";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { badInput, Refused } from "../_shared/errors.ts";
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

/** What a row names, its owner must be allowed to read. A project without an owner is the installation's own. */
async function ownerMayRead(owner: string, task_id: string, caller: Caller): Promise<boolean> {
  const [project] = await asCaller(caller, (sql) =>
    sql<{ user_id: string | null }[]>`
      select user_id from public.projects
      where id = (select project_id from public.tasks where tasks.id = ${task_id})`);
  return project !== undefined && (project.user_id === null || project.user_id === owner);
}

/** People read what is under their own id, and what belongs to tasks that they see. */
async function mayRead(key: string, caller: Caller, task_id?: string): Promise<boolean> {
  const [owner, folder, task] = key.split("/");
  if (caller.kind === "service") return task_id === undefined || await ownerMayRead(owner!, task_id, caller);
  if (owner === caller.userId) return true;
  if (folder !== "tasks" || !id.safeParse(task).success) return false;
  await asCaller(caller, (sql) => call(sql, "get_task", { p_task_id: task }));
  return true;
}
