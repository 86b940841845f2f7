// What stands before Edge Functions on hosted Supabase, for the local stack alone: the functions below
// /functions/v1/, and the public objects of Storage. `python -m source.devstack up` starts it.

import { EdgeFunctions, environment } from "./functions.ts";
import { PublicObjects } from "./objects.ts";

const functions = new EdgeFunctions(
  new URL(environment("GATEWAY_FUNCTIONS") + "/"),
  environment("GATEWAY_VERIFY_THEMSELVES").split(","),
  environment("JWT_SECRET"),
);
const objects = new PublicObjects({
  endpoint: environment("S3_ENDPOINT"),
  region: environment("S3_REGION"),
  accessKeyId: environment("S3_ACCESS_KEY_ID"),
  secretAccessKey: environment("S3_SECRET_ACCESS_KEY"),
  isPublic: environment("STORAGE_PUBLIC") === "true",
});

async function answer(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  const slug = /^\/functions\/v1\/([^/]+)/.exec(pathname)?.[1];
  if (slug !== undefined) return await functions.answer(slug, request);
  const object = /^\/storage\/v1\/object\/public\/([^/]+\/.+)$/.exec(pathname)?.[1];
  if (object !== undefined) return await objects.answer(object, request);
  if (pathname === "/healthz") return Response.json(await functions.health());
  return Response.json({ message: `there is nothing at ${pathname}` }, { status: 404 });
}

const server = Deno.serve({
  hostname: "127.0.0.1",
  port: Number(environment("GATEWAY_PORT")),
  onListen: () => {},
}, answer);

// What is being answered may end first. The functions' connections to Postgres would keep the process alive.
Deno.addSignalListener("SIGTERM", async () => {
  await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, 5_000))]);
  Deno.exit(0);
});
