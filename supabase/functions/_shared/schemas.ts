// The fields that several functions take.

import { z } from "zod";

/** Clients of the older contract send null for what they leave out. */
export function optional<Schema extends z.ZodType>(schema: Schema) {
  return schema.nullish().transform((value) => value ?? undefined);
}

export const id = z.guid({ error: "must be a UUID" });
export const name = z.string().min(1).max(500);
export const text = z.string().max(1_000_000);
export const count = z.int().min(0);
export const limit = z.int().min(1).max(1000);
/** A JSON object, as it is: z.record would drop a key like __proto__. */
export const json = z.custom<Record<string, unknown>>(
  (value) => typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype,
  { error: 'must be a JSON object like {"prompt": "…"}' },
);
export const runType = z.enum(["gpu", "api"]);
export const status = z.enum(["Queued", "In Progress", "Complete", "Failed", "Cancelled"]);

/** seconds; a day at most */
export const seconds = z.number().positive().max(86_400);

/** Who holds a row: what every write of a worker carries. */
export const claim = z.object({ task_id: id, worker_id: name, claim_number: count });

/** One id, or a list of them. */
const ids = z.union([id, z.array(z.union([id, z.null()]))], { error: "must be an array of ids, or one id" })
  .refine((given) => typeof given === "string" || given.length <= 1000, {
    error: "a task may depend on 1000 others at most",
  });

/** Larger numbers are not exact in every JSON. */
const priority = z.int({ error: "must be a whole number from -9007199254740991 to 9007199254740991" });

/** A row to add, without its id. */
export const newTask = z.object({
  task_type: name,
  params: json,
  dependant_on: optional(ids),
  priority: optional(priority),
  run_after: optional(z.iso.datetime({ offset: true })),
  paused: optional(z.boolean()),
  parent_id: optional(id),
  child_key: optional(name),
});

export const newTasks = z.array(newTask.extend({ id: optional(id), project_id: optional(id) })).max(5000);

/** S3's limit for one PUT */
export const MAX_FILE_BYTES = 5 * 1024 ** 3;

export const hex = (digits: number) =>
  z.string().toLowerCase().regex(new RegExp(`^[0-9a-f]{${digits}}$`), `must be ${digits} hexadecimal digits`);

export const contentType = z.string().max(100)
  .regex(/^\w+\/[\w.+-]+(; ?charset=[\w-]+)?$/, "must be a media type like video/mp4")
  // the bucket's address must not show somebody's page
  .refine((type) => !/html|xml|svg|script/i.test(type), "pages and scripts are no media");

/** The parameters of an SQL function: the same names with `p_`. */
export function parameters(body: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(body).map(([key, value]) => [`p_${key}`, value]));
}
