// Who calls. Nothing that a token says about itself counts before its signature was verified.

import { timingSafeEqual } from "node:crypto";
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, type JWTVerifyOptions } from "jose";
import { asCaller, call } from "./database.ts";
import { Refused } from "./errors.ts";

export type Caller = { kind: "service" } | { kind: "person"; userId: string };

export const SERVICE: Caller = { kind: "service" };

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

// `exp` must be there: a token that never ends is none of Supabase's
const CHECKS: JWTVerifyOptions = { requiredClaims: ["exp"], clockTolerance: 5 };

/** The caller of a request. Raises Refused: 401 without a token or with a JWT that does not verify; 403 for a token
 * that nobody has, and for a JWT of another role than `authenticated`. */
export async function callerOf(request: Request): Promise<Caller> {
  const token = /^Bearer +(\S+)\s*$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (token === undefined) throw new Refused(401, "the header `Authorization: Bearer <token>` is missing");
  if (await isServiceKey(token)) return SERVICE;
  if (token.split(".").length === 3) return personOf(await verified(token));
  const userId = await asCaller(
    SERVICE,
    (sql) => call<string | null>(sql, "user_of_token", { p_token: token }),
  );
  if (userId === null) {
    throw new Refused(403, "nobody has this access token", undefined, {}, "unknown_token");
  }
  return { kind: "person", userId };
}

/** Compares hashes, which are of one length, with every key, in a time that says nothing about them. */
async function isServiceKey(token: string): Promise<boolean> {
  const given = await sha256(token);
  let found = false;
  for (const key of serviceKeys()) found = timingSafeEqual(given, await sha256(key)) || found;
  return found;
}

/** The service_role key of older projects, and the secret keys of newer ones: a JSON object of them by name. */
function serviceKeys(): string[] {
  const newer = Object.values(JSON.parse(Deno.env.get("SUPABASE_SECRET_KEYS") || "{}"));
  return [Deno.env.get("SUPABASE_SERVICE_ROLE_KEY"), ...newer].filter((key): key is string =>
    typeof key === "string" && key !== ""
  );
}

async function sha256(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

function personOf(claims: JWTPayload): Caller {
  if (claims.role !== "authenticated") {
    throw new Refused(403, "this token is no person's; use a person's, or the service key");
  }
  if (!UUID.test(claims.sub ?? "")) throw new Refused(401, "the token names no person");
  return { kind: "person", userId: claims.sub!.toLowerCase() };
}

/** The claims of a JWT that this project signed and that has not expired. */
async function verified(token: string): Promise<JWTPayload> {
  try {
    return await verify(token);
  } catch (error) {
    // ERR_JOSE_GENERIC: the address answered, but not with keys
    const code = error instanceof errors.JOSEError ? error.code : null;
    if (error instanceof TypeError || code === "ERR_JWKS_TIMEOUT" || code === "ERR_JOSE_GENERIC") {
      throw new Refused(503, "the keys of the project's tokens cannot be read; try again");
    }
    if (code === "ERR_JWT_EXPIRED") throw new Refused(401, "the token has expired; log in again");
    if (code !== null) throw new Refused(401, "the token is not valid");
    throw error;
  }
}

/** With a secret only HS256 counts; with the project's public keys only what such keys can sign. Otherwise somebody
 * could sign with a public key as if it were the secret. */
async function verify(token: string): Promise<JWTPayload> {
  const secret = Deno.env.get("JWT_SECRET");
  if (secret) {
    const key = new TextEncoder().encode(secret);
    return (await jwtVerify(token, key, { ...CHECKS, algorithms: ["HS256"] })).payload;
  }
  return (await jwtVerify(token, publicKeys(), { ...CHECKS, algorithms: ["ES256", "RS256", "EdDSA"] }))
    .payload;
}

let keys: ReturnType<typeof createRemoteJWKSet> | undefined;

/** Cached; read again when a token names a key that is not there, at most every 30 s. */
function publicKeys(): ReturnType<typeof createRemoteJWKSet> {
  keys ??= createRemoteJWKSet(new URL(`${Deno.env.get("SUPABASE_URL")}/auth/v1/.well-known/jwks.json`));
  return keys;
}
