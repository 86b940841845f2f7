// update-task-status: the older contract's writes, and those by a claim.

import assert from "node:assert/strict";
import {
  anna,
  ask,
  claimed,
  claimedAsBefore,
  done,
  queued,
  refused,
  row,
  stackTest,
  unique,
} from "./stack.ts";

const update = (body: Record<string, unknown>) => ask("update-task-status", body, anna.access_token);

stackTest("In Progress needs a worker and a time, or the function that claims is named", async () => {
  const task_id = await queued();
  const held = { worker_id: unique("older"), claimed_at: new Date().toISOString() };
  for (const missing of ["worker_id", "claimed_at"]) {
    const answer = await update({ task_id, status: "In Progress", ...held, [missing]: undefined });
    refused(answer, 400, missing);
    assert.match(answer.body.error, /claim-next-task/);
  }
  assert.equal((await row(task_id)).status, "Queued");
  const answer = await update({ task_id, status: "In Progress", ...held });
  assert.deepEqual([answer.status, answer.body.success, answer.body.status], [200, true, "In Progress"]);
  assert.equal((await row(task_id)).worker_id, held.worker_id);
});

stackTest("what is no change is refused", async () => {
  const task_id = await queued();
  refused(await update({ task_id, status: "Done" }), 400, "status");
  refused(await update({ task_id, status: "queued" }), 400, "status");
  refused(await update({ task_id }), 400, "status");
  refused(await update({ status: "Failed" }), 400, "task_id");
  refused(await update({ task_id: crypto.randomUUID(), status: "Failed" }), 404, "task_id");
  refused(await update({ task_id, status: "Cancelled", attempts: -1 }), 400, "attempts");
});

stackTest("a text is progress while a task runs, and the error when it failed", async () => {
  const task_id = await claimedAsBefore();
  const { worker_id } = await row(task_id);
  const running = { task_id, status: "In Progress", worker_id, claimed_at: "now" };
  // newer clients of the older contract say no more than that; they hold the row already
  const plain = { task_id, status: "In Progress", output_location: "step 3" };
  await done("update-task-status", plain, anna.access_token);
  let task = await row(task_id);
  assert.deepEqual([task.progress, task.output_location], [{ message: "step 3" }, null]);
  const before = task.generation_started_at;
  await done("update-task-status", { ...running, reset_generation_started_at: true }, anna.access_token);
  assert.ok((await row(task_id)).generation_started_at > before);
  const failed = { task_id, status: "Failed", output_location: "Upload failed: 500" };
  await done("update-task-status", failed, anna.access_token);
  task = await row(task_id);
  assert.deepEqual([task.status, task.error_message, task.output_location], [
    "Failed",
    "Upload failed: 500",
    null,
  ]);
});

stackTest("Complete takes the output, and is final", async () => {
  const task_id = await claimedAsBefore();
  const complete = { task_id, status: "Complete", output_location: "https://example.com/a.mp4" };
  for (let time = 0; time < 2; time++) {
    const answer = await done("update-task-status", complete, anna.access_token);
    assert.deepEqual([answer.success, answer.task_id, answer.status], [true, task_id, "Complete"]);
  }
  for (const status of ["Failed", "Cancelled", "Queued"]) {
    const { status: code, body } = await update({ task_id, status, output_location: "no" });
    assert.equal(code, 400);
    const told = [body.success, body.current_status, body.requested_status];
    assert.deepEqual(told, [false, "Complete", status]);
    assert.match(body.message, /cannot become/);
  }
  const now = await row(task_id);
  assert.deepEqual([now.status, now.output_location], ["Complete", complete.output_location]);
});

stackTest("Cancelled is final", async () => {
  const task_id = await queued();
  assert.equal((await update({ task_id, status: "Cancelled" })).body.status, "Cancelled");
  for (const status of ["Queued", "Complete", "Failed"]) {
    refused(await update({ task_id, status }), 400, "status");
  }
});

stackTest("the service puts a task back into the queue and says why", async () => {
  const task_id = await claimedAsBefore();
  const back = {
    task_id,
    status: "Queued",
    clear_worker: true,
    attempts: 2,
    error_details: "no CUDA device",
  };
  await done("update-task-status", back);
  const task = await row(task_id);
  assert.deepEqual([task.status, task.worker_id, task.attempts], ["Queued", null, 2]);
  assert.equal(task.error_message, "no CUDA device");
  await done("cancel-task", { task_id });
});

stackTest("a person's attempts are counted by the database alone", async () => {
  const task_id = await claimedAsBefore();
  await done("update-task-status", { task_id, status: "Failed", attempts: 70 }, anna.access_token);
  assert.equal((await row(task_id)).attempts, 1);
});

stackTest("without a claim number nobody changes what was claimed with one", async () => {
  const { task_id } = await claimed();
  for (const status of ["Complete", "Failed", "Queued"]) refused(await update({ task_id, status }), 409);
  assert.equal((await row(task_id)).status, "In Progress");
  // asking for an end is no write of a worker
  assert.equal((await update({ task_id, status: "Cancelled" })).body.status, "In Progress");
  assert.ok((await row(task_id)).cancel_requested);
});

stackTest("an older worker does not change what another one holds", async () => {
  const task_id = await claimedAsBefore();
  refused(await update({ task_id, status: "Failed", worker_id: unique("another") }), 409);
  assert.equal((await row(task_id)).status, "In Progress");
});

stackTest("a claim's writes by its number", async () => {
  const claim = await claimed();
  refused(await update({ ...claim, status: "Failed", worker_id: undefined }), 400, "worker_id");
  const complete = await update({
    ...claim,
    status: "Complete",
    output_location: "https://example.com/a.mp4",
  });
  refused(complete, 400, "status");
  assert.match(complete.body.error, /complete-task/);
  const running = {
    ...claim,
    status: "In Progress",
    output_location: "step 1",
    reset_generation_started_at: true,
  };
  assert.equal((await update(running)).status, 200);
  assert.deepEqual((await row(claim.task_id)).progress, { message: "step 1" });
  refused(await update({ ...claim, claim_number: 2, status: "Failed" }), 409);
  assert.equal((await update({ ...claim, status: "Failed", error_details: "no" })).body.status, "Failed");
  refused(await update({ ...claim, status: "In Progress" }), 409);
  for (const [status, becomes] of [["Queued", "Queued"], ["Cancelled", "Cancelled"]]) {
    assert.equal((await update({ ...await claimed(), status })).body.status, becomes);
  }
});

stackTest("children of an older orchestrator end with it", async () => {
  const parent = await claimedAsBefore({ task_type: "travel_orchestrator" });
  const params = { orchestrator_task_id_ref: parent, segment_index: 0 };
  const child = await queued({ task_type: "travel_segment", params });
  await done(
    "update-task-status",
    { task_id: parent, status: "Failed", output_location: "no" },
    anna.access_token,
  );
  assert.ok(["Failed", "Cancelled"].includes((await row(child)).status));
});
