/** Makes all calls: adds headers and deadlines, repeats, resumes, and converts errors. */
import type { CallOptions as ConnectOptions, Transport } from "@connectrpc/connect";
import type { CallOptions } from "../options.js";
import { ClientClosedError, type SandpoolError, toSandpoolError } from "./errors.js";
import { type Repeatable, Resumption, type Retry, sleep, withRetries } from "./retry.js";

/** A transport and its connection. */
export interface Connection {
  readonly transport: Transport;
  /** Whether a call can stream requests and responses at the same time: over HTTP/2, but not from a page. */
  readonly duplex: boolean;
  /** The server's name in error messages. */
  readonly target: string;
  /** Ends the connection and every call on it. */
  readonly close: () => void;
}

/** The limits of one call. */
export interface CallBounds {
  /** The time limit in milliseconds, including retries; undefined for none. */
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal | undefined;
}

/** gRPC writes a deadline with at most eight digits. */
const LONGEST_TIMEOUT_MS = 99_999_999;

/** Makes calls over one connection. */
export class Caller {
  readonly #connection: Connection;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #requestTimeoutMs: number | null;
  #closed = false;

  /** The retry policy. */
  readonly retry: Retry;

  constructor(
    connection: Connection,
    headers: Readonly<Record<string, string>>,
    requestTimeoutMs: number | null,
    retry: Retry,
  ) {
    checkTimeout("requestTimeoutMs", requestTimeoutMs);
    this.#connection = connection;
    this.#headers = headers;
    this.#requestTimeoutMs = requestTimeoutMs;
    this.retry = retry;
  }

  /** Whether a call can stream requests and responses at the same time. */
  get duplex(): boolean {
    return this.#connection.duplex;
  }

  /** Makes a call that may be repeated. `leastMs` is the least limit when the caller gives none. */
  safe<T>(invoke: (to: ConnectOptions) => Promise<T>, call: CallOptions = {}, leastMs = 0): Promise<T> {
    return this.unary(invoke, "safe", this.bounds(call, leastMs));
  }

  /** Returns the limits of a call: the caller's, otherwise the client's, but at least `leastMs`. */
  bounds(call: CallOptions, leastMs = 0): CallBounds {
    const { requestTimeoutMs, signal } = call;
    if (requestTimeoutMs !== undefined) return { timeoutMs: requestTimeoutMs ?? undefined, signal };
    const usual = this.#requestTimeoutMs;
    return { timeoutMs: usual === null ? undefined : Math.max(usual, leastMs), signal };
  }

  /**
   * Makes a call with one response, or rejects with an error of this package. `invoke` passes the options to the method
   * of a generated client.
   */
  async unary<T>(
    invoke: (to: ConnectOptions) => Promise<T>,
    repeatable: Repeatable,
    { timeoutMs, signal }: CallBounds,
  ): Promise<T> {
    checkTimeout("requestTimeoutMs", timeoutMs);
    const deadline = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
    const attempt = (remainingMs: number | undefined) => {
      this.#checkOpen();
      return invoke(this.#options(signal, remainingMs));
    };
    const once = repeatable === "unsent";
    return withRetries(attempt, (thrown) => this.#toError(thrown, once), repeatable, this.retry, { deadline, signal });
  }

  /** Makes one call with a stream of responses. Leaving the loop cancels it. */
  async *stream<T>(
    invoke: (to: ConnectOptions) => AsyncIterable<T>,
    { timeoutMs, signal }: CallBounds,
  ): AsyncGenerator<T, void, undefined> {
    checkTimeout("requestTimeoutMs", timeoutMs);
    const cancel = new AbortController();
    const onAbort = () => cancel.abort(signal?.reason);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", onAbort, { once: true });
    let responses: AsyncIterator<T> | undefined;
    try {
      this.#checkOpen();
      responses = invoke(this.#options(cancel.signal, timeoutMs))[Symbol.asyncIterator]();
      for (let next = await responses.next(); next.done !== true; next = await responses.next()) yield next.value;
    } catch (thrown) {
      signal?.throwIfAborted();
      throw this.#toError(thrown, false);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      cancel.abort();
      // The transport closes a cancelled call that streams in both directions only when its responses are read. Without
      // this read the call would keep the process running.
      responses?.next().catch(() => undefined);
    }
  }

  /**
   * Yields the messages of streams that are opened one after the other: the next one when the connection breaks, until
   * one ends by itself. `open` is called with whether a message has arrived before.
   */
  async *resumed<T>(
    open: (again: boolean) => AsyncIterable<T>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, undefined> {
    const resumption = new Resumption(this.retry);
    let again = false;
    for (;;) {
      try {
        for await (const message of open(again)) {
          again = true;
          resumption.arrived();
          yield message;
        }
        return;
      } catch (error) {
        const delay = resumption.delay(error as SandpoolError);
        if (delay === null) throw error;
        await sleep(delay, signal);
      }
    }
  }

  /** Ends the connection; calls in progress and later calls fail with `ClientClosedError`. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }

  #options(signal: AbortSignal | undefined, remainingMs: number | undefined): ConnectOptions {
    const options: ConnectOptions = { headers: { ...this.#headers } };
    if (signal !== undefined) options.signal = signal;
    if (remainingMs !== undefined) options.timeoutMs = Math.min(Math.ceil(remainingMs), LONGEST_TIMEOUT_MS);
    return options;
  }

  #toError(thrown: unknown, once: boolean): SandpoolError {
    return this.#closed ? closedError(thrown) : toSandpoolError(thrown, { target: this.#connection.target, once });
  }

  #checkOpen(): void {
    if (this.#closed) throw closedError(undefined);
  }
}

/** Throws a RangeError for a time limit that is not positive. */
export function checkTimeout(name: string, timeoutMs: number | null | undefined): void {
  if (timeoutMs === undefined || timeoutMs === null || timeoutMs > 0) return;
  throw new RangeError(`${name} must be greater than 0, not ${timeoutMs}; null means no limit`);
}

function closedError(cause: unknown): ClientClosedError {
  return new ClientClosedError("the client is closed; create another SandboxClient", { cause });
}
