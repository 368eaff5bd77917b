/** Decides whether and when a failed call is repeated. */
import type { RetryPolicy } from "../options.js";
import { RESUME_TIMEOUT_MS } from "./defaults.js";
import { SandboxConnectionError, type SandpoolError, wasNeverSent } from "./errors.js";

/**
 * Which failures allow a retry: `safe` for calls that may run twice (reads, and changes with a request id), `unsent`
 * for the others: only when the request was never sent.
 */
export type Repeatable = "safe" | "unsent";

/** A complete retry policy, with its source of randomness. */
export interface Retry {
  readonly maxAttempts: number;
  readonly initialDelayMs: number;
  readonly maxDelayMs: number;
  /** Returns a number from 0 to below 1, so that clients do not retry at the same time. */
  readonly random: () => number;
}

export const DEFAULT_RETRY: Retry = { maxAttempts: 5, initialDelayMs: 100, maxDelayMs: 2_000, random: Math.random };

/** Completes a policy with the defaults. Throws a RangeError for values that make no sense. */
export function completed(policy: RetryPolicy = {}): Retry {
  const retry = {
    maxAttempts: policy.maxAttempts ?? DEFAULT_RETRY.maxAttempts,
    initialDelayMs: policy.initialDelayMs ?? DEFAULT_RETRY.initialDelayMs,
    maxDelayMs: policy.maxDelayMs ?? DEFAULT_RETRY.maxDelayMs,
    random: DEFAULT_RETRY.random,
  };
  if (!(retry.maxAttempts >= 1)) throw new RangeError(`retry.maxAttempts must be at least 1, not ${retry.maxAttempts}`);
  if (!(retry.initialDelayMs >= 0 && retry.initialDelayMs <= retry.maxDelayMs)) {
    throw new RangeError("retry.initialDelayMs must be between 0 and retry.maxDelayMs");
  }
  return retry;
}

/** The time limits of a call. */
export interface Bounds {
  /** The deadline, in the milliseconds of `performance.now()`, or undefined. */
  readonly deadline: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * Returns the pause in milliseconds after the failure of attempt number `attempt` (from 1), or null to report the error.
 * Half of the pause is fixed and half is random; the server's hint is the minimum.
 */
export function retryDelay(
  error: SandpoolError,
  attempt: number,
  repeatable: Repeatable,
  retry: Retry,
): number | null {
  if (attempt >= retry.maxAttempts || !(error instanceof SandboxConnectionError)) return null;
  if (repeatable === "unsent" && !wasNeverSent(error)) return null;
  const ceiling = Math.min(retry.maxDelayMs, retry.initialDelayMs * 2 ** (attempt - 1));
  return Math.max(ceiling * (0.5 + retry.random() / 2), error.retryAfterMs ?? 0);
}

/** One stream over any number of connections: decides when the next one is opened. */
export class Resumption {
  readonly #retry: Retry;
  readonly #now: () => number;
  #begun = false;
  #failures = 0;
  #silentSince = 0;

  constructor(retry: Retry, now: () => number = () => performance.now()) {
    this.#retry = retry;
    this.#now = now;
  }

  /** Notes that the stream has begun, without progress since the last connection. */
  begin(): void {
    this.#begun = true;
  }

  /** Notes that something arrived. */
  arrived(): void {
    this.#begun = true;
    this.#failures = 0;
  }

  /**
   * Returns the pause in milliseconds after a connection broke, or null to report the error. A stream that has begun is
   * resumed for a limited time, not for a limited number of attempts, because a restart of the server takes longer
   * than a call.
   */
  delay(error: SandpoolError): number | null {
    if (this.#failures === 0) this.#silentSince = this.#now();
    this.#failures += 1;
    const { maxAttempts } = this.#retry;
    const attempt = this.#begun && maxAttempts > 1 ? Math.min(this.#failures, maxAttempts - 1) : this.#failures;
    const delay = retryDelay(error, attempt, "safe", this.#retry);
    const left = this.#silentSince + RESUME_TIMEOUT_MS - this.#now();
    return delay === null || delay >= left ? null : delay;
  }
}

/** Waits; rejects with the signal's reason when the signal is aborted. */
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
 * Runs `attempt` until it succeeds or its error is not to be repeated. `toError` converts what it threw. When no time is
 * left for another attempt, the last error is reported, because it contains the cause.
 */
export async function withRetries<T>(
  attempt: (remainingMs: number | undefined) => Promise<T>,
  toError: (thrown: unknown) => SandpoolError,
  repeatable: Repeatable,
  retry: Retry,
  bounds: Bounds,
): Promise<T> {
  for (let number = 1; ; number++) {
    bounds.signal?.throwIfAborted();
    const remaining = bounds.deadline === undefined ? undefined : Math.max(1, bounds.deadline - performance.now());
    try {
      return await attempt(remaining);
    } catch (thrown) {
      bounds.signal?.throwIfAborted();
      const error = toError(thrown);
      const delay = retryDelay(error, number, repeatable, retry);
      if (delay === null) throw error;
      if (bounds.deadline !== undefined && performance.now() + delay >= bounds.deadline) throw error;
      await sleep(delay, bounds.signal);
    }
  }
}
