/** When a failed call is repeated, and after how long. */
import { SandboxConnectionError, type SandpoolError, wasNeverSent } from "./errors.js";

/**
 * Which failures allow another attempt: `safe` for calls that may run twice (reads, and changes that carry a
 * request_id), `unsent` for those that must not (commands): only when the request never left.
 */
export type Repeatable = "safe" | "unsent";

/** How often and how fast failed calls are repeated. */
export interface RetryPolicy {
  /** How many times a call is repeated at most; 0 for never. */
  readonly maxRetries: number;
  /** The longest wait before the first repetition in milliseconds; it doubles with each. */
  readonly baseDelayMs: number;
  /** The longest wait before any repetition in milliseconds. A hint of the server may ask for longer. */
  readonly maxDelayMs: number;
  /** A number from 0 to below 1, so that clients do not come back all at once. */
  readonly random: () => number;
}

export const DEFAULT_RETRY: RetryPolicy = { maxRetries: 4, baseDelayMs: 100, maxDelayMs: 2_000, random: Math.random };

/** What bounds a call in time. */
export interface Bounds {
  /** When to give up, in the milliseconds of `performance.now()`, or undefined for never. */
  readonly deadline: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * How long to wait before repetition number `retry` (from 0) in milliseconds, or null when the error is to be reported:
 * half of the wait is fixed and half random; the server's hint is the least.
 */
export function retryDelay(
  error: SandpoolError,
  retry: number,
  repeatable: Repeatable,
  policy: RetryPolicy,
): number | null {
  if (retry >= policy.maxRetries || !(error instanceof SandboxConnectionError)) return null;
  if (repeatable === "unsent" && !wasNeverSent(error)) return null;
  const ceiling = Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** retry);
  return Math.max(ceiling * (0.5 + policy.random() / 2), error.retryAfterMs ?? 0);
}

/** Waits; rejects with the signal's reason when that is aborted meanwhile. */
export function sleep(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, delayMs);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/**
 * Runs `attempt` until it succeeds or its error is not to be repeated. `toError` turns what it threw into ours.
 * When there is no time left for another attempt, the last error is the answer: it tells more than "too late".
 */
export async function withRetries<T>(
  attempt: (remainingMs: number | undefined) => Promise<T>,
  toError: (thrown: unknown) => SandpoolError,
  repeatable: Repeatable,
  policy: RetryPolicy,
  bounds: Bounds,
): Promise<T> {
  for (let retry = 0; ; retry++) {
    bounds.signal?.throwIfAborted();
    const remaining = bounds.deadline === undefined ? undefined : Math.max(1, bounds.deadline - performance.now());
    try {
      return await attempt(remaining);
    } catch (thrown) {
      bounds.signal?.throwIfAborted();
      const error = toError(thrown);
      const delay = retryDelay(error, retry, repeatable, policy);
      if (delay === null) throw error;
      if (bounds.deadline !== undefined && performance.now() + delay >= bounds.deadline) throw error;
      await sleep(delay, bounds.signal);
    }
  }
}
