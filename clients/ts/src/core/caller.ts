/** One place through which every call goes: headers, deadlines, repetition, errors. */
import type { CallOptions, Transport } from "@connectrpc/connect";
import { ClientClosedError, invalid, type SandpoolError, toSandpoolError } from "./errors.js";
import { type Repeatable, type RetryPolicy, retryDelay, sleep, withRetries } from "./retry.js";

/** A transport, and what belongs to it. */
export interface Connection {
  readonly transport: Transport;
  /** Whether a call can stream its requests while it is answered, as it can over HTTP/2 but not out of a page. */
  readonly duplex: boolean;
  /** Names the server in error messages. */
  readonly target: string;
  /** Ends the connection and every call on it. */
  readonly close: () => void;
}

/** What bounds one call. */
export interface CallBounds {
  /** How long the call may take in milliseconds, repetitions included; undefined for no limit. */
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/** gRPC writes a deadline with at most eight digits. */
const LONGEST_TIMEOUT_MS = 99_999_999;

/** How many times as often as a call a stream is tried again. */
const PATIENCE = 5;

/** Makes calls over one connection. */
export class Caller {
  readonly #connection: Connection;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #retry: RetryPolicy;
  #closed = false;

  constructor(connection: Connection, headers: Readonly<Record<string, string>>, retry: RetryPolicy) {
    this.#connection = connection;
    this.#headers = headers;
    this.#retry = retry;
  }

  /**
   * Makes a call with one answer, or rejects with an error of this package. `invoke` hands the options to the method of
   * a generated client.
   */
  async unary<T>(
    invoke: (options: CallOptions) => Promise<T>,
    repeatable: Repeatable,
    { timeoutMs, signal }: CallBounds,
  ): Promise<T> {
    if (timeoutMs !== undefined && !(timeoutMs > 0)) {
      throw invalid("timeoutMs", `must be more than 0, not ${timeoutMs}`);
    }
    const deadline = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
    const attempt = (remainingMs: number | undefined) => {
      this.#refuseWhenClosed();
      return invoke(this.#options(signal, remainingMs));
    };
    return withRetries(attempt, (thrown) => this.#toError(thrown), repeatable, this.#retry, { deadline, signal });
  }

  /**
   * Makes a call with a stream of answers, by default without a deadline. It is opened again while nothing has arrived; a stream that
   * breaks later ends with an error, because what happened in the gap would be missing. Leaving the loop cancels it.
   */
  async *stream<T>(
    invoke: (options: CallOptions) => AsyncIterable<T>,
    signal: AbortSignal | undefined,
    timeoutMs?: number,
  ): AsyncGenerator<T, void, undefined> {
    const cancel = new AbortController();
    const onAbort = () => cancel.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      for (let retry = 0; ; retry++) {
        signal?.throwIfAborted();
        this.#refuseWhenClosed();
        let arrived = false;
        try {
          for await (const message of invoke(this.#options(cancel.signal, timeoutMs))) {
            arrived = true;
            yield message;
          }
          return;
        } catch (thrown) {
          signal?.throwIfAborted();
          const error = this.#toError(thrown);
          const delay = arrived ? null : retryDelay(error, retry, "safe", this.#retry);
          if (delay === null) throw error;
          await sleep(delay, signal);
        }
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
      cancel.abort();
    }
  }

  /**
   * The messages of streams that are opened one after the other: the next where one broke, until one ends by itself.
   * `open` says how to go on; it is given whether something has arrived before.
   */
  async *follow<T>(
    open: (again: boolean) => AsyncIterable<T>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, undefined> {
    let again = false;
    for (let retry = 0; ; ) {
      try {
        for await (const message of open(again)) {
          again = true;
          retry = 0;
          yield message;
        }
        return;
      } catch (error) {
        const delay = retryDelay(error as SandpoolError, retry, "safe", this.patient);
        if (delay === null) throw error;
        retry += 1;
        await sleep(delay, signal);
      }
    }
  }

  /** How often a stream that broke is opened again without progress: a server that starts anew needs longer than a call. */
  get patient(): RetryPolicy {
    return { ...this.#retry, maxRetries: this.#retry.maxRetries * PATIENCE };
  }

  /** Whether a call can stream its requests while it is answered. */
  get duplex(): boolean {
    return this.#connection.duplex;
  }

  /** Ends the connection; calls under way and calls made later fail with `ClientClosedError`. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }

  #options(signal: AbortSignal | undefined, remainingMs: number | undefined): CallOptions {
    const options: CallOptions = { headers: { ...this.#headers } };
    if (signal !== undefined) options.signal = signal;
    if (remainingMs !== undefined) options.timeoutMs = Math.min(Math.ceil(remainingMs), LONGEST_TIMEOUT_MS);
    return options;
  }

  #toError(thrown: unknown): SandpoolError {
    return this.#closed ? closedError(thrown) : toSandpoolError(thrown, this.#connection.target);
  }

  #refuseWhenClosed(): void {
    if (this.#closed) throw closedError(undefined);
  }
}

function closedError(cause: unknown): ClientClosedError {
  return new ClientClosedError("the client is closed; make a new SandboxClient", { code: "canceled", cause });
}
