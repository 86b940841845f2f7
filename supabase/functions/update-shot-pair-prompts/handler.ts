// Writes the prompts that a worker made for the pairs of a shot to its images.

import { z } from "zod";
import { asCaller, call, PostgresArray } from "../_shared/database.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { id, optional, text } from "../_shared/schemas.ts";

interface Written {
  updated_count: number;
  skipped_count: number;
  failed_count: number;
}

export const handler = endpoint({
  // one for each pair, in the order of the timeline; an empty one leaves what is there
  body: z.object({ shot_id: id, enhanced_prompts: z.array(optional(text)).max(1000) }),
  run: async ({ shot_id, enhanced_prompts }, caller) => {
    const prompts = new PostgresArray(enhanced_prompts.map((prompt) => prompt ?? ""));
    const written = await asCaller(caller, (sql) =>
      call<Written>(sql, "update_shot_pair_prompts", {
        p_shot_id: shot_id,
        p_enhanced_prompts: prompts,
      }));
    const message = `${written.updated_count} of ${enhanced_prompts.length} prompts were written`;
    return { success: true, message, ...written, shot_id };
  },
});
