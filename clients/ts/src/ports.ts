import type { Inside } from "./core/inside.js";
import { toExposedPort } from "./core/inside.js";
import type { CallOptions } from "./options.js";
import { type LocalPort, listen } from "./platform/node.js";
import type { ExposedPort } from "./types.js";

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
   * One connection to a port: yields its bytes, and takes those of `input`. Needs a transport that can stream requests.
   *
   * @throws {@link ResourceStateError} with the reason `PORT_REFUSED` when nothing listens there.
   */
  async *connect(
    port: number,
    input: AsyncIterable<Uint8Array>,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const target = { sandboxId: this.#sandboxId, port };
    async function* requests() {
      yield { part: { case: "target" as const, value: target } };
      for await (const data of input) yield { part: { case: "data" as const, value: data } };
    }
    const answers = this.#inside.stream((to) => this.#inside.ports.openTunnel(requests(), to), options.signal);
    for await (const { part } of answers) if (part.case === "data") yield part.value;
  }

  /** A listener on this machine's loopback address whose connections lead to the port. Node only. */
  async tunnel(remotePort: number, options: { readonly localPort?: number } = {}): Promise<Tunnel> {
    const local = await listen(options.localPort ?? 0, (input, signal) => this.connect(remotePort, input, { signal }));
    return new Tunnel(remotePort, local);
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
