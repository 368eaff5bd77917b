/** The services that act inside sandboxes, and the calls to them. */
import { type CallOptions as ConnectOptions, type Client, createClient, type Transport } from "@connectrpc/connect";
import { FileService } from "../gen/sandpool/v1/file_service_pb.js";
import { MonitorService } from "../gen/sandpool/v1/monitor_service_pb.js";
import { PortService } from "../gen/sandpool/v1/port_service_pb.js";
import { ProcessService } from "../gen/sandpool/v1/process_service_pb.js";
import type { CallOptions } from "../options.js";
import type { Caller } from "./caller.js";
import type { Repeatable, Retry } from "./retry.js";

/** The services that act inside sandboxes. */
export class SandboxIo {
  readonly processes: Client<typeof ProcessService>;
  readonly files: Client<typeof FileService>;
  readonly ports: Client<typeof PortService>;
  readonly monitor: Client<typeof MonitorService>;
  readonly #caller: Caller;

  constructor(caller: Caller, transport: Transport) {
    this.#caller = caller;
    this.processes = createClient(ProcessService, transport);
    this.files = createClient(FileService, transport);
    this.ports = createClient(PortService, transport);
    this.monitor = createClient(MonitorService, transport);
  }

  /** Whether a call can stream requests and responses at the same time. */
  get duplex(): boolean {
    return this.#caller.duplex;
  }

  /** The retry policy. */
  get retry(): Retry {
    return this.#caller.retry;
  }

  /** Makes a call that may be repeated. */
  safe<T>(invoke: (to: ConnectOptions) => Promise<T>, call?: CallOptions): Promise<T> {
    return this.#caller.safe(invoke, call);
  }

  /** Makes a call that must not run twice. */
  once<T>(invoke: (to: ConnectOptions) => Promise<T>, call: CallOptions = {}): Promise<T> {
    return this.#caller.unary(invoke, "unsent", this.#caller.bounds(call));
  }

  /** Makes a call without a default time limit. */
  long<T>(invoke: (to: ConnectOptions) => Promise<T>, repeatable: Repeatable, call: CallOptions = {}): Promise<T> {
    const { signal, requestTimeoutMs } = call;
    return this.#caller.unary(invoke, repeatable, { signal, timeoutMs: requestTimeoutMs ?? undefined });
  }

  /** Makes one call with a stream of responses, without a default time limit. */
  stream<T>(
    invoke: (to: ConnectOptions) => AsyncIterable<T>,
    { signal, requestTimeoutMs }: CallOptions = {},
  ): AsyncGenerator<T, void, undefined> {
    return this.#caller.stream(invoke, { signal, timeoutMs: requestTimeoutMs ?? undefined });
  }

  /** Yields the messages of streams that are opened one after the other, see {@link Caller.resumed}. */
  resumed<T>(open: (again: boolean) => AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T, void, undefined> {
    return this.#caller.resumed(open, signal);
  }
}

/** How the parts of a sandbox's handle reach the sandbox. */
export interface SandboxAccess {
  /** The identifier of the sandbox. */
  readonly sandboxId: string;
  /** The services. Throws `ClientClosedError` when the handle is closed. */
  readonly io: SandboxIo;
}
