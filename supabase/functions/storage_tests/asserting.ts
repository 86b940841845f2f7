// What tests assert with.

import { deepStrictEqual } from "node:assert";

/** Raises when they differ. `about` says which of several cases it was. */
export function assertEquals(actual: unknown, expected: unknown, about?: string): void {
  try {
    deepStrictEqual(actual, expected);
  } catch (error) {
    if (about !== undefined && error instanceof Error) error.message = `${about}: ${error.message}`;
    throw error;
  }
}

/** The error that `work` raises, of this kind. */
export function assertThrows<Kind extends Error>(
  work: () => unknown,
  kind: new (...given: never[]) => Kind,
): Kind {
  let made: unknown;
  try {
    made = work();
  } catch (error) {
    if (error instanceof kind) return error;
    throw error;
  }
  throw new Error(`nothing was raised, but ${JSON.stringify(made)} returned`);
}
