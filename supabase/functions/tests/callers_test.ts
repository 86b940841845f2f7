// Who may call what: every function with every kind of token. A function without a row here fails.

import assert from "node:assert/strict";
import {
  anna,
  ask,
  bert,
  type Claimed,
  claimed,
  done,
  edited,
  FUNCTIONS,
  jwt,
  queued,
  refused,
  row,
  SERVICE_KEY,
  stackTest,
  unique,
  unsigned,
} from "./stack.ts";

/** Something of Anna's to ask about. */
interface Subject {
  task_id: string;
  body: Record<string, unknown>;
}

interface Row {
  subject: () => Promise<Subject>;
  service?: number;
  anna?: number;
  /** Of somebody else. 200: the answer is empty of what is Anna's. */
  bert: number;
}

const onQueued = (more: Record<string, unknown> = {}) => async (): Promise<Subject> => {
  const task_id = await queued({ params: { prompt: SECRET } });
  return { task_id, body: { task_id, ...more } };
};

const onClaimed = (more: (claim: Claimed) => Record<string, unknown>) => async (): Promise<Subject> => {
  const claim = await claimed({ params: { prompt: SECRET } });
  return { task_id: claim.task_id, body: more(claim) };
};

const completing: Row = {
  subject: onClaimed((claim) => ({ ...claim, output_location: `https://example.com/${SECRET}.mp4` })),
  bert: 409,
};

const SECRET = unique("secret");

const ROWS: Record<string, Row> = {
  "cancel-task": { subject: onQueued(), bert: 404 },
  "claim-next-task": {
    subject: async () => {
      const task_type = unique("type");
      const task_id = await queued({ task_type, params: { prompt: SECRET } });
      return { task_id, body: { lease_s: 60, task_types: [task_type] } };
    },
    bert: 200,
  },
  "complete-task": completing,
  "complete_task": completing,
  "create-task": {
    subject: async () => ({
      task_id: await queued(),
      body: { task_type: "t2v", params: {}, project_id: anna.project_id },
    }),
    bert: 403,
  },
  "generate-download-url": {
    subject: async () => {
      const claim = await claimed();
      const file = { ...claim, filename: "a.mp4", content_type: "video/mp4" };
      const upload = await done("generate-upload-url", file, anna.access_token);
      const put = { method: "PUT", headers: upload.upload_headers, body: "a film" };
      const stored = await fetch(upload.upload_url, put);
      assert.ok(stored.ok, await stored.text());
      return { task_id: claim.task_id, body: { location: upload.storage_path } };
    },
    bert: 404,
  },
  "generate-upload-url": {
    subject: onClaimed((claim) => ({ ...claim, filename: "a.mp4", content_type: "video/mp4" })),
    bert: 404,
  },
  "get-completed-segments": {
    subject: async () => ({
      task_id: await queued(),
      body: { run_id: "a run", project_id: anna.project_id },
    }),
    bert: 404,
  },
  "get-orchestrator-children": {
    subject: async () => {
      const task_id = await queued({ task_type: "travel_orchestrator" });
      return { task_id, body: { orchestrator_task_id: task_id } };
    },
    bert: 404,
  },
  "get-predecessor-output": { subject: onQueued(), bert: 404 },
  "get-task-output": { subject: onQueued(), bert: 404 },
  // an address of the caller's own
  "probe-storage": { subject: onQueued(), bert: 200 },
  "heartbeat": {
    // Anna's worker has sent one: it bears her name now
    subject: async () => {
      const claim = await claimed();
      const body = { worker_id: claim.worker_id, lease_s: 60, claims: [claim] };
      await done("heartbeat", body, anna.access_token);
      return { task_id: claim.task_id, body };
    },
    bert: 403,
  },
  "task-counts": { subject: onQueued(), bert: 200 },
  "task-store": { subject: onQueued({ operation: "get_task" }), bert: 404 },
  "update-shot-pair-prompts": {
    subject: async () => ({
      task_id: await queued(),
      body: { shot_id: anna.shot_id, enhanced_prompts: [SECRET] },
    }),
    bert: 404,
  },
  "update-task-status": { subject: onQueued({ status: "Cancelled" }), bert: 404 },
  // an address of the caller's own
  "upload-input": {
    subject: async () => ({
      task_id: await queued(),
      body: {
        filename: "a.png",
        content_type: "image/png",
        size_bytes: 9,
        sha256: "0".repeat(64),
        md5: "0".repeat(32),
      },
    }),
    bert: 200,
  },
  "update-worker-model": {
    subject: async () => ({
      task_id: await queued(),
      body: { worker_id: unique("worker"), current_model: "t2v" },
    }),
    anna: 403,
    bert: 403,
  },
};

Deno.test("every function has its row", () => {
  assert.deepEqual(FUNCTIONS, Object.keys(ROWS).sort());
});

Deno.test("the gateway leaves every token to the function, which starts with its handler", async () => {
  const config = await Deno.readTextFile(new URL("../../config.toml", import.meta.url));
  for (const name of FUNCTIONS) {
    assert.ok(config.includes(`[functions.${name}]\nverify_jwt = false\n`), name);
    const start = await Deno.readTextFile(new URL(`../${name}/index.ts`, import.meta.url));
    assert.match(start, /Deno\.serve\(handler\);\n$/, name);
  }
});

/** Tokens that nobody may come in with, and how they are refused. */
async function badTokens(): Promise<[string, string | null, number][]> {
  const good = await jwt({ sub: anna.user_id });
  const claims = { role: "service_role", sub: anna.user_id, exp: 9999999999 };
  return [
    ["no token", null, 401],
    ["garbage", "pat_0123456789abcdef", 403],
    ["dotted garbage", "a.b.c", 401],
    [
      "a service_role JWT of another secret",
      await jwt({ role: "service_role", secret: "x".repeat(40) }),
      401,
    ],
    ["a service_role JWT without a signature", unsigned(claims), 401],
    ["a JWT with an edited role", edited(good, { role: "service_role" }), 401],
    ["a JWT with an edited person", edited(good, { sub: bert.user_id }), 401],
    ["an expired JWT", await jwt({ sub: anna.user_id, lasts: -60 }), 401],
    ["an anon JWT", await jwt({ role: "anon" }), 403],
    ["a service_role JWT that is not the key", await jwt({ role: "service_role", sub: anna.user_id }), 403],
    ["a JWT of nobody", await jwt({}), 401],
    ["a JWT of no UUID", await jwt({ sub: "' or 1=1" }), 401],
    ["the start of the service key", SERVICE_KEY.slice(0, -1), SERVICE_KEY.includes(".") ? 401 : 403],
  ];
}

for (const [name, expected] of Object.entries(ROWS)) {
  stackTest(`${name}: nobody comes in with a bad token`, async () => {
    const { task_id, body } = await expected.subject();
    const before = await row(task_id);
    for (const [what, token, status] of await badTokens()) {
      const answer = await ask(name, body, token);
      assert.equal(answer.status, status, `${what}: ${JSON.stringify(answer.body)}`);
      refused(answer, status);
    }
    assert.deepEqual(await row(task_id), before);
  });

  stackTest(`${name}: somebody else neither learns nor changes anything`, async () => {
    const { task_id, body } = await expected.subject();
    const before = await row(task_id);
    for (const token of [bert.access_token, await jwt({ sub: bert.user_id })]) {
      // workers' names are their own: Bert's would have another
      const theirs = name === "claim-next-task" ? { ...body, worker_id: unique("worker") } : body;
      const answer = await ask(name, theirs, token);
      assert.equal(answer.status, expected.bert, JSON.stringify(answer.body));
      const said = JSON.stringify(answer.body);
      assert.ok(!said.includes(SECRET), said);
      if (answer.status < 300) assert.ok(!said.includes(task_id), said);
    }
    assert.deepEqual(await row(task_id), before);
  });

  stackTest(`${name}: its owner and the service may`, async () => {
    const tokens: [string, number][] = [
      [SERVICE_KEY, expected.service ?? 200],
      [anna.access_token, expected.anna ?? 200],
      [await jwt({ sub: anna.user_id }), expected.anna ?? 200],
    ];
    for (const [token, status] of tokens) {
      const { body } = await expected.subject();
      const own = name === "claim-next-task" ? { ...body, worker_id: unique("worker") } : body;
      const answer = await ask(name, own, token);
      assert.equal(answer.status, status, JSON.stringify(answer.body));
      if (name === "claim-next-task") assert.equal(answer.body.tasks.length, 1);
    }
  });
}
