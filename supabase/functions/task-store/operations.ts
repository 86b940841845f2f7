// The operations of the worker's store that are SQL functions of the same name. Parameters there begin with `p_`.

import { z } from "zod";
import { PostgresArray } from "../_shared/database.ts";
import { claim, count, id, json, limit, name, newTasks, optional, status, text } from "../_shared/schemas.ts";

const byTask = z.object({ task_id: id });
const nothing = z.object({});
const failure = { message: text, error_class: name };
/** Also checks of the table task_previews. */
const previewType = z.enum(["image/webp", "image/png", "image/jpeg"]);
const previewImage = z.base64().min(4).max(4 * Math.ceil(32_768 / 3));
/** Seconds before now. */
const past = z.number().min(0).max(3650 * 86_400);
const maxAttempts = optional(z.int().min(1).max(1000));

export const OPERATIONS = {
  get_task: byTask,
  list_tasks: z.object({ status: optional(status), task_type: optional(name), limit: optional(limit) }),
  task_children: z.object({ parent_id: id }),
  task_dependencies: byTask,
  task_timeline: byTask,
  task_circumstances: byTask,
  task_preview: byTask,
  count_tasks: nothing,
  list_workers: nothing,
  queue_depths: nothing,
  list_logs: z.object({
    task_id: optional(id),
    worker_id: optional(name),
    levels: optional(z.array(name).max(5).transform((values) => new PostgresArray(values))),
    since_s: optional(past),
    text: optional(text),
    limit: optional(limit),
  }),
  list_samples: z.object({
    worker_id: optional(name),
    since_s: optional(past),
    limit: optional(z.int().min(1).max(10_000)),
  }),
  throughput: z.object({ since_s: past, bucket_s: z.int().min(1).max(3650 * 86_400) }),
  open_tasks: nothing,
  latest_change: z.object({ since: optional(count) }),
  installation: nothing,
  rescue_tasks: z.object({ max_attempts: maxAttempts }),
  retry_task: byTask,
  pause_task: byTask,
  resume_task: byTask,
  requeue_task: byTask,
  select_tasks: z.object({
    statuses: optional(z.array(status).max(5).transform((values) => new PostgresArray(values))),
    task_type: optional(name),
    worker_id: optional(name),
    error_class: optional(name),
    older_than_s: optional(past),
    newer_than_s: optional(past),
    ended_within_s: optional(past),
    run: optional(name),
    paused: optional(z.boolean()),
    text: optional(name),
    top: optional(z.boolean()),
    newest: optional(z.boolean()),
    after: optional(id),
    limit: optional(limit),
  }),
  task_ids_like: z.object({ prefix: z.string().min(1).max(36), limit: optional(limit) }),
  count_children: z.object({
    parent_ids: z.array(id).max(1000).transform((values) => new PostgresArray(values)),
  }),
  claim_state: claim,
  generation_started: claim,
  task_progress: claim.extend({ progress: json, event: optional(name) }),
  show_preview: claim.extend({ step: count, media_type: previewType, image: previewImage }),
  task_note: claim.extend({ name, detail: text }),
  fan_out_task: claim.extend({ children: newTasks, final_child: id }),
  fail_task: claim.extend(failure),
  retry_task_later: claim.extend({
    ...failure,
    delay_s: z.number().min(0).max(30 * 86_400),
    max_attempts: maxAttempts,
  }),
  release_task: claim,
  task_cancelled: claim,
} satisfies Record<string, z.ZodType>;

export type Operation = keyof typeof OPERATIONS;

/** The operation whose name is most like the word. */
export function nearest(word: string): Operation {
  const names = Object.keys(OPERATIONS) as Operation[];
  return names.reduce((best, next) => distance(word, next) < distance(word, best) ? next : best);
}

/** Levenshtein's: how many letters to change, add or remove. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, place) => place);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const change = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
