import { pieces } from "./core/bytes.js";
import { SandboxConnectionError, TunnelConnectionRefusedError } from "./core/errors.js";
import type { Inside } from "./core/inside.js";
import { toExposedPort } from "./core/inside.js";
import type { ExposedPort } from "./inside-types.js";
import type { CallOptions } from "./options.js";
import { type LocalPort, listen } from "./platform/node.js";

/** How much goes in one message. */
const LARGEST_PART = 1 << 20;

/** The ports of one sandbox. */
export class Ports {
  readonly #inside: Inside;
  readonly #sandboxId: string;

  /** @internal */
  constructor(inside: Inside, sandboxId: string) {
    this.#inside = inside;
    this.#sandboxId = sandboxId;
  }

  /** Serves a port by HTTP under a host name of its own, until it is taken back or the sandbox ends. */
  async expose(port: number, call?: CallOptions): Promise<ExposedPort> {
    const request = { sandboxId: this.#sandboxId, port };
    return toExposedPort((await this.#inside.safe((to) => this.#inside.ports.exposePort(request, to), call)).exposedPort);
  }

  /** Serves a port no longer. */
  async unexpose(port: number, call?: CallOptions): Promise<void> {
    const request = { sandboxId: this.#sandboxId, port };
    await this.#inside.safe((to) => this.#inside.ports.unexposePort(request, to), call);
  }

  /** The ports that are exposed, by number. */
  async list(call?: CallOptions): Promise<ExposedPort[]> {
    const request = { sandboxId: this.#sandboxId };
    const answer = await this.#inside.safe((to) => this.#inside.ports.listExposedPorts(request, to), call);
    return answer.exposedPorts.map(toExposedPort);
  }

  /**
   * Opens one connection to a port; resolves when it stands. Needs a transport that can stream requests, as Node's can.
   * `connectTimeout` is in seconds, 10 by default.
   *
   * @throws {@link TunnelConnectionRefusedError} when nothing listens there.
   */
  async connect(port: number, options: { readonly connectTimeout?: number } = {}): Promise<PortConnection> {
    const input = new Outgoing();
    const ended = new AbortController();
    const parts = this.#open(port, input, ended.signal, options.connectTimeout);
    await parts.next(); // resolves when the connection stands
    return new PortConnection(parts, input, ended);
  }

  /** A listener on this machine's loopback address whose connections lead to the port. Node only. */
  async tunnel(remotePort: number, options: { readonly localPort?: number } = {}): Promise<Tunnel> {
    const local = await listen(options.localPort ?? 0, (input, signal) => this.#carry(remotePort, input, signal));
    return new Tunnel(remotePort, local);
  }

  async *#carry(port: number, input: AsyncIterable<Uint8Array>, signal: AbortSignal) {
    for await (const data of this.#open(port, input, signal)) if (data !== null) yield data;
  }

  /** The connection's bytes; first null, when it stands. */
  async *#open(
    port: number,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
    connectTimeoutSecs?: number,
  ): AsyncGenerator<Uint8Array | null, void, undefined> {
    const target = { sandboxId: this.#sandboxId, port, connectTimeoutSecs };
    async function* requests() {
      yield { part: { case: "target" as const, value: target } };
      for await (const data of input) {
        for (const value of pieces(data, LARGEST_PART)) yield { part: { case: "data" as const, value } };
      }
    }
    try {
      for await (const { part } of this.#inside.stream((to) => this.#inside.ports.openTunnel(requests(), to), signal)) {
        if (part.case === "opened") yield null;
        else if (part.case === "data") yield part.value;
      }
    } catch (error) {
      throw error instanceof TunnelConnectionRefusedError ? error.about(port) : error;
    }
  }
}

/** One connection to a port inside a sandbox. */
export class PortConnection implements AsyncIterable<Uint8Array> {
  readonly #parts: AsyncGenerator<Uint8Array | null, void, undefined>;
  readonly #input: Outgoing;
  readonly #ended: AbortController;

  /** @internal */
  constructor(parts: AsyncGenerator<Uint8Array | null, void, undefined>, input: Outgoing, ended: AbortController) {
    this.#parts = parts;
    this.#input = input;
    this.#ended = ended;
  }

  /** Sends bytes; resolves when the connection has taken them. */
  send(data: Uint8Array): Promise<void> {
    return this.#input.put(data);
  }

  /** Says that nothing more is sent; the other direction goes on. */
  end(): void {
    this.#input.end();
  }

  /** The next bytes; none at the end. */
  async receive(): Promise<Uint8Array> {
    try {
      const { value, done } = await this.#parts.next();
      if (done) this.#input.stop();
      return value ?? new Uint8Array();
    } catch (error) {
      this.#input.stop();
      throw error;
    }
  }

  /** The bytes that come, until the end. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let data = await this.receive(); data.length > 0; data = await this.receive()) yield data;
  }

  /** Closes it in both directions. */
  async close(): Promise<void> {
    this.#input.stop();
    this.#ended.abort(new DOMException("the connection was closed", "AbortError"));
    await this.#parts.return();
  }

  /** Closes the connection at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** What is to be sent, in the order in which it was given; whoever sends takes it when it can. */
class Outgoing implements AsyncIterable<Uint8Array> {
  readonly #waiting: { readonly data: Uint8Array; readonly taken: () => void; readonly lost: (why: Error) => void }[] = [];
  #wake: () => void = () => undefined;
  #ended = false;

  put(data: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(new SandboxConnectionError("nothing more can be sent on this connection"));
    return new Promise<void>((taken, lost) => {
      this.#waiting.push({ data, taken, lost });
      this.#wake();
    });
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** The connection is no more: what waits is lost. */
  stop(): void {
    this.end();
    const why = new SandboxConnectionError("the connection ended before this was sent");
    for (const { lost } of this.#waiting.splice(0)) lost(why);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
          yield next.data;
          next.taken(); // the transport has come back for more
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

/** A local listener that leads to a port of a sandbox. */
export class Tunnel {
  readonly #local: LocalPort;
  /** The port in the sandbox. */
  readonly remotePort: number;
  /** The port on 127.0.0.1. */
  readonly localPort: number;

  /** @internal */
  constructor(remotePort: number, local: LocalPort) {
    this.remotePort = remotePort;
    this.localPort = local.port;
    this.#local = local;
  }

  /** Ends the listener and its connections. */
  close(): Promise<void> {
    return this.#local.close();
  }

  /** Closes the tunnel at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
