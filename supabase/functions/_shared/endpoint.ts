// What every function does around its own work: methods, CORS, who calls, the body, errors.

import type { z } from "zod";
import { type Caller, callerOf } from "./auth.ts";
import { answerOf, badInput, Refused } from "./errors.ts";
import { parseJson } from "./json.ts";

export type Handler = (request: Request) => Promise<Response>;

const MAX_BODY_BYTES = 10 * 1024 * 1024;

const CORS = {
  "Access-Control-Allow-Origin": "*",
  "Access-Control-Allow-Methods": "POST, OPTIONS",
  "Access-Control-Allow-Headers": "authorization, x-client-info, apikey, content-type, x-region, " +
    "x-supabase-api-version",
  "Access-Control-Expose-Headers": "Retry-After",
  "Access-Control-Max-Age": "86400",
};

export interface Endpoint<Schema extends z.ZodType> {
  /** Fields that it does not name are left out: older clients send some. */
  body: Schema;
  /** The service alone (persons get 403), or people as well. */
  callers?: "service" | "everybody";
  maxBytes?: number;
  /** Answers with JSON, or with a Response of its own. */
  run: (body: z.output<Schema>, caller: Caller) => Promise<unknown>;
}

/** The handler of a function: POST with a token and a JSON body. */
export function endpoint<Schema extends z.ZodType>(settings: Endpoint<Schema>): Handler {
  return async (request) => {
    const answer = await answered(request, settings);
    for (const [name, value] of Object.entries(CORS)) answer.headers.set(name, value);
    return answer;
  };
}

async function answered<Schema extends z.ZodType>(
  request: Request,
  settings: Endpoint<Schema>,
): Promise<Response> {
  if (request.method === "OPTIONS") return new Response(null, { status: 204 });
  try {
    if (request.method !== "POST") throw new Refused(405, `POST only, not ${request.method}`);
    const caller = await callerOf(request);
    if (settings.callers === "service" && caller.kind !== "service") {
      throw new Refused(403, "only the service key may do this");
    }
    const body = parsed(settings.body, await jsonOf(request, settings.maxBytes ?? MAX_BODY_BYTES));
    const result = await settings.run(body, caller);
    return result instanceof Response ? result : Response.json(result);
  } catch (error) {
    const answer = answerOf(error, crypto.randomUUID());
    if (answer.status === 405) answer.headers.set("Allow", "POST, OPTIONS");
    return answer;
  }
}

/** The value as the schema wants it. Raises Refused (400) that names the field. */
export function parsed<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join(".") || "body";
  const missing = issue.message.endsWith("received undefined");
  throw badInput(field, missing ? "is missing" : issue.message.replace(/^Invalid input: /, ""));
}

async function jsonOf(request: Request, maxBytes: number): Promise<unknown> {
  const text = await textOf(request, maxBytes);
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw badInput("body", "the body must be JSON");
  }
}

/** Reads no more than is allowed, whatever the headers say. */
async function textOf(request: Request, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) throw badInput("body", `the body is larger than ${maxBytes} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
