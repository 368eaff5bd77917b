/** Time limits of streams and waits, in addition to a caller's signal. */
import { checkTimeout } from "./caller.js";
import { ResourceTimeoutError } from "./errors.js";
import { LONGEST_TIMER_MS } from "./time.js";

/** A signal that is aborted when the caller's signal is, or when the time is over. */
export interface Limit {
  readonly signal: AbortSignal | undefined;
  /** Returns whether the time limit caused the error. */
  readonly caused: (error: unknown) => boolean;
}

/** Returns a time limit in addition to the caller's signal. */
export function limitOf(timeoutMs: number | null | undefined, signal: AbortSignal | undefined): Limit {
  checkTimeout("timeoutMs", timeoutMs);
  if (timeoutMs === undefined || timeoutMs === null) return { signal, caused: () => false };
  const limit = AbortSignal.timeout(Math.min(Math.ceil(timeoutMs), LONGEST_TIMER_MS));
  return {
    signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    caused: (error) => limit.aborted && error === limit.reason,
  };
}

/** Yields the items of a stream until the time limit, which is a ResourceTimeoutError. */
export async function* limited<T>(
  name: string,
  { timeoutMs, signal }: { readonly timeoutMs?: number | null | undefined; readonly signal?: AbortSignal | undefined },
  open: (signal: AbortSignal | undefined) => AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  const limit = limitOf(timeoutMs, signal);
  try {
    yield* open(limit.signal);
  } catch (error) {
    if (!limit.caused(error)) throw error;
    const message = `${name} was stopped after ${timeoutMs} ms, its timeoutMs`;
    throw new ResourceTimeoutError(message, { code: "DEADLINE_EXCEEDED" });
  }
}
