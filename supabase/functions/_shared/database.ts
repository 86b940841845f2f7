// The database as the caller: one transaction a request, under the caller's role, so row level security holds.

import postgres from "postgres";
import type { Caller } from "./auth.ts";
import { Refused } from "./errors.ts";
import { parseJson } from "./json.ts";

export type Sql = postgres.TransactionSql<{ bigint: number }>;

// Below the 15 s after which the most impatient client gives up.
const STATEMENT_TIMEOUT_MS = "12000";

// For all statements of a request, the wait for a connection included.
const DEADLINE_MS = 20_000;

const VOID = 2278;

let pool: postgres.Sql<{ bigint: number }> | undefined;

/** One a process. Connections that break are replaced: a restarted database is noticed by at most the requests that
 * were under way. */
function connections(): postgres.Sql<{ bigint: number }> {
  // a project with many workers names its pooler; what hosted Supabase gives by itself is a direct connection
  const url = Deno.env.get("DB_POOLER_URL") || Deno.env.get("SUPABASE_DB_URL");
  // said here, for the client's own error would carry the password into the log
  if (!url || !URL.canParse(url)) throw new Error("SUPABASE_DB_URL is not set, or is no URL");
  pool ??= postgres(url, {
    max: 8,
    // seconds
    connect_timeout: 5,
    idle_timeout: 20,
    // the client would wait up to 20 s before it connects again
    backoff: () => 0.05,
    // prepared statements and questions about types do not go together with poolers by transaction
    prepare: false,
    fetch_types: false,
    onnotice: () => {},
    connection: { application_name: "edge_functions" },
    types: {
      bigint: { to: 20, from: [20], parse: Number, serialize: String },
      json: { to: 3802, from: [114, 3802], parse: parseJson, serialize: JSON.stringify },
    },
  });
  return pool;
}

/** When the database last answered anything to anybody, in milliseconds of this process. */
let heardAt = 0;

/** Run `work` in one transaction as the caller; it is rolled back when `work` raises. Raises Refused (503) when that takes
 * too long; nothing of it is committed then. */
export async function asCaller<T>(caller: Caller, work: (sql: Sql) => Promise<T>): Promise<T> {
  const beganAt = performance.now();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let givenUp: Refused | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      // Whoever answered nothing to anybody is gone without a word; its connections would be used for ever. One that
      // answers others is busy, and so are its connections.
      if (heardAt < beganAt) void disconnect();
      givenUp = new Refused(503, "the database does not answer; try again");
      reject(givenUp);
    }, DEADLINE_MS);
  });
  const heard = () => {
    heardAt = performance.now();
    if (givenUp) throw givenUp;
  };
  try {
    return await Promise.race([transaction(caller, work, heard), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** `heard` is called after an answer, and raises when nobody waits for the end any more: before a commit too. */
async function transaction<T>(
  caller: Caller,
  work: (sql: Sql) => Promise<T>,
  heard: () => void,
): Promise<T> {
  const [role, claims] = caller.kind === "service"
    ? ["service_role", { role: "service_role" }]
    : ["authenticated", { role: "authenticated", sub: caller.userId }];
  return await connections().begin(async (sql) => {
    await sql`select set_config('statement_timeout', ${STATEMENT_TIMEOUT_MS}, true),
      set_config('request.jwt.claims', ${JSON.stringify(claims)}, true), set_config('role', ${role}, true)`;
    heard();
    const result = await work(sql);
    heard();
    return result;
  }) as T;
}

/** What a function of the API answers. Values that are undefined are left out, so the function's defaults hold; objects
 * and lists are JSON. `name` and the keys must be ours, never a caller's. */
export async function call<T>(sql: Sql, name: string, values: Record<string, unknown>): Promise<T> {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  const names = given.map(([key], place) => `${key} => $${place + 1}`).join(", ");
  const rows = await sql.unsafe(
    `select public.${name}(${names}) as answer`,
    given.map(([, value]) => parameter(sql, value)) as postgres.ParameterOrJSON<never>[],
  );
  return (rows.columns[0]!.type === VOID ? null : rows[0]!.answer) as T;
}

function parameter(sql: Sql, value: unknown): unknown {
  if (value instanceof PostgresArray) return value.text;
  return typeof value === "object" && value !== null ? sql.json(value as postgres.JSONValue) : value;
}

/** A parameter of type text[], or jsonb[] when given JSON texts. */
export class PostgresArray {
  readonly text: string;

  constructor(values: readonly string[]) {
    this.text = `{${values.map((value) => `"${value.replace(/["\\]/g, "\\$&")}"`).join(",")}}`;
  }
}

/** Close all connections at once; the next request opens others. */
export async function disconnect(): Promise<void> {
  const old = pool;
  pool = undefined;
  await old?.end({ timeout: 0 });
}
