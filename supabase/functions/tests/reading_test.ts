// What workers and front ends read: outputs, predecessors, segments, children, counts; and what they note down.

import assert from "node:assert/strict";
import {
  anna,
  ask,
  bert,
  claimed,
  claimedAsBefore,
  done,
  queued,
  refused,
  row,
  stackTest,
  unique,
} from "./stack.ts";

/** A complete task with this output. Returns its id. */
async function complete(task: Record<string, unknown>, output_location: string): Promise<string> {
  const task_id = await claimedAsBefore(task);
  await done("update-task-status", { task_id, status: "Complete", output_location });
  return task_id;
}

stackTest("get-task-output", async () => {
  const params = { prompt: "a dog" };
  const needed = await queued();
  const waiting = await queued({ params, dependant_on: needed });
  const nothing = {
    status: "Queued",
    output_location: null,
    download_url: null,
    params,
    dependant_on: [needed],
  };
  assert.deepEqual(await done("get-task-output", { task_id: waiting }, anna.access_token), nothing);
  const url = "https://example.com/a.mp4";
  const made = await done("get-task-output", { task_id: await complete({}, url) }, anna.access_token);
  assert.deepEqual([made.status, made.output_location, made.download_url], ["Complete", url, url]);
  refused(await ask("get-task-output", { task_id: crypto.randomUUID() }), 404, "task_id");
  refused(await ask("get-task-output", {}), 400, "task_id");
});

stackTest("get-predecessor-output: none, one, and all of many", async () => {
  const ask = (task_id: string) => done("get-predecessor-output", { task_id }, anna.access_token);
  const none = { predecessor_id: null, output_location: null, predecessors: [] };
  const first = await complete({}, "1.mp4");
  assert.deepEqual(await ask(first), none);
  const one = { predecessor_id: first, output_location: "1.mp4", status: "Complete" };
  assert.deepEqual(await ask(await queued({ dependant_on: first })), {
    ...one,
    predecessors: [one],
    all_complete: true,
  });
  const open = await queued();
  const other = { predecessor_id: open, output_location: null, status: "Queued" };
  assert.deepEqual(await ask(await queued({ dependant_on: [first, open] })), {
    ...one,
    output_location: null,
    predecessors: [one, other],
    all_complete: false,
  });
});

stackTest("get-completed-segments: in order, each once, the newest", async () => {
  const orchestrator_run_id = unique("run");
  const segment = (segment_index: unknown) => ({
    task_type: "travel_segment",
    params: { orchestrator_run_id, segment_index },
  });
  for (
    const [index, name] of [[10, "old"], [2, "c"], [10, "new"], ["0", "a"], [-1, "wrong"], [null, "wrong"]]
  ) {
    await complete(segment(index), `${name}.mp4`);
  }
  await queued(segment(3));
  const expected = [
    { segment_index: 0, output_location: "a.mp4" },
    { segment_index: 2, output_location: "c.mp4" },
    { segment_index: 10, output_location: "new.mp4" },
  ];
  const body = { run_id: orchestrator_run_id, project_id: anna.project_id };
  assert.deepEqual(await done("get-completed-segments", body, anna.access_token), expected);
  assert.deepEqual(await done("get-completed-segments", { run_id: orchestrator_run_id }), expected);
  assert.deepEqual(await done("get-completed-segments", { ...body, project_id: bert.project_id }), []);
  const mine = { ...body, project_id: bert.project_id };
  assert.deepEqual(await done("get-completed-segments", mine, bert.access_token), []);
  refused(await ask("get-completed-segments", { run_id: "r" }, anna.access_token), 400, "project_id");
  refused(await ask("get-completed-segments", body, bert.access_token), 404, "project_id");
  refused(await ask("get-completed-segments", {}), 400, "run_id");
});

stackTest(
  "get-orchestrator-children: those that were fanned out, and those that older workers created",
  async () => {
    const claim = await claimed({ task_type: `${unique("a")}_orchestrator` });
    const parent = claim.task_id;
    const params = { orchestrator_task_id_ref: parent };
    const older = await queued({ task_type: "travel_segment", params });
    const id = crypto.randomUUID();
    const child = { id, task_type: "travel_stitch", params, parent_id: parent, child_key: "stitch:0" };
    const children = [{ ...child, project_id: anna.project_id }];
    await done(
      "task-store",
      { operation: "fan_out_task", ...claim, children, final_child: id },
      anna.access_token,
    );
    const { tasks } = await done(
      "get-orchestrator-children",
      { orchestrator_task_id: parent },
      anna.access_token,
    );
    assert.deepEqual(tasks.map((task: { id: string }) => task.id), [older, id]);
    assert.deepEqual(tasks[0], {
      id: older,
      task_type: "travel_segment",
      status: "Queued",
      params,
      output_location: null,
    });
    assert.deepEqual(await done("get-orchestrator-children", { orchestrator_task_id: older }), { tasks: [] });
    refused(await ask("get-orchestrator-children", {}), 400, "orchestrator_task_id");
  },
);

stackTest("task-counts: of everybody for the service, of their own for a person", async () => {
  const task_id = await queued({ project_id: bert.project_id });
  const all = await done("task-counts", { run_type: "gpu", include_active: true, debug: true });
  assert.equal(all.mode, "count");
  for (
    const name of [
      "queued_only",
      "active_only",
      "queued_plus_active",
      "blocked_by_deps",
      "potentially_claimable",
    ]
  ) {
    assert.equal(typeof all.totals[name], "number", name);
  }
  assert.ok(all.users.some(({ user_id }: { user_id: string }) => user_id === bert.user_id));
  assert.ok(Array.isArray(all.workers) && Array.isArray(all.active_tasks));
  const own = await done("task-counts", {}, bert.access_token);
  assert.deepEqual(own.totals, { queued_only: 1, active_only: 0, queued_plus_active: 1, eligible_queued: 1 });
  assert.deepEqual(own.queued_tasks.map((task: { task_id: string }) => task.task_id), [task_id]);
  assert.deepEqual([own.user_id, own.users], [bert.user_id, undefined]);
  refused(await ask("task-counts", { run_type: "tpu" }), 400, "run_type");
});

stackTest("update-worker-model under both names of the field", async () => {
  const worker_id = unique("worker");
  await done("heartbeat", { worker_id, lease_s: 60 });
  for (const field of ["current_model", "model"]) {
    const answer = await done("update-worker-model", { worker_id, [field]: `by ${field}` });
    assert.deepEqual(answer, { success: true, worker_id, current_model: `by ${field}` });
    const workers = (await done("task-store", { operation: "list_workers" })).result;
    const seen = workers.find(({ id }: { id: string }) => id === worker_id);
    assert.equal(seen.current_model, `by ${field}`);
  }
  refused(await ask("update-worker-model", { worker_id }), 400, "current_model");
  refused(await ask("update-worker-model", { model: "t2v" }), 400, "worker_id");
});

stackTest("update-shot-pair-prompts: the i-th prompt to the i-th image", async () => {
  const shot_id = anna.shot_id;
  const body = { shot_id, task_id: null, enhanced_prompts: ["a walk", "", "one too many", null] };
  const answer = await done("update-shot-pair-prompts", body, anna.access_token);
  assert.match(answer.message, /^1 of 4/);
  delete answer.message;
  assert.deepEqual(answer, { success: true, updated_count: 1, skipped_count: 2, failed_count: 1, shot_id });
  refused(await ask("update-shot-pair-prompts", { ...body, shot_id: crypto.randomUUID() }), 404, "shot_id");
  refused(await ask("update-shot-pair-prompts", { shot_id }), 400, "enhanced_prompts");
  refused(await ask("update-shot-pair-prompts", { ...body, enhanced_prompts: "a" }), 400, "enhanced_prompts");
});

stackTest("a task that was read is as it was", async () => {
  const task_id = await queued();
  const before = await row(task_id);
  await done("get-task-output", { task_id });
  await done("get-predecessor-output", { task_id });
  assert.deepEqual(await row(task_id), before);
});
