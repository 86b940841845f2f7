// Keys, names, signed addresses, and what a declared file is held against, on a real S3 server.

import { AwsClient } from "aws4fetch";
import { createHash } from "node:crypto";
import { assertEquals, assertThrows } from "./asserting.ts";
import { Refused } from "../_shared/errors.ts";
import { objectName, sanitiseFilename, thumbnailName } from "../_shared/filenames.ts";
import * as storage from "../_shared/storage.ts";
import { about, bytes, digest, onDisk, pathOnDisk, place, upload } from "./bucket.ts";

const names: { name: string; clean: string }[] = JSON.parse(
  await Deno.readTextFile(new URL("../../../tests/filenames.json", import.meta.url)),
);
const BASE = `${Deno.env.get("SUPABASE_URL")}/storage/v1/object`;
const HELLO = bytes("hello world");

function key(name = "1-clip.mp4"): string {
  return `user/tasks/${crypto.randomUUID()}/${name}`;
}

Deno.test("names are sanitised as the worker does", () => {
  for (const { name, clean } of names) assertEquals(sanitiseFilename(name), clean);
});

Deno.test("an object's name has only characters that Supabase Storage takes, and stays distinct", () => {
  const made = names.map(({ name }) => objectName(name));
  for (const name of made) {
    // its rule, as of 2026
    assertEquals(/^(\w|\/|!|-|\.|\*|'|\(|\)| |&|\$|@|=|;|:|\+|,|\?)*$/.test(name), true, name);
    assertEquals(name.includes("/") || name.length > 200 || name === "", false, name);
  }
  assertEquals(new Set(made).size, new Set(names.map(({ clean }) => clean)).size);
  assertEquals(objectName("clip.mp4"), "clip.mp4");
  assertEquals(objectName("Grüße.mp4").replace(/[0-9a-f]{8}/, "#"), "Gru_e-#.mp4");
  assertEquals(objectName("／．．／x.mp4").includes("/"), false);
  assertEquals(thumbnailName("a/clip.mp4"), "thumb_aclip.jpg");
});

Deno.test("an address of ours is a key, whatever it is read by; other texts are none", () => {
  const odd = "u/tasks/t/1-a b+c (1)!'&$=;.mp4";
  assertEquals(storage.keyOf(storage.publicUrl(odd)), odd);
  assertEquals(storage.keyOf(`${BASE}/sign/image_uploads/u/a.png?token=x`), "u/a.png");
  assertEquals(storage.keyOf(`${BASE}/public/image_uploads/u/%C3%BC.png#t=1`), "u/ü.png");
  assertEquals(
    storage.keyOf(
      BASE.toUpperCase().replace("/STORAGE/V1/OBJECT", "/storage/v1/object/public/image_uploads/a"),
    ),
    "a",
  );
  const others = [
    "https://elsewhere.example/storage/v1/object/public/image_uploads/a.png",
    `${BASE}/public/other_bucket/a.png`,
    `${BASE}/list/image_uploads/a.png`,
    `${BASE}/public/image_uploads_2/a.png`,
    "files/a.png",
    "u/a.png",
    "a plain text",
    "",
  ];
  for (const text of others) assertEquals(storage.keyOf(text), null, text);
});

Deno.test("a path that leads out of its folder is refused", () => {
  const paths = [
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../b",
    "a/./b",
    "a\\b",
    "a/%2e%2e/b",
    "a%2Fb",
    "a%5cb",
    "a\nb",
  ];
  for (const path of [...paths, "x".repeat(1025)]) {
    assertEquals(assertThrows(() => storage.checkedKey(path), Refused).status, 403, path);
  }
  for (const address of ["u/a%2Fb", "u/%2e%2e%2fa", "u/%zz", "u/a%5Cb", "u//a", ""]) {
    const url = `${BASE}/public/image_uploads/${address}`;
    assertEquals(assertThrows(() => storage.keyOf(url), Refused).status, 403, address);
  }
});

Deno.test("a signed upload stores exactly the declared bytes", async () => {
  for (const name of ["1-clip.mp4", "1-a b+c (1)!'&$=;.mp4", "1-Ünïcode 你.png"]) {
    const path = key(name);
    const { url, headers } = await storage.signedUpload(path, "video/mp4", about(HELLO));
    assertEquals(await upload(url, headers, HELLO), 200);
    assertEquals(await onDisk(path), HELLO);
    assertEquals(await storage.head(path), { size_bytes: 11, etag: digest("md5", HELLO) });
    assertEquals(await upload(url, headers, HELLO), 200);
  }
});

Deno.test("the S3 server refuses whatever else is sent to a signed address", async () => {
  const path = key();
  const { url, headers } = await storage.signedUpload(path, "video/mp4", about(HELLO));
  const { "Content-MD5": _md5, ...withoutMd5 } = headers;
  const other = bytes("hello w0rld");
  const otherMd5 = (await storage.signedUpload(path, "video/mp4", about(other))).headers;
  const refused: [string, string, Record<string, string>, Uint8Array<ArrayBuffer>, number][] = [
    ["other bytes of the same length", url, headers, other, 400],
    ["a byte more", url, headers, bytes("hello world!"), 403],
    ["a byte less", url, headers, bytes("hello worl"), 403],
    ["nothing", url, headers, bytes(""), 403],
    ["without the checksum", url, withoutMd5, HELLO, 403],
    ["with another checksum", url, otherMd5, other, 403],
    ["as a page", url, { ...headers, "Content-Type": "text/html" }, HELLO, 403],
    ["under another key", url.replace("1-clip", "2-clip"), headers, HELLO, 403],
    ["for longer", url.replace("X-Amz-Expires=3600", "X-Amz-Expires=7200"), headers, HELLO, 403],
    ["with no signature", url.replace(/&X-Amz-Signature=.*/, ""), headers, HELLO, 400],
    ["with a wrong signature", url.replace(/.{6}$/, "000000"), headers, HELLO, 403],
    ["without anything", url.split("?")[0]!, headers, HELLO, 400],
  ];
  for (const [what, address, sent, content, status] of refused) {
    assertEquals(await upload(address, sent, content), status, what);
  }
  assertEquals(await onDisk(path), null);
  assertEquals(await onDisk(path.replace("1-clip", "2-clip")), null);
});

Deno.test("an address is of no use after an hour", async () => {
  const path = key();
  const { url, headers, expires_at } = await storage.signedUpload(path, "video/mp4", about(HELLO));
  assertEquals(new URL(url).searchParams.get("X-Amz-Expires"), "3600");
  assertEquals(Math.round((Date.parse(expires_at) - Date.now()) / 60_000), 60);
  const client = new AwsClient({
    accessKeyId: Deno.env.get("S3_ACCESS_KEY_ID")!,
    secretAccessKey: Deno.env.get("S3_SECRET_ACCESS_KEY")!,
    region: Deno.env.get("S3_REGION")!,
    service: "s3",
  });
  const signedAt = async (time: number) => {
    const aws = {
      signQuery: true,
      allHeaders: true,
      datetime: new Date(time).toISOString().replace(/[:-]|\.\d+/g, ""),
    };
    const length = { "Content-Length": String(HELLO.length) };
    const address = `${url.split("?")[0]}?X-Amz-Expires=3600`;
    return (await client.sign(address, { method: "PUT", headers: { ...headers, ...length }, aws })).url;
  };
  assertEquals(await upload(await signedAt(Date.now() - 3_660_000), headers, HELLO), 400);
  assertEquals(await onDisk(path), null);
  assertEquals(await upload(await signedAt(Date.now() - 3_540_000), headers, HELLO), 200);
});

Deno.test("an object is held against what was declared", async () => {
  const path = key();
  const declared = { storage_path: path, ...about(HELLO) };
  assertEquals(await storage.fault(declared), "is not there");
  await place(path, bytes("hello w0rld"));
  assertEquals(await storage.fault(declared), "has another sha256");
  assertEquals(await storage.fault({ ...declared, sha256: null }), "has another md5");
  await place(path, bytes("hello"));
  assertEquals(await storage.fault(declared), "has 5 bytes, not 11");
  assertEquals(await storage.fault({ ...declared, size_bytes: null, sha256: null, md5: null }), null);
  await place(path, HELLO);
  assertEquals(await storage.fault(declared), null);
  assertEquals(await storage.fault({ ...declared, md5: null }), null);
  // the MD5 of an upload in parts is not the file's: what counts then is the content
  assertEquals(await storage.fault({ ...declared, md5: "0".repeat(32) }), null);
});

Deno.test("a private bucket is read by signed addresses, which end", async () => {
  const path = key();
  await place(path, HELLO);
  const location = storage.publicUrl(path);
  assertEquals(await storage.readable(location), location);
  assertEquals(await storage.download(path), { url: location, expires_at: null });
  Deno.env.set("STORAGE_PUBLIC", "false");
  storage.reopen();
  try {
    const signed = await storage.readable(location);
    assertEquals(await (await fetch(signed)).text(), "hello world");
    const refused = await fetch(signed.replace("1-clip", "2-clip"));
    await refused.body?.cancel();
    assertEquals(refused.status, 403);
    const strange = "https://elsewhere.example/a.mp4";
    assertEquals(await storage.readable(strange), strange);
    assertEquals(storage.publicUrl(path), location);
  } finally {
    Deno.env.delete("STORAGE_PUBLIC");
    storage.reopen();
  }
});

Deno.test("a file of 64 MB is hashed without being held in memory, and uploaded in one piece", async () => {
  const path = key("1-large.bin");
  const block = new Uint8Array(1024 * 1024).map((_, place) => place % 251);
  const hash = createHash("sha256");
  await Deno.mkdir(pathOnDisk(path.slice(0, path.lastIndexOf("/"))), { recursive: true });
  using file = await Deno.open(pathOnDisk(path), { write: true, create: true });
  for (let written = 0; written < 64; written++) {
    hash.update(block);
    await file.write(block);
  }
  const declared = {
    storage_path: path,
    size_bytes: 64 * block.length,
    sha256: hash.digest("hex"),
    md5: null,
  };
  const before = Deno.memoryUsage().rss;
  assertEquals(await storage.fault(declared), null);
  const grown = (Deno.memoryUsage().rss - before) / block.length;
  assertEquals(grown < 32, true, `${Math.round(grown)} MB more`);

  const other = key("1-large.bin");
  const { url, headers } = await storage.signedUpload(other, "application/octet-stream", declared);
  const whole = await Deno.readFile(pathOnDisk(path));
  assertEquals(await upload(url, headers, whole), 200);
  assertEquals(await storage.fault({ ...declared, storage_path: other }), null);
});
