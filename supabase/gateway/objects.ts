// The public objects of Supabase Storage, read from the S3 server: /storage/v1/object/public/<bucket>/<key>.

import { AwsClient } from "aws4fetch";

export type Server = {
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  isPublic: boolean;
};

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "GET, HEAD, OPTIONS",
  "access-control-allow-headers": "authorization, range, apikey, x-client-info",
  "access-control-expose-headers": "content-length, content-range, accept-ranges, etag",
};
const ASKED = ["range", "if-none-match", "if-modified-since", "if-range"];
const ANSWERED = [
  "content-type",
  "content-length",
  "content-range",
  "accept-ranges",
  "etag",
  "last-modified",
];

export class PublicObjects {
  readonly #server: Server;
  readonly #client: AwsClient;

  constructor(server: Server) {
    this.#server = server;
    this.#client = new AwsClient({ ...server, service: "s3" });
  }

  /** `object`: bucket and key as they stand in the URL. Storage answers 400 where an object is not there. */
  async answer(object: string, request: Request): Promise<Response> {
    if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: CORS });
    if (request.method !== "GET" && request.method !== "HEAD") {
      return refusal(405, "405", "method_not_allowed", "only GET and HEAD");
    }
    if (!this.#server.isPublic) return refusal(400, "404", "Bucket not found", "Bucket not found");
    const found = await this.#fetched(object, request);
    if (found === undefined) return refusal(502, "502", "unreachable", "the S3 server does not answer");
    if (found.status >= 400 && found.status !== 416) {
      await found.body?.cancel();
      return found.status === 400 || found.status === 404
        ? refusal(400, "404", "not_found", "Object not found")
        : refusal(502, String(found.status), "s3", "the S3 server refused the request");
    }
    const headers = new Headers(CORS);
    for (const name of ANSWERED) {
      const value = found.headers.get(name);
      if (value !== null) headers.set(name, value);
    }
    // rclone sends a part with 200
    const status = found.status === 200 && headers.has("content-range") ? 206 : found.status;
    return new Response(found.body, { status, headers });
  }

  async #fetched(object: string, request: Request): Promise<Response | undefined> {
    const headers = new Headers();
    for (const name of ASKED) {
      const value = request.headers.get(name);
      if (value !== null) headers.set(name, value);
    }
    const url = `${this.#server.endpoint}/${object.replaceAll("+", "%2B")}`; // aws4fetch signs "+" as a space
    const signed = await this.#client.sign(url, { method: request.method, headers });
    try {
      return await fetch(signed);
    } catch {
      return undefined;
    }
  }
}

function refusal(status: number, statusCode: string, error: string, message: string): Response {
  return Response.json({ statusCode, error, message }, { status, headers: CORS });
}
