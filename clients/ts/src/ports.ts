import { integer } from "./core/arguments.js";
import { pieces } from "./core/bytes.js";
import { toExposedPort } from "./core/convert-io.js";
import { SandboxConnectionError, SandpoolError, TunnelConnectionRefusedError } from "./core/errors.js";
import { PagedList } from "./core/pages.js";
import { retryDelay, sleep } from "./core/retry.js";
import type { SandboxAccess } from "./core/sandbox-io.js";
import { duration } from "./core/time.js";
import type { CallOptions } from "./options.js";
import { type LocalPort, listen } from "./platform/node.js";
import type { ConnectOptions, TunnelOptions } from "./sandbox-options.js";
import type { ExposedPort } from "./sandbox-types.js";

/** The largest part of the data in one request. */
const PART_BYTES = 1 << 20;

/** The ports of a sandbox. */
export class Ports {
  readonly #access: SandboxAccess;

  /** @internal */
  constructor(access: SandboxAccess) {
    this.#access = access;
  }

  /**
   * Exposes a port by HTTP, including WebSockets, under a separate host name, until `unexpose` is called or the sandbox
   * terminates. Every client that knows the URL can use it.
   *
   * @throws {@link PortExposureDisabledError} when the server has no web port.
   */
  async expose(port: number, call?: CallOptions): Promise<ExposedPort> {
    const { io, sandboxId } = this.#access;
    const request = { sandboxId, port: integer("port", port) };
    return toExposedPort((await io.safe((to) => io.ports.exposePort(request, to), call)).exposedPort);
  }

  /** Stops exposing a port and closes its connections. A port that is not exposed is not an error. */
  async unexpose(port: number, call?: CallOptions): Promise<void> {
    const { io, sandboxId } = this.#access;
    const request = { sandboxId, port: integer("port", port) };
    await io.safe((to) => io.ports.unexposePort(request, to), call);
  }

  /** Lists the exposed ports by number. */
  list(call?: CallOptions): PagedList<ExposedPort> {
    const access = this.#access;
    return new PagedList(async function* () {
      const { io, sandboxId } = access;
      const response = await io.safe((to) => io.ports.listExposedPorts({ sandboxId }, to), call);
      yield* response.exposedPorts.map(toExposedPort);
    });
  }

  /**
   * Opens one connection to a port. Needs a transport that can stream requests, as that of Node can.
   *
   * @throws {@link TunnelConnectionRefusedError} when no process listens on the port.
   */
  async connect(port: number, options: ConnectOptions = {}): Promise<PortConnection> {
    const outgoing = new Outgoing();
    const closed = new AbortController();
    const incoming = this.#open(port, outgoing, closed.signal, options, false);
    await incoming.next(); // the first response confirms that the connection is open
    return new PortConnection(incoming, outgoing, closed);
  }

  /**
   * Listens on a port of this machine and forwards its connections to a port of the sandbox. A connection that cannot be
   * opened is closed; `lastError` of the tunnel contains the cause. Node only.
   */
  async tunnel(remotePort: number, options: TunnelOptions = {}): Promise<Tunnel> {
    const { localHost = "127.0.0.1", localPort = 0 } = options;
    integer("remotePort", remotePort);
    const failures: SandpoolError[] = [];
    const forward = (input: AsyncIterable<Uint8Array>, signal: AbortSignal) =>
      this.#forward(remotePort, input, signal, options, failures);
    return new Tunnel(remotePort, localHost, await listen(localHost, localPort, forward), failures);
  }

  async *#forward(
    port: number,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    options: ConnectOptions,
    failures: SandpoolError[],
  ): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const data of this.#open(port, input, signal, options, true)) if (data !== null) yield data;
    } catch (error) {
      if (error instanceof SandpoolError) failures.splice(0, 1, error);
      throw error;
    }
  }

  /**
   * Yields null when the connection is open, and then its bytes. With `retry` it tries again while the server or the port
   * does not respond.
   */
  async *#open(
    port: number,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    { connectTimeoutMs }: ConnectOptions,
    retry: boolean,
  ): AsyncGenerator<Uint8Array | null, void, undefined> {
    const { io, sandboxId } = this.#access;
    const connectTimeout = duration("connectTimeoutMs", connectTimeoutMs);
    const target = { sandboxId, port: integer("port", port), connectTimeout };
    for (let attempt = 1; ; attempt++) {
      const opened = new Gate();
      try {
        const invoke = (to: object) => io.ports.openTunnel(requests(target, input, opened), to);
        for await (const { part } of io.stream(invoke, { signal })) {
          if (part.case === "opened") {
            opened.settle(true);
            yield null;
          } else if (part.case === "data") yield part.value;
        }
        return;
      } catch (error) {
        const failure = error as SandpoolError;
        const delay = retry && !opened.value ? retryDelay(failure, attempt, "safe", io.retry) : null;
        if (delay === null) throw error instanceof TunnelConnectionRefusedError ? error.about(port) : error;
        await sleep(delay, signal);
      } finally {
        opened.settle(false);
      }
    }
  }
}

/** The requests of a connection: its input is sent when the connection is open, so that an attempt can be repeated. */
async function* requests(
  target: { readonly sandboxId: string; readonly port: number; readonly connectTimeout: ReturnType<typeof duration> },
  input: AsyncIterable<Uint8Array>,
  opened: Gate,
) {
  yield { part: { case: "target" as const, value: target } };
  if (!(await opened.settled)) return;
  for await (const data of input) {
    for (const value of pieces(data, PART_BYTES)) yield { part: { case: "data" as const, value } };
  }
}

/** A promise of a boolean, and its value once it is settled. */
class Gate {
  #resolve: (value: boolean) => void = () => undefined;
  readonly settled = new Promise<boolean>((resolve) => {
    this.#resolve = resolve;
  });
  value = false;

  settle(value: boolean): void {
    this.value ||= value;
    this.#resolve(value);
  }
}

/** One connection to a port of a sandbox. Iterate over it for the received bytes, or call {@link PortConnection.receive}. */
export class PortConnection implements AsyncIterable<Uint8Array> {
  readonly #incoming: AsyncGenerator<Uint8Array | null, void, undefined>;
  readonly #outgoing: Outgoing;
  readonly #closed: AbortController;

  /** @internal */
  constructor(incoming: AsyncGenerator<Uint8Array | null, void, undefined>, outgoing: Outgoing, closed: AbortController) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
    this.#closed = closed;
  }

  /** Sends bytes. Returns when the connection has accepted them. */
  send(data: Uint8Array): Promise<void> {
    return this.#outgoing.put(data);
  }

  /** Closes the direction of sending. The other direction stays open. */
  end(): void {
    this.#outgoing.end();
  }

  /** Returns the next bytes; empty at the end. */
  async receive(): Promise<Uint8Array> {
    try {
      const { value, done } = await this.#incoming.next();
      if (done) this.#outgoing.stop();
      return value ?? new Uint8Array();
    } catch (error) {
      this.#outgoing.stop();
      throw error;
    }
  }

  /** Yields the received bytes until the end. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let data = await this.receive(); data.length > 0; data = await this.receive()) yield data;
  }

  /** Closes both directions. */
  async close(): Promise<void> {
    this.#outgoing.stop();
    this.#closed.abort(new DOMException("the connection is closed", "AbortError"));
    await this.#incoming.return();
  }

  /** Closes the connection at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Data to send, in the order in which it was passed; the transport takes it when it can. */
class Outgoing implements AsyncIterable<Uint8Array> {
  readonly #waiting: { readonly data: Uint8Array; readonly taken: () => void; readonly lost: (why: Error) => void }[] = [];
  #wake: () => void = () => undefined;
  #ended = false;

  put(data: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(new SandboxConnectionError("the connection is closed for sending"));
    return new Promise<void>((taken, lost) => {
      this.#waiting.push({ data, taken, lost });
      this.#wake();
    });
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Ends the connection: data that was not sent is lost. */
  stop(): void {
    this.end();
    const why = new SandboxConnectionError("the connection ended before the data was sent");
    for (const { lost } of this.#waiting.splice(0)) lost(why);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
          yield next.data;
          next.taken(); // the transport asks for more
          this.#waiting.shift();
        }
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.stop();
    }
  }
}

/** A listener on this machine that forwards its connections to a port of a sandbox. */
export class Tunnel {
  readonly #local: LocalPort;
  readonly #failures: readonly SandpoolError[];
  /** The port in the sandbox. */
  readonly remotePort: number;
  /** The address on this machine. */
  readonly localHost: string;
  /** The port on this machine. */
  readonly localPort: number;

  /** @internal */
  constructor(remotePort: number, localHost: string, local: LocalPort, failures: readonly SandpoolError[]) {
    this.remotePort = remotePort;
    this.localHost = localHost;
    this.localPort = local.port;
    this.#local = local;
    this.#failures = failures;
  }

  /** The error that closed the most recent failed connection, or null. */
  get lastError(): SandpoolError | null {
    return this.#failures[0] ?? null;
  }

  /** Closes the listener and its connections. */
  close(): Promise<void> {
    return this.#local.close();
  }

  /** Closes the tunnel at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
