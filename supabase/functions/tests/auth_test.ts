// Tokens, without a database.

import assert from "node:assert/strict";
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from "jose";
import { callerOf } from "../_shared/auth.ts";
import { Refused } from "../_shared/errors.ts";
import { jwt, unsigned } from "./stack.ts";

const PERSON = "11111111-2222-3333-4444-555555555555";
const SECRET = "a secret that is long enough to sign with";

function request(authorization?: string): Request {
  const headers: HeadersInit = authorization === undefined ? {} : { Authorization: authorization };
  return new Request("http://localhost/", { method: "POST", headers });
}

async function status(authorization?: string): Promise<number> {
  try {
    await callerOf(request(authorization));
    return 200;
  } catch (error) {
    assert.ok(error instanceof Refused, String(error));
    return error.status;
  }
}

/** Runs with these variables and no others of ours. */
async function within(variables: Record<string, string>, run: () => Promise<void>): Promise<void> {
  const names = ["JWT_SECRET", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEYS", "SUPABASE_URL"];
  const before = names.map((name) => [name, Deno.env.get(name)] as const);
  names.forEach((name) => Deno.env.delete(name));
  Object.entries(variables).forEach(([name, value]) => Deno.env.set(name, value));
  try {
    await run();
  } finally {
    for (const [name, value] of before) {
      value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
    }
  }
}

Deno.test("the service key is the service, and nothing like it is", () =>
  within({ JWT_SECRET: SECRET, SUPABASE_SERVICE_ROLE_KEY: "a.service.key" }, async () => {
    assert.deepEqual(await callerOf(request("Bearer a.service.key")), { kind: "service" });
    assert.deepEqual(await callerOf(request("bearer  a.service.key ")), { kind: "service" });
    for (
      const other of [
        "Bearer a.service.kex",
        "Bearer a.service.key2",
        "Bearer a.service.ke",
        "Bearer a.SERVICE.key",
      ]
    ) {
      assert.equal(await status(other), 401, other);
    }
  }));

Deno.test("each of the secret keys of a newer project is the service", () =>
  within(
    { JWT_SECRET: SECRET, SUPABASE_SECRET_KEYS: '{"default":"sb_secret_1.x.y","ci":"sb_secret_2.x.y"}' },
    async () => {
      for (const key of ["sb_secret_1.x.y", "sb_secret_2.x.y"]) {
        assert.deepEqual(await callerOf(request(`Bearer ${key}`)), { kind: "service" });
      }
      for (const other of ["default.x.y", "sb_secret_1.x.z"]) {
        assert.equal(await status(`Bearer ${other}`), 401);
      }
    },
  ));

Deno.test("without a service key nobody is the service", () =>
  within({ JWT_SECRET: SECRET, SUPABASE_SERVICE_ROLE_KEY: "" }, async () => {
    for (const header of [undefined, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b"]) {
      assert.equal(await status(header), 401, header);
    }
  }));

Deno.test("a user's JWT is that person", () =>
  within({ JWT_SECRET: SECRET }, async () => {
    const token = await jwt({ sub: PERSON.toUpperCase(), secret: SECRET });
    assert.deepEqual(await callerOf(request(`Bearer ${token}`)), { kind: "person", userId: PERSON });
  }));

Deno.test("a JWT without an end, or of another algorithm, is refused", () =>
  within({ JWT_SECRET: SECRET }, async () => {
    const key = new TextEncoder().encode(SECRET);
    const claims = { role: "authenticated", sub: PERSON };
    const endless = await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(key);
    assert.equal(await status(`Bearer ${endless}`), 401);
    const other = await new SignJWT(claims).setProtectedHeader({ alg: "HS512" }).setExpirationTime("1h").sign(
      key,
    );
    assert.equal(await status(`Bearer ${other}`), 401);
    assert.equal(await status(`Bearer ${unsigned({ ...claims, exp: 9999999999 })}`), 401);
  }));

Deno.test("seconds of difference between clocks are forgiven, a minute is not", () =>
  within({ JWT_SECRET: SECRET }, async () => {
    assert.equal(await status(`Bearer ${await jwt({ sub: PERSON, secret: SECRET, lasts: -2 })}`), 200);
    assert.equal(await status(`Bearer ${await jwt({ sub: PERSON, secret: SECRET, lasts: -60 })}`), 401);
  }));

Deno.test("the project's public keys: cached, read again for a new one, and never a secret", async () => {
  const pairs = await Promise.all(
    ["ES256", "RS256"].map((alg) => generateKeyPair(alg, { extractable: true })),
  );
  const known: unknown[] = [];
  let broken = true;
  let reads = 0;
  const show = async (place: number, alg: string) =>
    known.push({ ...await exportJWK(pairs[place]!.publicKey), alg, kid: alg, use: "sig" });
  await show(0, "ES256");
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => {
    if (broken) return new Response("not now", { status: 500 });
    reads += 1;
    return Response.json({ keys: known });
  });
  const sign = (alg: string, key: CryptoKey | Uint8Array, kid = alg) =>
    new SignJWT({ role: "authenticated", sub: PERSON }).setProtectedHeader({ alg, kid }).setExpirationTime(
      "1h",
    )
      .sign(key);
  await within({ SUPABASE_URL: `http://127.0.0.1:${server.addr.port}` }, async () => {
    const token = await sign("ES256", pairs[0]!.privateKey);
    assert.equal(await status(`Bearer ${token}`), 503);
    broken = false;
    assert.deepEqual(await callerOf(request(`Bearer ${token}`)), { kind: "person", userId: PERSON });
    assert.equal(await status(`Bearer ${token}`), 200);
    assert.equal(reads, 1);
    const secret = new TextEncoder().encode(await exportSPKI(pairs[0]!.publicKey));
    assert.equal(await status(`Bearer ${await sign("HS256", secret, "ES256")}`), 401);
    const stranger = await generateKeyPair("ES256");
    assert.equal(await status(`Bearer ${await sign("ES256", stranger.privateKey)}`), 401);
    // rotated; keys are read again at most every 30 s
    await show(1, "RS256");
    const now = Date.now;
    Date.now = () => now() + 31_000;
    try {
      assert.equal(await status(`Bearer ${await sign("RS256", pairs[1]!.privateKey)}`), 200);
    } finally {
      Date.now = now;
    }
    assert.equal(reads, 2);
  });
});
