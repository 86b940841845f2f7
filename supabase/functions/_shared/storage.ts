// The bucket of results: keys, addresses, and what lies there. The only module that speaks S3.
//
// A key is {user}/tasks/{task_id}/{claim_number}-{name}. Rows keep an object's public address, also where the bucket is
// private: a reader asks for a signed one then.

import { AwsClient } from "aws4fetch";
import { createHash } from "node:crypto";
import { Refused } from "./errors.ts";

/** A file that a claim announced (declared_uploads). */
export interface Declared {
  storage_path: string;
  size_bytes: number | null;
  /** hex */
  sha256: string | null;
  md5: string | null;
}

export interface StoredObject {
  size_bytes: number;
  etag: string;
}

/** An address to use with exactly these headers, until then. */
export interface Signed {
  url: string;
  headers: Record<string, string>;
  expires_at: string;
}

const EXPIRES_S = 3600;
const MAX_KEY_BYTES = 1024;

// What one HEAD may take, and reading or writing a whole object.
const LOOK_TIMEOUT_MS = 10_000;
const TRANSFER_TIMEOUT_MS = 60_000;
const BLOCK_BYTES = 64 * 1024;

interface Bucket {
  /** of its objects, on the S3 endpoint */
  address: string;
  client: AwsClient;
}

let opened: Bucket | undefined;

/** The bucket, for those who read and write it. Raises Refused (503) when a secret is missing. */
function bucket(): Bucket {
  opened ??= {
    address: `${address("S3_ENDPOINT")}/${bucketName()}`,
    client: new AwsClient({
      accessKeyId: setting("S3_ACCESS_KEY_ID"),
      secretAccessKey: setting("S3_SECRET_ACCESS_KEY"),
      region: Deno.env.get("S3_REGION") || "us-east-1",
      service: "s3",
      retries: 2,
    }),
  };
  return opened;
}

function bucketName(): string {
  return Deno.env.get("STORAGE_BUCKET") || "image_uploads";
}

function isPublic(): boolean {
  return Deno.env.get("STORAGE_PUBLIC")?.toLowerCase() !== "false";
}

/** Where everybody reads the objects of a public bucket. */
function publicAddress(): string {
  return `${address("SUPABASE_URL")}/storage/v1/object/public/${bucketName()}`;
}

function setting(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw unavailable(`the secret ${name} of the functions is not set`);
  return value;
}

function address(name: string): string {
  return setting(name).replace(/\/+$/, "");
}

function unavailable(reason: string): Refused {
  return new Refused(503, `storage: ${reason}`, undefined, {}, "storage_unavailable");
}

/** Forget the settings. For tests: the platform starts a process anew when they change. */
export function reopen(): void {
  opened = undefined;
}

// -- keys and addresses ----------------------------------------------------------------------------------------

/** The public address of an object: what rows keep. */
export function publicUrl(key: string): string {
  return `${publicAddress()}/${encoded(key)}`;
}

/** The key behind an address of our bucket; null for every other text. Raises Refused (403) for one of ours that leads
 * out of its folder. */
export function keyOf(location: string): string | null {
  if (!URL.canParse(location)) return null;
  const { origin, pathname } = new URL(location);
  const ours = new URL(publicAddress());
  const folder = ours.pathname.slice(0, ours.pathname.indexOf("public/"));
  if (origin !== ours.origin || !pathname.startsWith(folder)) return null;
  const [kind, name, ...parts] = pathname.slice(folder.length).split("/");
  if (!["public", "sign", "authenticated"].includes(kind!) || name !== bucketName()) return null;
  const names = parts.map(decoded);
  if (names.some((part) => part.includes("/"))) throw outside(location);
  return checkedKey(names.join("/"));
}

/** The key as it is, when it names an object inside its folder. Raises Refused (403). */
export function checkedKey(key: string): string {
  const parts = key.split("/");
  const leads = parts.some((part) => part === "" || part === "." || part === "..");
  if (leads || key.length > MAX_KEY_BYTES || /[\\\p{Cc}]|%(2e|2f|5c)/iu.test(key)) throw outside(key);
  return key;
}

function outside(path: string): Refused {
  return new Refused(403, `${JSON.stringify(path.slice(0, 200))} leads out of its folder`, "storage_path");
}

/** All but RFC 3986's unreserved characters: a signature is of the path as it stands in the request. */
function encoded(key: string): string {
  const part = (text: string) =>
    encodeURIComponent(text).replace(
      /[!'()*]/g,
      (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
    );
  return key.split("/").map(part).join("/");
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw outside(part);
  }
}

// -- signed addresses --------------------------------------------------------------------------------------------

/** Where to PUT one file. Its content type is signed, and so are size and MD5 where they are declared: S3 refuses other
 * bytes, or (Supabase Storage, which does not look at the MD5) the completion does. */
export async function signedUpload(
  key: string,
  contentType: string,
  declared: Partial<Declared>,
): Promise<Signed> {
  const headers: Record<string, string> = { "Content-Type": contentType };
  if (declared.md5) headers["Content-MD5"] = base64(declared.md5);
  const { size_bytes: size } = declared;
  // not among the headers to send: every HTTP client writes it by itself
  const length: Record<string, string> = typeof size === "number" ? { "Content-Length": String(size) } : {};
  return { ...await signed("PUT", key, { ...headers, ...length }), headers };
}

/** Where to DELETE an object. */
export async function signedRemoval(key: string): Promise<string> {
  return (await signed("DELETE", key, {})).url;
}

/** Where to read an object, and until when (null: for ever). */
export async function download(key: string): Promise<{ url: string; expires_at: string | null }> {
  if (isPublic()) return { url: publicUrl(key), expires_at: null };
  return await signed("GET", key, {});
}

/** A location that its reader can open: a row's, or a signed one when that is an object in a private bucket. */
export async function readable(location: string): Promise<string> {
  const key = isPublic() ? null : ownKey(location);
  return key === null ? location : (await download(key)).url;
}

function ownKey(location: string): string | null {
  try {
    return keyOf(location);
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

async function signed(
  method: string,
  key: string,
  headers: Record<string, string>,
): Promise<Signed> {
  const url = new URL(`${bucket().address}/${encoded(key)}`);
  url.searchParams.set("X-Amz-Expires", String(EXPIRES_S));
  const expiresAt = new Date(Date.now() + EXPIRES_S * 1000).toISOString();
  const aws = { signQuery: true, allHeaders: true };
  const request = await bucket().client.sign(url.href, { method, headers, aws });
  return { url: request.url, headers, expires_at: expiresAt };
}

function base64(hex: string): string {
  return btoa(String.fromCharCode(...hex.match(/../g)!.map((byte) => parseInt(byte, 16))));
}

// -- objects -----------------------------------------------------------------------------------------------------

/** What lies under the key; null when nothing does. Raises Refused (503) when storage does not answer. */
export async function head(key: string): Promise<StoredObject | null> {
  const answer = await asked("HEAD", key, LOOK_TIMEOUT_MS);
  if (answer === null) return null;
  return { size_bytes: Number(answer.headers.get("content-length")), etag: etagOf(answer) };
}

/** Store bytes that came through a function. Raises Refused (503). */
export async function put(key: string, bytes: Uint8Array<ArrayBuffer>, contentType: string): Promise<void> {
  const headers = {
    "Content-Type": contentType,
    "Content-MD5": createHash("md5").update(bytes).digest("base64"),
  };
  const answer = await asked("PUT", key, TRANSFER_TIMEOUT_MS, { headers, body: bytes });
  if (answer === null) throw unavailable(`there is no bucket ${bucketName()}`);
  await answer.body?.cancel();
}

async function asked(
  method: string,
  key: string,
  timeoutMs: number,
  more: { headers?: Record<string, string>; body?: Uint8Array<ArrayBuffer> } = {},
): Promise<Response | null> {
  let answer: Response;
  try {
    const { client, address } = bucket();
    answer = await client.fetch(`${address}/${encoded(key)}`, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...more,
    });
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw unavailable("the S3 endpoint does not answer; try again");
  }
  if (answer.ok) return answer;
  await answer.body?.cancel();
  if (answer.status === 404) return null;
  throw unavailable(`the S3 endpoint answered ${answer.status} to a ${method}`);
}

/** Without quotes, and without the mark that proxies put before it. */
function etagOf(answer: Response): string {
  return (answer.headers.get("etag") ?? "").replace(/^W\//, "").replaceAll('"', "").toLowerCase();
}

// -- checking what was uploaded -----------------------------------------------------------------------------------

/** Why the object is not what was declared; null when it is.
 *
 * An ETag that equals the MD5 proves it. Any other ETag says nothing (of an upload in parts it is a hash of hashes), so
 * the object is read once and hashed, up to STORAGE_VERIFY_MAX_MB (256); of a larger one only the size is compared. */
export async function fault(declared: Declared): Promise<string | null> {
  const found = await head(declared.storage_path);
  if (found === null) return "is not there";
  const { size_bytes: size, sha256, md5 } = declared;
  if (size !== null && found.size_bytes !== size) return `has ${found.size_bytes} bytes, not ${size}`;
  if (md5 !== null && found.etag === md5) return null;
  if (sha256 === null && md5 === null) return null;
  if (found.size_bytes > verifyMaxBytes()) return null;
  const [algorithm, wanted] = sha256 === null ? ["md5", md5] : ["sha256", sha256];
  return await hashOf(declared.storage_path, algorithm!) === wanted ? null : `has another ${algorithm}`;
}

function verifyMaxBytes(): number {
  return Number(Deno.env.get("STORAGE_VERIFY_MAX_MB") || "256") * 1024 * 1024;
}

/** Hex. Reads into one block, again and again: memory stays as it is, however large the object. */
async function hashOf(key: string, algorithm: string): Promise<string> {
  const answer = await asked("GET", key, TRANSFER_TIMEOUT_MS);
  const hash = createHash(algorithm);
  try {
    const reader = answer?.body?.getReader({ mode: "byob" });
    let part = await reader?.read(new Uint8Array(BLOCK_BYTES));
    while (part?.value && !part.done) {
      hash.update(part.value);
      part = await reader!.read(new Uint8Array(part.value.buffer));
    }
  } catch {
    throw unavailable("the S3 endpoint broke off; try again");
  }
  return hash.digest("hex");
}
