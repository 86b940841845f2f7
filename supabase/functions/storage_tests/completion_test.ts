// From the declaration of an upload to the completed row, as workers with a claim go.

import { handler as complete } from "../complete-task/handler.ts";
import { handler as downloadUrl } from "../generate-download-url/handler.ts";
import { handler as taskOutput } from "../get-task-output/handler.ts";
import { handler as uploadUrl } from "../generate-upload-url/handler.ts";
import { handler as updateStatus } from "../update-task-status/handler.ts";
import * as storage from "../_shared/storage.ts";
import { assertEquals } from "./asserting.ts";
import { about, bytes, onDisk, place, upload } from "./bucket.ts";
import {
  type Claim,
  claimed,
  claimedAnew,
  claimedByOlder,
  type Person,
  person,
  post,
  queued,
  row,
  SERVICE_KEY,
  tested,
} from "./rows.ts";

const VIDEO = bytes("not really a video");
const PICTURE = bytes("a picture");

interface Put {
  storage_path: string;
  public_url: string;
}

function asked(claim: Claim, filename: string, content: Uint8Array): Record<string, unknown> {
  const content_type = filename.endsWith(".jpg") ? "image/jpeg" : "video/mp4";
  return { ...claim, filename, content_type, ...about(content) };
}

/** A file of the claim, uploaded as declared. */
async function delivered(claim: Claim, filename = "clip.mp4", content = VIDEO): Promise<Put> {
  const { status, body } = await post(uploadUrl, asked(claim, filename, content));
  assertEquals(status, 200, JSON.stringify(body));
  assertEquals(await upload(body.upload_url, body.upload_headers, content), 200);
  return body;
}

tested("a result is uploaded, checked and named by the row", async () => {
  for (const owner of [await person(), null]) {
    const claim = await claimed(owner);
    const { storage_path, public_url } = await delivered(claim, "my / clip?.mp4");
    const folder = owner?.id ?? "00000000-0000-0000-0000-000000000000";
    assertEquals(storage_path, `${folder}/tasks/${claim.task_id}/1-my clip.mp4`);
    assertEquals(await onDisk(storage_path), VIDEO);
    const { status, body } = await post(complete, { ...claim, output_location: public_url });
    assertEquals(status, 200);
    assertEquals(body, {
      success: true,
      task_id: claim.task_id,
      status: "Complete",
      output_location: public_url,
      thumbnail_url: null,
      message: "Task completed",
      repeated: false,
    });
    const { status: now, output_location } = await row(claim.task_id);
    assertEquals([now, output_location], ["Complete", public_url]);
  }
});

tested("a person's own worker delivers with their token", async () => {
  const owner = await person();
  const claim = await claimed(owner);
  const { body } = await post(uploadUrl, asked(claim, "clip.mp4", VIDEO), owner.token);
  assertEquals(await upload(body.upload_url, body.upload_headers, VIDEO), 200);
  const { status } = await post(complete, { ...claim, output_location: body.public_url }, owner.token);
  assertEquals(status, 200);
});

tested("a repeated completion answers as the first did, and looks at nothing again", async () => {
  const claim = await claimed(await person());
  const { storage_path, public_url } = await delivered(claim);
  const result = { ...claim, output_location: public_url };
  await post(complete, result);
  await place(storage_path, bytes("changed since"));
  const { status, body } = await post(complete, {
    ...result,
    output_location: "https://elsewhere.example/b.mp4",
  });
  assertEquals([status, body.repeated, body.output_location], [200, true, public_url]);
});

tested("many completions at once complete the row once", async () => {
  const claim = await claimed(await person());
  const { public_url } = await delivered(claim);
  const result = { ...claim, output_location: public_url };
  const answers = await Promise.all(Array.from({ length: 8 }, () => post(complete, result)));
  assertEquals(answers.map(({ status }) => status), Array(8).fill(200));
  assertEquals(answers.filter(({ body }) => !body.repeated).length, 1);
});

tested("thumbnail and further outputs are checked too, and stand where front ends read them", async () => {
  const claim = await claimed(await person());
  const video = await delivered(claim);
  const poster = await delivered(claim, "poster.jpg", PICTURE);
  const second = await delivered(claim, "second.mp4", bytes("more"));
  const result = {
    ...claim,
    output_location: video.public_url,
    result_data: {
      thumbnail_url: poster.public_url,
      outputs: [video.public_url, second.public_url],
      seed: 7,
    },
  };
  await place(second.storage_path, bytes("mere"));
  const damaged = await post(complete, result);
  assertEquals([damaged.status, damaged.body.field], [424, "result_data.outputs.1"]);
  await place(second.storage_path, bytes("more"));
  const { status, body } = await post(complete, result);
  assertEquals([status, body.thumbnail_url], [200, poster.public_url]);
  const { params, result_data } = await row(claim.task_id);
  assertEquals(params, { prompt: "a", thumbnail_url: poster.public_url });
  assertEquals(result_data, result.result_data);
});

tested("the address for a thumbnail comes along when it is asked for", async () => {
  const claim = await claimed(await person());
  const { body } = await post(uploadUrl, {
    ...asked(claim, "clip.mp4", VIDEO),
    generate_thumbnail_url: true,
  });
  assertEquals(body.thumbnail_storage_path.split("/").at(-1), "1-thumb_clip.jpg");
  assertEquals(await upload(body.thumbnail_upload_url, body.thumbnail_upload_headers, PICTURE), 200);
  assertEquals(await upload(body.upload_url, body.upload_headers, VIDEO), 200);
  const result_data = { thumbnail_url: body.thumbnail_public_url };
  assertEquals(
    (await post(complete, { ...claim, output_location: body.public_url, result_data })).status,
    200,
  );
});

tested("what is not there as declared leaves the row to its worker, who uploads again", async () => {
  const claim = await claimed(await person());
  const { body: target } = await post(uploadUrl, asked(claim, "clip.mp4", VIDEO));
  const result = { ...claim, output_location: target.public_url };
  const wrong: [Uint8Array<ArrayBuffer> | null, RegExp][] = [
    [null, /is not there; upload it again/],
    [bytes("not really a vide0"), /has another sha256/],
    [bytes("short"), /has 5 bytes, not 18/],
  ];
  for (const [content, reason] of wrong) {
    if (content) await place(target.storage_path, content);
    const { status, body } = await post(complete, result);
    assertEquals([status, body.code, body.storage_path], [424, "upload_incomplete", target.storage_path]);
    assertEquals([body.field, reason.test(body.error)], ["output_location", true], body.error);
    assertEquals((await row(claim.task_id)).status, "In Progress");
  }
  assertEquals(await upload(target.upload_url, target.upload_headers, VIDEO), 200);
  assertEquals((await post(complete, result)).status, 200);
});

tested("a claim completes with its own declared files only", async () => {
  const owner = await person();
  const [claim, sibling, stranger] = [
    await claimed(owner),
    await claimed(owner),
    await claimed(await person()),
  ];
  const others = [await delivered(sibling), await delivered(stranger)].map(({ public_url }) => public_url);
  const folder = `${owner.id}/tasks/${claim.task_id}`;
  await place(`${folder}/1-undeclared.mp4`, VIDEO);
  for (const location of [...others, storage.publicUrl(`${folder}/1-undeclared.mp4`)]) {
    for (const result of [{ output_location: location }, { result_data: { outputs: [location] } }]) {
      const { status, body } = await post(complete, { ...claim, ...result });
      assertEquals([status, body.code], [403, "PT403"], location);
    }
  }
  const hidden = storage.publicUrl("x").replace(/x$/, `${folder}%2F1-undeclared.mp4`);
  assertEquals((await post(complete, { ...claim, output_location: hidden })).status, 403);
  assertEquals((await row(claim.task_id)).status, "In Progress");
});

tested("any other text is an output as it is", async () => {
  for (
    const location of ["https://elsewhere.example/a.mp4", "files/a.mp4", "a plain text", "../up", undefined]
  ) {
    const claim = await claimed(await person());
    const { status } = await post(complete, { ...claim, output_location: location });
    assertEquals([status, (await row(claim.task_id)).output_location], [200, location ?? null]);
  }
});

tested("a result that is no file needs no storage", async () => {
  const key = Deno.env.get("S3_SECRET_ACCESS_KEY")!;
  Deno.env.delete("S3_SECRET_ACCESS_KEY");
  storage.reopen();
  try {
    const [claim, other] = [await claimed(await person()), await claimed(await person())];
    assertEquals(
      (await post(complete, { ...claim, output_location: "https://elsewhere.example/a.mp4" })).status,
      200,
    );
    const { status, body } = await post(uploadUrl, asked(other, "clip.mp4", VIDEO));
    assertEquals([status, /S3_SECRET_ACCESS_KEY/.test(body.error)], [503, true]);
  } finally {
    Deno.env.set("S3_SECRET_ACCESS_KEY", key);
    storage.reopen();
  }
});

tested("a stale claim neither declares nor completes, and its file is nobody's", async () => {
  const claim = await claimed(await person());
  const { public_url } = await delivered(claim);
  const fresh = await claimedAnew(claim);
  assertEquals((await post(complete, { ...claim, output_location: public_url })).status, 409);
  assertEquals((await post(uploadUrl, asked(claim, "clip.mp4", VIDEO))).status, 409);
  assertEquals((await post(complete, { ...fresh, output_location: public_url })).status, 403);
  const again = await delivered(fresh);
  assertEquals(again.storage_path.endsWith("/2-clip.mp4"), true);
  assertEquals((await post(complete, { ...fresh, output_location: again.public_url })).status, 200);
  assertEquals((await post(complete, { ...claim, output_location: public_url })).status, 409);
});

tested("a row that is not In Progress is never completed", async () => {
  const owner = await person();
  const waiting = await queued(owner, crypto.randomUUID());
  const claim = { task_id: waiting, worker_id: "w", claim_number: 0 };
  assertEquals((await post(complete, { ...claim, output_location: "text" })).status, 409);
  assertEquals((await post(uploadUrl, asked(claim, "clip.mp4", VIDEO))).status, 409);
  assertEquals((await row(waiting)).status, "Queued");
});

tested("other people's rows do not exist", async () => {
  const [owner, other] = [await person(), await person()];
  const claim = await claimed(owner);
  const { public_url, storage_path } = await delivered(claim);
  const answers = [
    await post(uploadUrl, asked(claim, "clip.mp4", VIDEO), other.token),
    await post(complete, { ...claim, output_location: public_url }, other.token),
    await post(downloadUrl, { location: public_url }, other.token),
    await post(downloadUrl, { location: storage_path }, other.token),
  ];
  assertEquals(answers.map(({ status }) => status), [404, 409, 404, 404]);
  assertEquals((await row(claim.task_id)).status, "In Progress");
});

tested("a wrong request for an address names its field", async () => {
  const claim = await claimed(await person());
  const good = asked(claim, "clip.mp4", VIDEO);
  const wrong: [string, unknown][] = [
    ["task_id", "no-uuid"],
    ["filename", ""],
    ["content_type", "video"],
    ["content_type", "text/html"],
    ["content_type", "image/svg+xml"],
    ["content_type", "video/mp4\r\nx: y"],
    ["size_bytes", -1],
    ["size_bytes", 6 * 1024 ** 3],
    ["sha256", "abc"],
    ["md5", "g".repeat(32)],
  ];
  for (const [field, value] of wrong) {
    const { status, body } = await post(uploadUrl, { ...good, [field]: value });
    assertEquals([status, body.field], [400, field], String(value));
  }
  assertEquals((await post(uploadUrl, { ...good, task_id: crypto.randomUUID() })).status, 404);
});

tested("everybody reads what they see, and knows what is not there", async () => {
  const owner: Person = await person();
  const shared = await claimed(owner);
  const { public_url, storage_path } = await delivered(shared);
  for (const token of [SERVICE_KEY, owner.token]) {
    for (const location of [public_url, storage_path]) {
      const { body } = await post(downloadUrl, { location }, token);
      assertEquals(body, { download_url: public_url, expires_at: null });
    }
  }
  const uploads = `${owner.id}/photo.png`;
  await place(uploads, PICTURE);
  assertEquals((await post(downloadUrl, { location: uploads }, owner.token)).status, 200);
  const refused: [string, number][] = [
    [`${owner.id}/nothing.png`, 404],
    ["https://elsewhere.example/a.png", 400],
    [`${owner.id}/../x`, 403],
    [`${crypto.randomUUID()}/photo.png`, 404],
    ["x/tasks/no-uuid/1-a.png", 404],
  ];
  for (const [location, status] of refused) {
    assertEquals((await post(downloadUrl, { location }, owner.token)).status, status, location);
  }
});

tested("for a row, a worker reads what the row's owner may read", async () => {
  const [anna, ben] = [await person(), await person()];
  const claims = [await claimed(anna), await claimed(ben)];
  const { public_url } = await delivered(claims[0]!);
  const statuses = await Promise.all(
    claims.map(async ({ task_id }) => (await post(downloadUrl, { location: public_url, task_id })).status),
  );
  assertEquals(statuses, [200, 404]);
  const nobody = { location: public_url, task_id: crypto.randomUUID() };
  assertEquals((await post(downloadUrl, nobody)).status, 404);
});

tested("a private bucket hands out signed addresses, while rows keep the public one", async () => {
  const claim = await claimed(await person());
  const { public_url } = await delivered(claim);
  Deno.env.set("STORAGE_PUBLIC", "false");
  storage.reopen();
  try {
    const { body } = await post(downloadUrl, { location: public_url });
    assertEquals(await (await fetch(body.download_url)).bytes(), VIDEO);
    assertEquals(Date.parse(body.expires_at) > Date.now(), true);
    const done = await post(complete, { ...claim, output_location: public_url });
    assertEquals([done.status, done.body.output_location], [200, public_url]);
  } finally {
    Deno.env.set("STORAGE_PUBLIC", "true");
    storage.reopen();
  }
});

tested("a row that names somebody else's file opens no private bucket", async () => {
  const [anna, ben] = [await person(), await person()];
  const claim = await claimed(anna);
  const { public_url } = await delivered(claim);
  assertEquals((await post(complete, { ...claim, output_location: public_url })).status, 200);
  const his = await claimedByOlder(ben);
  const change = { task_id: his, status: "Complete", output_location: public_url };
  assertEquals((await post(updateStatus, change, ben.token)).status, 200);
  Deno.env.set("STORAGE_PUBLIC", "false");
  storage.reopen();
  try {
    for (const token of [ben.token, SERVICE_KEY]) {
      const { status, body } = await post(taskOutput, { task_id: his }, token);
      assertEquals([status, body.output_location, body.download_url], [200, public_url, null]);
    }
    for (const token of [anna.token, SERVICE_KEY]) {
      const { body } = await post(taskOutput, { task_id: claim.task_id }, token);
      assertEquals(await (await fetch(body.download_url)).bytes(), VIDEO);
    }
  } finally {
    Deno.env.set("STORAGE_PUBLIC", "true");
    storage.reopen();
  }
});

tested("without storage the answer is to try again, and the row stays", async () => {
  const claim = await claimed(await person());
  const { public_url } = await delivered(claim);
  const endpoint = Deno.env.get("S3_ENDPOINT")!;
  Deno.env.set("S3_ENDPOINT", "http://127.0.0.1:9");
  storage.reopen();
  try {
    const { status, body } = await post(complete, { ...claim, output_location: public_url });
    assertEquals([status, body.code], [503, "storage_unavailable"]);
    assertEquals((await row(claim.task_id)).status, "In Progress");
  } finally {
    Deno.env.set("S3_ENDPOINT", endpoint);
    storage.reopen();
  }
  assertEquals((await post(complete, { ...claim, output_location: public_url })).status, 200);
});
