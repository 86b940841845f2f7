// Results of clients of the older contract. They name no claim; the row must have been claimed by such a client
// (tasks.unfenced), and the claim that holds it when the request comes in is the one that completes it.

import { Buffer } from "node:buffer";
import type { Caller } from "../_shared/auth.ts";
import { asCaller, call, type Sql } from "../_shared/database.ts";
import { badInput, Refused } from "../_shared/errors.ts";
import { objectName } from "../_shared/filenames.ts";
import { checkedKey, type Declared, fault, head, keyOf, publicUrl, put } from "../_shared/storage.ts";
import { type Row, thumbnailOf } from "./claimed.ts";
import type { Body } from "./handler.ts";

const MAX_FILE_BYTES = 10 * 1024 * 1024;

const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

const TYPES: Record<string, string> = {
  mp4: "video/mp4",
  m4v: "video/mp4",
  mov: "video/quicktime",
  webm: "video/webm",
  mkv: "video/x-matroska",
  avi: "video/x-msvideo",
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  webp: "image/webp",
  gif: "image/gif",
  json: "application/json",
};

interface File {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Mode 1: the file comes in the body. */
export async function completeWithData(body: Body, caller: Caller): Promise<unknown> {
  const file = fileIn(body, "file_data", "filename");
  const frame = body.first_frame_data === undefined && body.first_frame_filename === undefined
    ? null
    : fileIn(body, "first_frame_data", "first_frame_filename");
  if (frame && objectName(frame.name) === objectName(file.name)) {
    throw badInput("first_frame_filename", "the first frame needs a name of its own");
  }
  const { row, completed } = await stateOf(body.task_id, caller);
  const name = `/${row.claim_number}-${objectName(file.name)}`;
  if (completed) return repeated(row, (key) => key.endsWith(name));
  let declared: (string | null)[];
  try {
    declared = await asCaller(caller, async (sql) => [
      await declare(sql, body.task_id, row, file),
      frame && await declare(sql, body.task_id, row, frame),
    ]);
  } catch (error) {
    // the same request, sent again while this one was under way, was faster; or the claim is stale
    const now = await stateOf(body.task_id, caller);
    if (now.completed) return repeated(now.row, (key) => key.endsWith(name));
    throw error;
  }
  const [key, thumbnail] = declared;
  await put(key!, file.bytes, typeOf(file.name));
  if (frame) await put(thumbnail!, frame.bytes, typeOf(frame.name));
  return await complete(body.task_id, row, key!, thumbnail!, caller);
}

/** Modes 3 and 4: the file is there. Under `{user}/tasks/{task_id}/…` it was put by generate-upload-url. */
export async function completeStored(
  body: Body & { storage_path: string },
  caller: Caller,
): Promise<unknown> {
  const key = checkedKey(body.storage_path);
  const thumbnail = body.thumbnail_storage_path === undefined
    ? null
    : checkedKey(body.thumbnail_storage_path);
  const state = await stateOf(body.task_id, caller);
  for (const path of [key, thumbnail]) if (path !== null) checkOwner(path, body.task_id, state);
  if (state.completed) return repeated(state.row, (stored) => stored === key);
  const wrong = await faultOf(key, body.task_id, state);
  if (wrong !== null) throw new Refused(404, `the file ${key} ${wrong}`, "storage_path");
  // a result is worth more than its picture
  const picture = thumbnail !== null && await faultOf(thumbnail, body.task_id, state) === null
    ? thumbnail
    : null;
  return await complete(body.task_id, state.row, key, picture, caller);
}

interface State {
  row: Row;
  owner: string;
  completed: boolean;
  declared: Declared[];
}

/** Raises PT404, and PT409 when no older client holds the row nor completed it. */
async function stateOf(taskId: string, caller: Caller): Promise<State> {
  return await asCaller(caller, async (sql) => {
    const task = { p_task_id: taskId };
    // 404 for a row that the caller does not see
    await call(sql, "get_task", task);
    const state = await call<string>(sql, "claim_state", {
      ...task,
      p_worker_id: null,
      p_claim_number: null,
    });
    // after the state: whoever is told that the row is Complete needs its result
    const row = await call<Row>(sql, "get_task", task);
    const declared = await call<Declared[]>(sql, "declared_uploads", task);
    const [project] = await sql<{ owner: string }[]>`
      select coalesce(user_id, id) as owner from public.projects where id = ${row.project_id}`;
    return { row, owner: project!.owner, completed: state === "completed", declared };
  });
}

/** Raises Refused (403) for somebody else's key, and for another task's; an orchestrator may name its children's. */
function checkOwner(key: string, taskId: string, { owner, row }: State): void {
  const [user, folder, task] = key.split("/");
  if (user !== owner) throw new Refused(403, `${key} is not under ${owner}/`, "storage_path");
  if (folder === "tasks" && task !== taskId && !row.task_type.endsWith("_orchestrator")) {
    throw new Refused(403, `${key} belongs to another task`, "storage_path");
  }
}

async function faultOf(key: string, taskId: string, { declared }: State): Promise<string | null> {
  const upload = declared.find(({ storage_path }) => storage_path === key);
  if (upload) return await fault(upload);
  if (key.split("/")[1] === "tasks" && key.split("/")[2] === taskId) {
    throw new Refused(409, `${key} was not declared by the claim that holds the task now`, "storage_path");
  }
  return await head(key) === null ? "is not there" : null;
}

function repeated(row: Row, same: (key: string) => boolean): unknown {
  const key = row.output_location === null ? null : keyOf(row.output_location);
  if (key === null || !same(key)) {
    throw new Refused(409, "the task is Complete, with another result", "task_id");
  }
  return answer(row.output_location!, thumbnailOf(row), "The task had been completed before");
}

function answer(publicUrl: string, thumbnailUrl: string | null, message: string): unknown {
  return { success: true, public_url: publicUrl, thumbnail_url: thumbnailUrl, message };
}

async function complete(
  taskId: string,
  row: Row,
  key: string,
  thumbnail: string | null,
  caller: Caller,
): Promise<unknown> {
  const thumbnailUrl = thumbnail && publicUrl(thumbnail);
  const [fresh, now] = await asCaller(caller, async (sql) =>
    [
      await call<boolean>(sql, "complete_task", {
        p_task_id: taskId,
        p_worker_id: row.worker_id,
        p_claim_number: row.claim_number,
        p_output_location: publicUrl(key),
        p_result_data: thumbnailUrl ? { thumbnail_url: thumbnailUrl } : undefined,
      }),
      await call<Row>(sql, "get_task", { p_task_id: taskId }),
    ] as const);
  // the same request, sent again, was faster
  if (!fresh) return repeated(now, (stored) => stored === key);
  return answer(publicUrl(key), thumbnailUrl, "Task completed");
}

async function declare(sql: Sql, taskId: string, row: Row, file: File): Promise<string> {
  const declared = await call<{ storage_path: string }>(sql, "declare_upload", {
    p_task_id: taskId,
    p_worker_id: row.worker_id,
    p_claim_number: row.claim_number,
    p_filename: objectName(file.name),
    p_size_bytes: file.bytes.length,
  });
  return declared.storage_path;
}

function fileIn(
  body: Body,
  dataField: "file_data" | "first_frame_data",
  nameField: "filename" | "first_frame_filename",
): File {
  const data = body[dataField];
  const name = body[nameField];
  if (!data || !name) {
    throw badInput(data ? nameField : dataField, `${dataField} and ${nameField} go together`);
  }
  if (data.length % 4 || !BASE64.test(data)) throw badInput(dataField, `${dataField} is not base64`);
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  if (bytes.length > MAX_FILE_BYTES) {
    throw badInput(dataField, `${dataField} has more than 10 MB; use generate-upload-url`);
  }
  return { name, bytes };
}

function typeOf(name: string): string {
  return TYPES[name.slice(name.lastIndexOf(".") + 1).toLowerCase()] ?? "application/octet-stream";
}
