// The bucket as the disk shows it, and uploads as workers make them.

import { createHash } from "node:crypto";
import { put } from "../_shared/storage.ts";

const FOLDER = Deno.env.get("TEST_OBJECTS");

export function pathOnDisk(key: string): string {
  return `${FOLDER}/${key}`;
}

/** The bytes under a key; null when there are none. */
export async function onDisk(key: string): Promise<Uint8Array | null> {
  try {
    return await Deno.readFile(pathOnDisk(key));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** Bytes that came another way, or that somebody changed. Through the server, which remembers a folder for a moment. */
export async function place(key: string, content: Uint8Array<ArrayBuffer>): Promise<void> {
  await put(key, content, "application/octet-stream");
}

export function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

export function about(content: Uint8Array): { size_bytes: number; sha256: string; md5: string } {
  return { size_bytes: content.length, sha256: digest("sha256", content), md5: digest("md5", content) };
}

export function digest(algorithm: string, content: Uint8Array): string {
  return createHash(algorithm).update(content).digest("hex");
}

/** PUT a file; the status. */
export async function upload(
  url: string,
  headers: Record<string, string>,
  body: BodyInit,
): Promise<number> {
  const answer = await fetch(url, { method: "PUT", headers, body });
  await answer.body?.cancel();
  return answer.status;
}
