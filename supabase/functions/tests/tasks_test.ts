// Adding, claiming, keeping alive, cancelling.

import assert from "node:assert/strict";
import {
  address,
  anna,
  ask,
  bert,
  carla,
  claimed,
  done,
  jwt,
  post,
  queued,
  refused,
  row,
  SERVICE_KEY,
  stackTest,
  unique,
} from "./stack.ts";

const NEW = { task_type: "t2v", params: { prompt: "a cat" } };

stackTest("a task is created once, however often it is sent", async () => {
  const task = { ...NEW, project_id: anna.project_id, task_id: crypto.randomUUID() };
  for (const token of [anna.access_token, anna.access_token, SERVICE_KEY]) {
    assert.deepEqual(await done("create-task", task, token), {
      task_id: task.task_id,
      status: "Task queued",
    });
  }
  assert.deepEqual((await row(task.task_id)).params, NEW.params);
});

stackTest("dependencies as older and newer clients write them", async () => {
  const [first, second] = [await queued(), await queued()];
  for (const [written, read] of [[first, [first]], [[first, second], [first, second]], [null, []]]) {
    assert.deepEqual((await row(await queued({ dependant_on: written }))).dependant_on, read);
  }
});

stackTest("a task that cannot be is refused with the field's name", async () => {
  const task = { ...NEW, project_id: anna.project_id };
  const wrong: [Record<string, unknown>, string][] = [
    [{ ...task, params: undefined }, "params"],
    [{ ...task, params: "{}" }, "params"],
    [{ ...task, params: [] }, "params"],
    [{ ...task, task_type: undefined }, "task_type"],
    [{ ...task, task_type: "" }, "task_type"],
    [{ ...task, project_id: undefined }, "project_id"],
    [{ ...task, task_id: "abc" }, "task_id"],
    [{ ...task, dependant_on: "abc" }, "dependant_on"],
    [{ ...task, dependant_on: [crypto.randomUUID()] }, "dependant_on"],
    [{ ...task, priority: 1.5 }, "priority"],
    [{ ...task, run_after: "tomorrow" }, "run_after"],
    [{ tasks: [{ ...task, paused: 1 }] }, "tasks.0.paused"],
    [{ tasks: {} }, "tasks"],
  ];
  for (const [body, field] of wrong) refused(await ask("create-task", body, anna.access_token), 400, field);
});

stackTest("projects and ids of others are refused", async () => {
  const theirs = { ...NEW, project_id: anna.project_id };
  refused(await ask("create-task", theirs, bert.access_token), 403, "project_id");
  refused(await ask("create-task", { ...NEW, project_id: crypto.randomUUID() }), 404, "project_id");
  const task_id = await queued();
  const taken = { ...NEW, project_id: bert.project_id, task_id };
  refused(await ask("create-task", taken, bert.access_token), 403, "task_id");
});

stackTest("many tasks are added together or not at all", async () => {
  const [id, other] = [crypto.randomUUID(), crypto.randomUUID()];
  const first = { ...NEW, id, project_id: anna.project_id };
  const second = {
    ...first,
    id: other,
    dependant_on: [id],
    run_after: "2030-01-01T00:00:00.000Z",
    paused: true,
  };
  assert.deepEqual(await done("create-task", { tasks: [first, second] }), { task_ids: [id, other] });
  const added = await row(other);
  assert.deepEqual([added.paused, added.run_after, added.dependant_on], [true, second.run_after, [id]]);
  const third = { ...first, id: crypto.randomUUID() };
  refused(await ask("create-task", { tasks: [third, { ...third, task_type: "" }] }), 400);
  refused(await ask("task-store", { operation: "get_task", task_id: third.id }), 404);
});

stackTest("a person adds 120 tasks a minute, the service any number", async () => {
  const task = { ...NEW, project_id: carla.project_id, paused: true };
  await done("create-task", { tasks: Array.from({ length: 119 }, () => task) }, carla.access_token);
  await done("create-task", task, carla.access_token);
  const answer = await ask("create-task", task, await jwt({ sub: carla.user_id }));
  refused(answer, 429);
  assert.equal(answer.headers.get("Retry-After"), "60");
  await done("create-task", task);
});

stackTest("a seed of 64 bits arrives as it was sent", async () => {
  const seed = "9223372036854775807";
  const task_type = unique("type");
  await post(
    "create-task",
    `{"task_type":"${task_type}","project_id":"${anna.project_id}","params":{"seed":${seed}}}`,
  );
  const wish = JSON.stringify({ worker_id: unique("w"), lease_s: 60, task_types: [task_type] });
  const response = await fetch(address("claim-next-task"), {
    method: "POST",
    headers: { Authorization: `Bearer ${SERVICE_KEY}` },
    body: wish,
  });
  const text = await response.text();
  assert.ok(text.includes(`"seed":${seed}`), text);
});

// -- claiming ------------------------------------------------------------------------------------------------------

stackTest("a claim with a lease answers with full rows, at most as many as asked for", async () => {
  const task_type = unique("type");
  const made = [
    await queued({ task_type }),
    await queued({ task_type, priority: 1 }),
    await queued({ task_type }),
  ];
  const wish = { worker_id: unique("w"), lease_s: 60, limit: 2, task_types: [task_type, '"\\{}'] };
  const { tasks } = await done("claim-next-task", wish, anna.access_token);
  assert.deepEqual(tasks.map(({ id }: { id: string }) => id), [made[1], made[0]]);
  assert.equal(tasks[0].claim_number, 1);
  assert.equal(tasks[0].worker_id, wish.worker_id);
  assert.ok(Date.parse(tasks[0].lease_expires_at) > Date.parse(tasks[0].claimed_at));
  assert.equal((await done("claim-next-task", wish, anna.access_token)).tasks.length, 1);
  assert.deepEqual(await done("claim-next-task", wish, anna.access_token), { tasks: [] });
});

stackTest("a claim of the older contract answers with four fields, or with nothing", async () => {
  const task_id = await queued({ project_id: bert.project_id, priority: 2 ** 41 });
  const task = await done("claim-next-task", { run_type: "gpu", debug: true }, bert.access_token);
  assert.deepEqual(task, { task_id, params: NEW.params, task_type: "t2v", project_id: bert.project_id });
  const none = await ask("claim-next-task", { worker_id: null, run_type: null }, bert.access_token);
  assert.deepEqual([none.status, none.body], [204, null]);
  // of no person: Anna may have as many running as she may
  const next = await queued({ priority: 2 ** 41, project_id: "00000000-0000-0000-0000-000000000000" });
  assert.equal((await done("claim-next-task", {})).task_id, next);
  assert.match((await row(next)).worker_id, /^edge_[0-9a-f-]{36}$/);
});

stackTest("a wrong wish is refused", async () => {
  const wrong: [Record<string, unknown>, string][] = [
    [{ lease_s: 60 }, "worker_id"],
    [{ lease_s: 0, worker_id: "w" }, "lease_s"],
    [{ lease_s: 1e6, worker_id: "w" }, "lease_s"],
    [{ lease_s: 60, worker_id: "w", limit: 0 }, "limit"],
    [{ lease_s: 60, worker_id: "w", task_types: "t2v" }, "task_types"],
    [{ run_type: "cpu" }, "run_type"],
    [{ worker_id: "" }, "worker_id"],
    [{ worker_id: 7 }, "worker_id"],
  ];
  for (const [body, field] of wrong) refused(await ask("claim-next-task", body), 400, field);
});

// -- heartbeats ----------------------------------------------------------------------------------------------------

stackTest(
  "a heartbeat extends leases, says what was lost and what to cancel, and shows the worker",
  async () => {
    const [kept, lost] = [await claimed(), await claimed()];
    const { worker_id } = kept;
    await done("cancel-task", { task_id: kept.task_id });
    const beat = {
      worker_id,
      lease_s: 600,
      claims: [kept, lost],
      current_model: "t2v",
      metadata: { gpu: "none" },
    };
    const logs = [{ level: "INFO", message: "hello", task_id: kept.task_id }];
    const answer = await done("heartbeat", { ...beat, logs }, anna.access_token);
    assert.deepEqual(answer, { lost: [lost.task_id], cancel_requested: [kept.task_id] });
    const workers = (await done("task-store", { operation: "list_workers" }, anna.access_token)).result;
    const seen = workers.find(({ id }: { id: string }) => id === worker_id);
    assert.deepEqual([seen.current_model, seen.status, seen.metadata.gpu], ["t2v", "active", "none"]);
    assert.deepEqual(await done("heartbeat", { worker_id, lease_s: 60 }), { lost: [], cancel_requested: [] });
  },
);

stackTest("a heartbeat of the older contract", async () => {
  const beat = {
    worker_id: unique("older"),
    vram_total_mb: 24564,
    vram_used_mb: 1024,
    current_task_id: null,
    status: "active",
    logs: [{ level: "INFO", message: 'quotes " and \\ and ä \0', metadata: { a: [1] } }, {
      timestamp: "never",
    }],
  };
  assert.deepEqual(await done("heartbeat", beat), {
    success: true,
    heartbeat_updated: true,
    logs_inserted: 1,
    log_errors: 1,
  });
  refused(await ask("heartbeat", beat, anna.access_token), 400, "lease_s");
  refused(await ask("heartbeat", { lease_s: 60 }), 400, "worker_id");
  refused(
    await ask("heartbeat", { lease_s: 60, worker_id: "w", claims: [{ task_id: "x" }] }),
    400,
    "claims.0.task_id",
  );
});

// -- cancelling ----------------------------------------------------------------------------------------------------

stackTest("cancelling answers with the status now, and again the same", async () => {
  const task_id = await queued();
  for (let time = 0; time < 2; time++) {
    const answer = await done("cancel-task", { task_id }, anna.access_token);
    assert.deepEqual(answer, { success: true, task_id, status: "Cancelled" });
  }
  const running = (await claimed()).task_id;
  assert.equal((await done("cancel-task", { task_id: running })).status, "In Progress");
  refused(await ask("cancel-task", { task_id: crypto.randomUUID() }), 404, "task_id");
  refused(await ask("cancel-task", {}), 400, "task_id");
});

// -- what all functions do -----------------------------------------------------------------------------------------

stackTest("browsers may ask, and only POST does anything", async () => {
  const url = address("create-task");
  const asked = await fetch(url, { method: "OPTIONS", headers: { "Access-Control-Request-Method": "POST" } });
  assert.equal(asked.status, 204);
  assert.match(asked.headers.get("Access-Control-Allow-Headers")!, /authorization/);
  for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
    const answer = await fetch(url, { method });
    assert.equal((await answer.json()).code, "PT405");
    assert.equal(answer.status, 405);
    assert.equal(answer.headers.get("Allow"), "POST, OPTIONS");
    assert.equal(answer.headers.get("Access-Control-Allow-Origin"), "*");
  }
  assert.equal((await ask("create-task", {}, null)).headers.get("Access-Control-Allow-Origin"), "*");
});

stackTest("a body that is none is refused before anything is done", async () => {
  for (const text of ["", "{", "null", "[]", "1", '"text"', "\u0000", '{"a":1}}', "[".repeat(200_000)]) {
    refused(await post("cancel-task", text), 400, text.startsWith("{") ? "body" : undefined);
  }
  const deep = `{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
  const task = { task_type: "t2v", project_id: anna.project_id };
  refused(
    await post(
      "create-task",
      JSON.stringify({ ...task, params: 0 }).replace('"params":0', `"params":${deep}`),
    ),
    400,
  );
});

stackTest("a body larger than 10 MB is refused", async () => {
  const large = { task_id: crypto.randomUUID(), more: "x".repeat(10 * 1024 * 1024) };
  refused(await ask("cancel-task", large), 400, "body");
});

stackTest("what Postgres cannot store is refused", async () => {
  for (const prompt of ["\\u0000", "\\ud800"]) {
    const body = `{"task_type":"t2v","project_id":"${anna.project_id}","params":{"prompt":"${prompt}"}}`;
    refused(await post("create-task", body), 400);
  }
  refused(await ask("heartbeat", { lease_s: 60, worker_id: "\u0000" }), 400);
});
