// Results of clients of the older contract: base64, a presigned upload, the key of a file that is there.

import { handler as complete } from "../complete_task/handler.ts";
import { handler as uploadUrl } from "../generate-upload-url/handler.ts";
import * as storage from "../_shared/storage.ts";
import { assertEquals } from "./asserting.ts";
import { bytes, onDisk, place, upload } from "./bucket.ts";
import {
  type Answer,
  claimed,
  claimedByOlder,
  generations,
  person,
  post,
  queued,
  row,
  tested,
} from "./rows.ts";

const VIDEO = bytes("not really a video");
const PICTURE = bytes("a picture");

function base64(content: Uint8Array): string {
  return content.toBase64();
}

tested("mode 1: a file and its first frame in base64", async () => {
  const owner = await person();
  const task_id = await claimedByOlder(owner);
  const result = {
    task_id,
    file_data: base64(VIDEO),
    filename: "my / clip.mp4",
    first_frame_data: base64(PICTURE),
    first_frame_filename: "thumb.jpg",
  };
  const folder = `${owner.id}/tasks/${task_id}`;
  const expected = {
    success: true,
    public_url: storage.publicUrl(`${folder}/1-my clip.mp4`),
    thumbnail_url: storage.publicUrl(`${folder}/1-thumb.jpg`),
    message: "Task completed",
  };
  const { status, body } = await post(complete, result, owner.token);
  assertEquals([status, body], [200, expected]);
  assertEquals(await onDisk(`${folder}/1-my clip.mp4`), VIDEO);
  assertEquals(await onDisk(`${folder}/1-thumb.jpg`), PICTURE);
  const now = await row(task_id);
  assertEquals([now.status, now.output_location, now.params.thumbnail_url], [
    "Complete",
    expected.public_url,
    expected.thumbnail_url,
  ]);
  assertEquals(
    [...await generations(task_id)],
    [{ location: expected.public_url, thumbnail_url: expected.thumbnail_url }],
  );

  // a client that did not hear the answer sends all of it again
  await place(`${folder}/1-my clip.mp4`, bytes("changed since"));
  const again = await post(complete, result, owner.token);
  assertEquals([again.status, again.body.public_url, again.body.thumbnail_url], [
    200,
    expected.public_url,
    expected.thumbnail_url,
  ]);
  assertEquals(await onDisk(`${folder}/1-my clip.mp4`), bytes("changed since"));
  assertEquals((await generations(task_id)).length, 1);
  assertEquals((await post(complete, { ...result, filename: "other.mp4" })).status, 409);
});

tested("mode 1: what is wrong with the file is said, and the row stays", async () => {
  const task_id = await claimedByOlder(await person());
  const good = { task_id, file_data: base64(VIDEO), filename: "clip.mp4" };
  const wrong: [Record<string, unknown>, string][] = [
    [{ file_data: "not base64!" }, "file_data"],
    [{ file_data: "abc" }, "file_data"],
    [{ file_data: "" }, "file_data"],
    [{ file_data: "====" }, "file_data"],
    [{ filename: undefined }, "filename"],
    [{ first_frame_data: base64(PICTURE) }, "first_frame_filename"],
    [{ first_frame_filename: "a.jpg" }, "first_frame_data"],
    [{ first_frame_data: base64(PICTURE), first_frame_filename: "/clip.mp4" }, "first_frame_filename"],
    [{ first_frame_data: "?", first_frame_filename: "a.jpg" }, "first_frame_data"],
    [{ file_data: base64(new Uint8Array(10 * 1024 * 1024 + 1)) }, "file_data"],
  ];
  for (const [change, field] of wrong) {
    const { status, body } = await post(complete, { ...good, ...change });
    assertEquals([status, body.field], [400, field], JSON.stringify(change).slice(0, 100));
  }
  assertEquals((await row(task_id)).status, "In Progress");
  const largest = base64(new Uint8Array(10 * 1024 * 1024));
  assertEquals((await post(complete, { ...good, file_data: largest })).status, 200);
});

tested("mode 3: a presigned upload, with a thumbnail", async () => {
  const owner = await person();
  const task_id = await claimedByOlder(owner);
  const { body: target } = await post(uploadUrl, {
    task_id,
    filename: "clip.mp4",
    content_type: "video/mp4",
    generate_thumbnail_url: true,
  }, owner.token);
  const { storage_path, thumbnail_storage_path } = target;
  assertEquals(storage_path, `${owner.id}/tasks/${task_id}/1-clip.mp4`);
  const result = { task_id, storage_path, thumbnail_storage_path };
  assertEquals((await post(complete, result)).status, 404);
  assertEquals((await row(task_id)).status, "In Progress");
  // an older client sends the content type that it named, and nothing else
  assertEquals(await upload(target.upload_url, { "Content-Type": "video/mp4" }, VIDEO), 200);
  assertEquals(await upload(target.thumbnail_upload_url, { "Content-Type": "image/jpeg" }, PICTURE), 200);
  const { status, body } = await post(complete, result, owner.token);
  assertEquals([status, body.public_url, body.thumbnail_url], [
    200,
    storage.publicUrl(storage_path),
    storage.publicUrl(thumbnail_storage_path),
  ]);
  const again = await post(complete, result, owner.token);
  assertEquals([again.status, again.body.public_url], [200, body.public_url]);
});

tested("mode 3: a result is worth more than its picture", async () => {
  const owner = await person();
  const task_id = await claimedByOlder(owner);
  const asked = { task_id, filename: "a.png", content_type: "image/png", generate_thumbnail_url: true };
  const { body: target } = await post(uploadUrl, asked);
  await upload(target.upload_url, target.upload_headers, PICTURE);
  const { storage_path, thumbnail_storage_path } = target;
  const { status, body } = await post(complete, { task_id, storage_path, thumbnail_storage_path });
  assertEquals([status, body.thumbnail_url], [200, null]);
});

tested("the same result many times at once completes the row once", async () => {
  const owner = await person();
  for (let round = 0; round < 5; round++) {
    const task_id = await claimedByOlder(owner);
    const result = { task_id, file_data: base64(VIDEO), filename: "clip.mp4" };
    const answers = await Promise.all(Array.from({ length: 8 }, () => post(complete, result)));
    const url = storage.publicUrl(`${owner.id}/tasks/${task_id}/1-clip.mp4`);
    for (const { status, body } of answers) assertEquals([status, body.public_url], [200, url], body.error);
    assertEquals(answers.filter(({ body }) => body.message === "Task completed").length, 1);
    assertEquals((await generations(task_id)).length, 1);
  }
});

tested("mode 4: a file that is there", async () => {
  const owner = await person();
  const task_id = await claimedByOlder(owner);
  const result = { task_id, storage_path: `${owner.id}/picture.png` };
  assertEquals((await post(complete, result)).status, 404);
  await place(result.storage_path, PICTURE);
  const url = storage.publicUrl(result.storage_path);
  for (let time = 0; time < 2; time++) {
    const { status, body } = await post(complete, result, owner.token);
    assertEquals([status, body.public_url], [200, url]);
  }
  assertEquals((await row(task_id)).output_location, url);
});

tested("an orchestrator may name the file of one of its children", async () => {
  const owner = await person();
  const child = `${owner.id}/tasks/${crypto.randomUUID()}/1-final.mp4`;
  await place(child, VIDEO);
  for (const [type, status] of [["t2v", 403], ["join_clips_orchestrator", 200]] as const) {
    const task_id = await claimedByOlder(owner, type);
    assertEquals((await post(complete, { task_id, storage_path: child })).status, status, type);
  }
});

tested("a path that is not the task's is refused", async () => {
  const [owner, other] = [await person(), await person()];
  const [task_id, sibling] = [await claimedByOlder(owner), await claimedByOlder(owner)];
  const paths: [string, number][] = [
    [`${owner.id}/tasks/${sibling}/1-a.mp4`, 403],
    [`${other.id}/tasks/${task_id}/1-a.mp4`, 403],
    [`${other.id}/a.mp4`, 403],
    ["a.mp4", 403],
    [`${owner.id}/tasks/${task_id}/../${sibling}/1-a.mp4`, 403],
    [`${owner.id}/tasks/${task_id}/%2e%2e/1-a.mp4`, 403],
    [`${owner.id}/tasks%2F${task_id}/1-a.mp4`, 403],
    [`/${owner.id}/a.mp4`, 403],
    [`${owner.id}\\a.mp4`, 403],
    ["", 403],
    // it lies there, but under an earlier claim, or nobody declared it
    [`${owner.id}/tasks/${task_id}/0-a.mp4`, 409],
  ];
  for (const [path] of paths) if (!/%|\\|\.\.|^\/|^$/.test(path)) await place(path, VIDEO);
  for (const [storage_path, status] of paths) {
    assertEquals((await post(complete, { task_id, storage_path })).status, status, storage_path);
    const good = `${owner.id}/b.mp4`;
    await place(good, VIDEO);
    const thumbnail = { task_id, storage_path: good, thumbnail_storage_path: storage_path };
    assertEquals((await post(complete, thumbnail)).status, status, `thumbnail ${storage_path}`);
  }
  assertEquals((await row(task_id)).status, "In Progress");
});

tested("only rows that an older client holds are completed so", async () => {
  const owner = await person();
  const ways = (task_id: string): Promise<Answer>[] => [
    post(complete, { task_id, file_data: base64(VIDEO), filename: "clip.mp4" }),
    post(complete, { task_id, storage_path: `${owner.id}/c.mp4` }),
  ];
  await place(`${owner.id}/c.mp4`, VIDEO);
  const fenced = (await claimed(owner)).task_id;
  const waiting = await queued(owner, crypto.randomUUID());
  for (const [task_id, status] of [[fenced, "In Progress"], [waiting, "Queued"]] as const) {
    for (const { status } of await Promise.all(ways(task_id))) assertEquals(status, 409);
    assertEquals((await row(task_id)).status, status);
  }
  for (const { status } of await Promise.all(ways(crypto.randomUUID()))) assertEquals(status, 404);
  const stranger = await person();
  const task_id = await claimedByOlder(owner);
  const stolen = { task_id, storage_path: `${owner.id}/c.mp4` };
  assertEquals((await post(complete, stolen, stranger.token)).status, 404);
});

tested("a bare output_location, and a form, are answered with what to send instead", async () => {
  const task_id = await claimedByOlder(await person());
  const bare = await post(complete, { task_id, output_location: "https://elsewhere.example/a.mp4" });
  assertEquals([bare.status, /worker_id and claim_number/.test(bare.body.error)], [400, true]);
  const form = new FormData();
  form.append("task_id", task_id);
  form.append("file", new Blob([VIDEO]), "clip.mp4");
  const answer = await complete(
    new Request("http://functions/", {
      method: "POST",
      headers: { Authorization: `Bearer ${Deno.env.get("SUPABASE_SERVICE_ROLE_KEY")}` },
      body: form,
    }),
  );
  assertEquals([answer.status, (await answer.json()).code], [400, "PT400"]);
  assertEquals((await row(task_id)).status, "In Progress");
});
