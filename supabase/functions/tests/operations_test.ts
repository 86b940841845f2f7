// Every operation of task-store: what it takes, and that a claim or a row of somebody else is out of its reach.

import assert from "node:assert/strict";
import { type Operation, OPERATIONS } from "../task-store/operations.ts";
import {
  anna,
  ask,
  bert,
  type Claimed,
  claimed,
  done,
  queued,
  refused,
  row,
  stackTest,
  unique,
} from "./stack.ts";

const SECRET = unique("secret");

interface Row {
  body: (claim: Claimed) => Record<string, unknown>;
  /** To somebody else: a refusal, or 200 without anything of Anna's. */
  bert: number;
}

const byTask = ({ task_id }: Claimed) => ({ task_id });
const byClaim = (more: Record<string, unknown> = {}) => (claim: Claimed) => ({ ...claim, ...more });
const everybody = { body: () => ({}), bert: 200 };
const failure = { message: "no", error_class: "transient" };

const ROWS: Record<Operation, Row> = {
  get_task: { body: byTask, bert: 404 },
  list_tasks: { body: () => ({ limit: 1000 }), bert: 200 },
  task_children: { body: ({ task_id }) => ({ parent_id: task_id }), bert: 200 },
  task_dependencies: { body: byTask, bert: 200 },
  task_timeline: { body: byTask, bert: 200 },
  task_circumstances: { body: byTask, bert: 404 },
  task_preview: { body: byTask, bert: 200 },
  count_tasks: everybody,
  list_workers: everybody,
  queue_depths: everybody,
  list_logs: { body: ({ task_id }) => ({ task_id, levels: ["INFO"], since_s: 60, limit: 9 }), bert: 200 },
  list_samples: { body: ({ worker_id }) => ({ worker_id, since_s: 60 }), bert: 200 },
  throughput: { body: () => ({ since_s: 60, bucket_s: 1 }), bert: 200 },
  open_tasks: everybody,
  latest_change: { body: () => ({ since: 0 }), bert: 200 },
  installation: everybody,
  rescue_tasks: { body: () => ({ max_attempts: 3 }), bert: 200 },
  retry_task: { body: byTask, bert: 404 },
  pause_task: { body: byTask, bert: 404 },
  resume_task: { body: byTask, bert: 404 },
  requeue_task: { body: byTask, bert: 404 },
  select_tasks: {
    body: ({ task_id }) => ({
      run: task_id,
      statuses: ["In Progress"],
      paused: false,
      older_than_s: 0,
      newer_than_s: 600,
      text: "t2v",
      top: true,
      newest: true,
      limit: 9,
    }),
    bert: 200,
  },
  task_ids_like: { body: ({ task_id }) => ({ prefix: task_id.slice(0, 9), limit: 3 }), bert: 200 },
  count_children: { body: ({ task_id }) => ({ parent_ids: [task_id] }), bert: 200 },
  claim_state: { body: byClaim(), bert: 409 },
  generation_started: { body: byClaim(), bert: 409 },
  task_progress: { body: byClaim({ progress: { step: 1 }, event: "step" }), bert: 409 },
  show_preview: { body: byClaim({ step: 1, media_type: "image/webp", image: "UklGRg==" }), bert: 409 },
  task_note: { body: byClaim({ name: "note", detail: "text" }), bert: 409 },
  fan_out_task: {
    body: (claim) => {
      const id = crypto.randomUUID();
      const child = { id, task_type: "t2v", params: {}, parent_id: claim.task_id, child_key: "only" };
      return { ...claim, children: [{ ...child, project_id: anna.project_id }], final_child: id };
    },
    bert: 409,
  },
  fail_task: { body: byClaim(failure), bert: 409 },
  retry_task_later: { body: byClaim({ ...failure, delay_s: 60, max_attempts: 3 }), bert: 409 },
  release_task: { body: byClaim(), bert: 409 },
  task_cancelled: { body: byClaim(), bert: 409 },
};

Deno.test("every operation has its row", () => {
  assert.deepEqual(Object.keys(ROWS).sort(), Object.keys(OPERATIONS).sort());
});

for (const [operation, expected] of Object.entries(ROWS)) {
  stackTest(`${operation}: somebody else neither learns nor changes anything`, async () => {
    const claim = await claimed({ params: { prompt: SECRET } });
    const before = await row(claim.task_id);
    const answer = await ask("task-store", { operation, ...expected.body(claim) }, bert.access_token);
    assert.equal(answer.status, expected.bert, JSON.stringify(answer.body));
    const said = JSON.stringify(answer.body);
    assert.ok(!said.includes(SECRET) && !(answer.status < 300 && said.includes(claim.task_id)), said);
    assert.deepEqual(await row(claim.task_id), before);
  });

  stackTest(`${operation}: its owner may`, async () => {
    const claim = await claimed();
    if (operation === "retry_task") {
      await done("task-store", { operation: "fail_task", ...claim, ...failure });
    }
    const answer = await done("task-store", { operation, ...expected.body(claim) }, anna.access_token);
    assert.ok("result" in answer);
  });
}

stackTest(
  "an operation that does not exist names the nearest; none may be guessed out of an object",
  async () => {
    const answer = await ask("task-store", { operation: "get_tasks" });
    refused(answer, 400, "operation");
    assert.match(answer.body.error, /nearest is get_task$/);
    for (
      const operation of ["constructor", "__proto__", "user_of_token", "create_api_token", "", 'x"; drop']
    ) {
      refused(await ask("task-store", { operation }), 400, "operation");
    }
  },
);

stackTest("what is wrong is named", async () => {
  const claim = { task_id: crypto.randomUUID(), worker_id: "w", claim_number: 1 };
  const preview = { step: 1, media_type: "image/webp", image: "AAAA" };
  const wrong: [Record<string, unknown>, string][] = [
    [{}, "operation"],
    [{ operation: "get_task" }, "task_id"],
    [{ operation: "get_task", task_id: "1" }, "task_id"],
    [{ operation: "list_tasks", limit: 1e9 }, "limit"],
    [{ operation: "list_tasks", limit: 0.5 }, "limit"],
    [{ operation: "list_tasks", status: "queued" }, "status"],
    [{ operation: "task_progress", ...claim, progress: [] }, "progress"],
    [{ operation: "task_progress", ...claim, progress: {}, claim_number: "1" }, "claim_number"],
    [{ operation: "task_note", ...claim, name: "x" }, "detail"],
    [{ operation: "show_preview", ...claim, ...preview, image: "%" }, "image"],
    [{ operation: "show_preview", ...claim, ...preview, image: "AAAA".repeat(11_000) }, "image"],
    [{ operation: "show_preview", ...claim, ...preview, media_type: "image/svg+xml" }, "media_type"],
    [{ operation: "retry_task_later", ...claim, ...failure, delay_s: -1 }, "delay_s"],
    [
      { operation: "fan_out_task", ...claim, final_child: claim.task_id, children: [{}] },
      "children.0.task_type",
    ],
  ];
  for (const [body, field] of wrong) refused(await ask("task-store", body), 400, field);
});

stackTest("a stale claim is refused, and nulls count as left out", async () => {
  const claim = await claimed();
  await done("task-store", { operation: "release_task", ...claim });
  refused(await ask("task-store", { operation: "generation_started", ...claim }), 409);
  const listed = await done("task-store", {
    operation: "list_tasks",
    status: null,
    task_type: null,
    limit: 1,
  });
  assert.equal(listed.result.length, 1);
});

stackTest("a repeated fan-out adds nothing", async () => {
  const claim = await claimed();
  const body = { operation: "fan_out_task", ...ROWS.fan_out_task.body(claim) };
  const once = await done("task-store", body);
  assert.deepEqual(await done("task-store", body), once);
  const children = await done("task-store", { operation: "task_children", parent_id: claim.task_id });
  assert.equal(children.result.length, 1);
  assert.ok((await row(claim.task_id)).waiting);
  await done("cancel-task", { task_id: await queued() });
});
