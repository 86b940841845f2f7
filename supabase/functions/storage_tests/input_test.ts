// Files that people give for their rows, before a row names them.

import { handler as downloadUrl } from "../generate-download-url/handler.ts";
import { handler as uploadInput } from "../upload-input/handler.ts";
import { assertEquals } from "./asserting.ts";
import { about, bytes, onDisk, upload } from "./bucket.ts";
import { claimed, person, post, SERVICE_KEY, tested } from "./rows.ts";

const PICTURE = bytes("a picture that somebody gives");
const NOBODY = "00000000-0000-0000-0000-000000000000";

function given(content = PICTURE, filename = "Käse / 1.png"): Record<string, unknown> {
  return { filename, content_type: "image/png", ...about(content) };
}

tested("a person's file lies under their own id, once, and their rows' workers read it", async () => {
  const [anna, ben] = [await person(), await person()];
  const { status, body } = await post(uploadInput, given(), anna.token);
  assertEquals([status, body.stored], [200, false]);
  assertEquals(
    body.storage_path.startsWith(`${anna.id}/inputs/${String(given().sha256).slice(0, 16)}-`),
    true,
  );
  assertEquals(await upload(body.upload_url, body.upload_headers, PICTURE), 200);
  assertEquals(await onDisk(body.storage_path), PICTURE);
  const again = await post(uploadInput, given(), anna.token);
  assertEquals([again.body.storage_path, again.body.stored], [body.storage_path, true]);
  const location = body.public_url;
  const [own, foreign] = [await claimed(anna), await claimed(ben)];
  const read = async (more: Record<string, unknown>, token = SERVICE_KEY) =>
    (await post(downloadUrl, { location, ...more }, token)).status;
  assertEquals(await read({ task_id: own.task_id }), 200);
  assertEquals(await read({ task_id: foreign.task_id }), 404);
  assertEquals([await read({}, anna.token), await read({}, ben.token)], [200, 404]);
});

tested("the service gives files for a project, or for rows that belong to nobody", async () => {
  const anna = await person();
  const of = async (more: Record<string, unknown>) => await post(uploadInput, { ...given(), ...more });
  assertEquals((await of({ project_id: anna.project })).body.storage_path.split("/")[0], anna.id);
  assertEquals((await of({})).body.storage_path.split("/")[0], NOBODY);
  const missing = await of({ project_id: crypto.randomUUID() });
  assertEquals([missing.status, missing.body.field], [404, "project_id"]);
});

tested("another person's project changes nothing of where a person's file lies", async () => {
  const [anna, ben] = [await person(), await person()];
  const { body } = await post(uploadInput, { ...given(), project_id: anna.project }, ben.token);
  assertEquals(body.storage_path.split("/")[0], ben.id);
});

tested("other bytes than declared are refused by the storage", async () => {
  const { body } = await post(uploadInput, given(bytes("what was declared")));
  const status = await upload(body.upload_url, body.upload_headers, bytes("something other"));
  assertEquals(status >= 400, true);
});

tested("a wrong declaration names its field", async () => {
  const wrong: [string, unknown][] = [
    ["filename", ""],
    ["content_type", "text/plain"],
    ["content_type", "image/svg+xml"],
    ["content_type", "image/png\r\nx: y"],
    ["size_bytes", 0],
    ["size_bytes", 6 * 1024 ** 3],
    ["size_bytes", null],
    ["sha256", "abc"],
    ["md5", undefined],
    ["project_id", "no-uuid"],
  ];
  for (const [field, value] of wrong) {
    const { status, body } = await post(uploadInput, { ...given(), [field]: value });
    assertEquals([status, body.field], [400, field], `${field} ${value}`);
  }
});
