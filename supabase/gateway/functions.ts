// Edge Functions as hosted Supabase serves them: each below its name, behind a check of the caller's JWT unless its
// `verify_jwt` in config.toml is false.

import { jwtVerify } from "jose";

type Handler = (request: Request) => Promise<Response>;

/** A variable that must be set. */
export function environment(name: string): string {
  const value = Deno.env.get(name);
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

/** The functions in a folder: each a subfolder with a handler.ts. */
export class EdgeFunctions {
  readonly #handlers: ReadonlyMap<string, Promise<Handler | Error>>;
  readonly #verifyThemselves: ReadonlySet<string>;
  readonly #secret: Uint8Array;

  constructor(folder: URL, verifyThemselves: string[], jwtSecret: string) {
    this.#handlers = new Map(
      slugs(folder).map((slug) => [slug, load(new URL(`${slug}/handler.ts`, folder))]),
    );
    this.#verifyThemselves = new Set(verifyThemselves);
    this.#secret = new TextEncoder().encode(jwtSecret);
  }

  async answer(slug: string, request: Request): Promise<Response> {
    const handler = await this.#handlers.get(slug);
    if (handler === undefined) {
      return Response.json({ code: "NOT_FOUND", message: "Requested function was not found" }, {
        status: 404,
      });
    }
    if (handler instanceof Error) {
      return Response.json({ code: "BOOT_ERROR", message: `${slug}: ${handler.message}` }, { status: 503 });
    }
    if (!this.#verifyThemselves.has(slug) && request.method !== "OPTIONS") {
      const refused = await this.#refusal(request);
      if (refused !== undefined) return Response.json({ code: 401, message: refused }, { status: 401 });
    }
    return await handler(request);
  }

  /** The names of all, and what is wrong with those that could not be loaded. */
  async health(): Promise<{ functions: string[]; broken: Record<string, string> }> {
    const broken: Record<string, string> = {};
    for (const [slug, handler] of this.#handlers) {
      const loaded = await handler;
      if (loaded instanceof Error) broken[slug] = loaded.message;
    }
    return { functions: [...this.#handlers.keys()], broken };
  }

  async #refusal(request: Request): Promise<string | undefined> {
    const token = /^Bearer (.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    if (token === undefined) return "Missing authorization header";
    try {
      await jwtVerify(token, this.#secret, { algorithms: ["HS256"] });
    } catch {
      return "Invalid JWT";
    }
    return undefined;
  }
}

function slugs(folder: URL): string[] {
  const folders = [...Deno.readDirSync(folder)].filter((entry) => entry.isDirectory).map((entry) =>
    entry.name
  );
  return folders.filter((name) => isFile(new URL(`${name}/handler.ts`, folder))).sort();
}

function isFile(url: URL): boolean {
  try {
    return Deno.statSync(url).isFile;
  } catch {
    return false;
  }
}

/** A function that cannot be loaded takes no other with it. */
async function load(url: URL): Promise<Handler | Error> {
  try {
    const { handler } = await import(url.href);
    return typeof handler === "function" ? handler : new Error(`${url.pathname} exports no handler`);
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}
