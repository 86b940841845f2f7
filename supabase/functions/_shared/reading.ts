// Who may read an object of the bucket, where the bucket is private.

import type { Caller } from "./auth.ts";
import { asCaller } from "./database.ts";
import { id } from "./schemas.ts";

/** People read what is under their own id, and what belongs to tasks that they see. The service reads everything; for a
 * task that names the object (`task_id`: anybody may have written that name), what the task's owner may read. */
export async function mayRead(key: string, caller: Caller, task_id?: string): Promise<boolean> {
  const [owner, folder, task] = key.split("/");
  if (caller.kind === "service") return task_id === undefined || await ownerMayRead(owner!, task_id, caller);
  if (owner === caller.userId) return true;
  if (folder !== "tasks" || !id.safeParse(task).success) return false;
  const seen = await asCaller(caller, (sql) => sql`select from public.tasks where id = ${task!}`);
  return seen.length > 0;
}

/** A project without an owner is the installation's own. */
async function ownerMayRead(owner: string, task_id: string, caller: Caller): Promise<boolean> {
  const [project] = await asCaller(caller, (sql) =>
    sql<{ user_id: string | null }[]>`
      select user_id from public.projects
      where id = (select project_id from public.tasks where tasks.id = ${task_id})`);
  return project !== undefined && (project.user_id === null || project.user_id === owner);
}
