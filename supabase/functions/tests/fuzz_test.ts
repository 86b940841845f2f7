// Bodies by chance, the same in every run: whatever is sent, a function answers, and never that it failed.

import assert from "node:assert/strict";
import { OPERATIONS } from "../task-store/operations.ts";
import { anna, claimed, FUNCTIONS, hasStack, jwt, post, queued, SERVICE_KEY } from "./stack.ts";

const BODIES = 40;
const AT_ONCE = 8;
const TOO_LONG_MS = 10_000;

/** Numbers from 0 to below 1, the same for the same seed (mulberry32). */
function dice(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const FIELDS = [
  ..."task_id task_type params project_id dependant_on priority run_after paused tasks worker_id claim_number"
    .split(" "),
  ..."lease_s limit loaded_model task_types run_type max_attempts claims logs metadata current_model model"
    .split(" "),
  ..."status output_location attempts error_details claimed_at reset_generation_started_at result_data".split(
    " ",
  ),
  ..."filename content_type size_bytes sha256 md5 file_data first_frame_data storage_path location".split(
    " ",
  ),
  ..."run_id orchestrator_task_id shot_id enhanced_prompts operation progress children final_child".split(
    " ",
  ),
  ..."message error_class delay_s since name detail event parent_id include_active thumbnail_storage_path"
    .split(" "),
];

/** JSON texts: some that are meant, most that are not. */
class Chance {
  constructor(private readonly next: () => number, private readonly known: Record<string, string[]>) {}

  body(): string {
    if (this.next() < 0.1) return this.value(0);
    const fields = Array.from({ length: 1 + Math.floor(this.next() * 10) }, () => this.one(FIELDS));
    const meant = this.next() < 0.7
      ? ["task_id", "worker_id", "claim_number", "status", "operation", "params"]
      : [];
    const pairs = [...new Set([...meant, ...fields])].map((name) => `"${name}":${this.field(name)}`);
    return `{${pairs.join(",")}}`;
  }

  private field(name: string): string {
    return this.next() < 0.7 && name in this.known ? this.one(this.known[name]!) : this.value(0);
  }

  private value(depth: number): string {
    const kind = this.next();
    if (depth < 4 && kind < 0.12) return `[${this.many(() => this.value(depth + 1))}]`;
    if (depth < 4 && kind < 0.24) return `{${this.many(() => `${this.text()}:${this.value(depth + 1)}`)}}`;
    return kind < 0.6 ? this.text() : this.one(ODD);
  }

  private many(make: () => string): string {
    return Array.from({ length: Math.floor(this.next() * 5) }, make).join(",");
  }

  private text(): string {
    return this.next() < 0.5
      ? this.one(TEXTS)
      : JSON.stringify(String.fromCharCode(...Array.from({ length: 12 }, () => this.next() * 0xd000)));
  }

  one<T>(values: readonly T[]): T {
    return values[Math.floor(this.next() * values.length)]!;
  }
}

const ODD = [
  "null",
  "true",
  "false",
  "0",
  "-1",
  "1.5",
  "1e400",
  "-0",
  "9007199254740993",
  "99999999999999999999",
  "1e-400",
];
const TEXTS = [
  '""',
  '"\\u0000"',
  '"\\ud800"',
  '"__proto__"',
  '"constructor"',
  '"../../etc/passwd"',
  '"\'; drop table tasks; --"',
  '"00000000-0000-0000-0000-000000000000"',
  '"infinity"',
  '"2026-01-01T00:00:00Z"',
  '"Queued"',
  '"{}"',
  '"NaN"',
  `"${"x".repeat(3000)}"`,
];

async function knownValues(): Promise<Record<string, string[]>> {
  const claims = [await claimed(), await claimed(), await claimed()];
  const ids = [await queued(), await queued(), ...claims.map(({ task_id }) => task_id)];
  const quoted = (values: string[]) => values.map((value) => JSON.stringify(value));
  return {
    task_id: quoted(ids),
    orchestrator_task_id: quoted(ids),
    parent_id: quoted(ids),
    dependant_on: [...quoted(ids), JSON.stringify(ids)],
    worker_id: quoted(claims.map(({ worker_id }) => worker_id)),
    claim_number: ["1"],
    status: quoted(["Queued", "In Progress", "Complete", "Failed", "Cancelled"]),
    operation: quoted(Object.keys(OPERATIONS)),
    params: ["{}", '{"prompt":"a"}'],
    project_id: quoted([anna.project_id]),
    task_type: quoted(["t2v", "travel_segment", "travel_orchestrator"]),
    lease_s: ["60", "0.001"],
    claims: [JSON.stringify(claims)],
    filename: quoted(["a.mp4", "a.png", "../a", "ä b.mp4"]),
    content_type: quoted(["video/mp4"]),
    file_data: quoted(["aGVsbG8=", "!!"]),
    run_id: quoted(["r"]),
    shot_id: quoted([anna.shot_id]),
    enhanced_prompts: ['["a","",null]', "[]"],
  };
}

Deno.test({
  name: "whatever is sent, a function answers, and never that it failed",
  ignore: !hasStack,
  fn: async (test) => {
    const known = await knownValues();
    const tokens = [SERVICE_KEY, anna.access_token, await jwt({ sub: anna.user_id })];
    for (const [place, name] of FUNCTIONS.entries()) {
      await test.step(name, async () => {
        const chance = new Chance(dice(20261126 + place), known);
        const bodies = Array.from({ length: BODIES }, () => chance.body());
        const send = async (body: string) => {
          const began = performance.now();
          const answer = await post(name, body, chance.one(tokens));
          const took = performance.now() - began;
          assert.ok(
            answer.status < 500,
            `${answer.status} ${JSON.stringify(answer.body)} for ${body.slice(0, 2000)}`,
          );
          assert.ok(took < TOO_LONG_MS, `${took} ms for ${body.slice(0, 2000)}`);
          if (answer.status >= 400) assert.equal(answer.body.success, false);
        };
        for (let begin = 0; begin < BODIES; begin += AT_ONCE) {
          await Promise.all(bodies.slice(begin, begin + AT_ONCE).map(send));
        }
      });
    }
  },
});
