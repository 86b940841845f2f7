// Lets `debug.py doctor` write one small object, read it back and remove it, as workers and front ends do it: by signed
// addresses. No task is needed, and no row changes.

import { z } from "zod";
import { endpoint } from "../_shared/endpoint.ts";
import { download, signedRemoval, signedUpload } from "../_shared/storage.ts";

// Its size is signed too, so the address is of no use for anything else.
const SIZE_BYTES = 64;

export const handler = endpoint({
  body: z.object({}),
  run: async (_body, caller) => {
    const owner = caller.kind === "person" ? caller.userId : "service";
    const key = `${owner}/probes/${crypto.randomUUID()}.txt`;
    const upload = await signedUpload(key, "text/plain", { size_bytes: SIZE_BYTES });
    const { url: download_url } = await download(key);
    return {
      size_bytes: SIZE_BYTES,
      upload_url: upload.url,
      upload_headers: upload.headers,
      download_url,
      removal_url: await signedRemoval(key),
    };
  },
});
