// File names that people wrote, made safe.

import { createHash } from "node:crypto";

const FALLBACK_NAME = "sanitized_file";
const MAX_NAME_BYTES = 180;

const FORBIDDEN = /[§®©™@·º½¾¿¡~\p{Cc}<>:"/\\|?*,]/gu;
// What Supabase Storage takes in a key, less what is forbidden above. It takes no `%`, which is as well: no key reads
// otherwise once it is decoded.
const UNUSABLE_IN_KEYS = /[^\w!\-.'()& $=;+]/g;

/** A name that is safe on every file system and in URLs: the rules of `sanitise_filename` in source/storage.py. */
export function sanitiseFilename(name: string): string {
  const clean = name.replace(FORBIDDEN, "").replace(/[ .]{2,}/g, " ").replace(/^[ .]+|[ .]+$/g, "");
  return shortened(clean) || FALLBACK_NAME;
}

/** The name of the object that keeps a file of this name: `sanitiseFilename`, in the characters that Supabase Storage
 * takes. One that had to be spelled otherwise carries a hash of the name, so two of them stay two objects. */
export function objectName(name: string): string {
  const clean = sanitiseFilename(name);
  const plain = clean.normalize("NFKD").replace(/\p{M}/gu, "").replace(UNUSABLE_IN_KEYS, "_");
  if (plain === clean) return clean;
  const hash = createHash("sha256").update(clean).digest("hex").slice(0, 8);
  const dot = suffixStart(plain);
  return `${plain.slice(0, dot).slice(0, 100)}-${hash}${plain.slice(dot).slice(0, 16)}`;
}

/** The name of the picture that stands for a file. */
export function thumbnailName(filename: string): string {
  const clean = sanitiseFilename(filename);
  return `thumb_${clean.slice(0, suffixStart(clean))}.jpg`;
}

/** At most MAX_NAME_BYTES of UTF-8, the suffix kept. */
function shortened(name: string): string {
  if (bytesOf(name).length <= MAX_NAME_BYTES) return name;
  const suffix = [...name.slice(suffixStart(name))].slice(0, 16).join("");
  const kept = bytesOf(name).slice(0, MAX_NAME_BYTES - bytesOf(suffix).length);
  // `stream`: a character that was cut through is left out
  return new TextDecoder().decode(kept, { stream: true }) + suffix;
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Where `.mp4` begins; the end of the name when it has no suffix. */
function suffixStart(name: string): number {
  const dot = name.lastIndexOf(".");
  return dot > 0 && dot < name.length - 1 ? dot : name.length;
}
