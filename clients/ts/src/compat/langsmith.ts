/**
 * The names of `langsmith/experimental/sandbox` (langsmith 0.5 on npm): `sandpool/compat/langsmith`.
 *
 * Code that was written for that module runs with another import. The classes wrap those of sandpool, which `core`
 * returns. Durations are seconds, as in that module.
 *
 * @packageDocumentation
 */
import * as core from "../index.js";
import { cpus, mebibytes } from "./quantities.js";
import { type CommandOptions, either, ms, runCommand, startCommand } from "./shared.js";

export * from "../index.js";
export {
  AuthenticationError as SandboxAuthenticationError,
  PortExposureDisabledError as TunnelPortNotAllowedError,
  ResourceAlreadyExistsError as ResourceNameConflictError,
} from "../index.js";

/** How long a creation may take, in seconds. */
const CREATE_SECS = 30;
/** How long `waitForSandbox` waits, in seconds. */
const WAIT_SECS = 120;

/** The options of a client. */
export interface SandboxClientOptions {
  /** The address of the server. Default: the environment variable SANDPOOL_ADDRESS, otherwise 127.0.0.1:50051. */
  readonly apiEndpoint?: string | undefined;
  /** Another name of `apiEndpoint`. */
  readonly address?: string | undefined;
  /** The API key. Default: the environment variable SANDPOOL_API_KEY. */
  readonly apiKey?: string | undefined;
  /** The time limit of a request in milliseconds. Default: 30,000. */
  readonly timeoutMs?: number | undefined;
  /** The number of retries while the server does not respond. Default: 4. */
  readonly maxRetries?: number | undefined;
}

/** A template to create. */
export interface CreateTemplateOptions extends Omit<core.CreateTemplateOptions, "timeoutMs"> {
  /** CPUs: a number, or for example `"500m"`. */
  readonly cpu?: string | number | undefined;
  /** Memory, for example `"512Mi"`. */
  readonly memory?: string | undefined;
  /** Disk space, for example `"2Gi"`. */
  readonly storage?: string | undefined;
}

/** Changes of a template. */
export type UpdateTemplateOptions = core.SpecChanges & { readonly newName?: string | undefined };

/** A pool to create. */
export interface CreatePoolOptions {
  /** The name of the template. */
  readonly templateName: string;
  /** The number of warm containers. */
  readonly size?: number | undefined;
  /** Another name of `size`. */
  readonly replicas?: number | undefined;
}

/** Changes of a pool. */
export interface UpdatePoolOptions {
  readonly newName?: string | undefined;
  /** The number of warm containers. */
  readonly size?: number | undefined;
  /** Another name of `size`. */
  readonly replicas?: number | undefined;
}

/** A sandbox to create. */
export interface CreateSandboxOptions {
  /** The name. Default: a generated one. */
  readonly name?: string | undefined;
  /** How long to wait for the sandbox, in seconds. Default: 30. */
  readonly timeout?: number | undefined;
}

/** How to wait for a sandbox. */
export interface WaitOptions {
  /** The time limit in seconds. Default: 120. */
  readonly timeout?: number | undefined;
  /** Accepted and not needed: the server reports the change. */
  readonly pollInterval?: number | undefined;
  /** Ends the wait when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** The options of `run`. */
export interface RunOptions extends CommandOptions {
  /** Whether to wait for the exit. False returns a {@link CommandHandle}. Default: true. */
  readonly wait?: boolean | undefined;
}

/** A piece of output. */
export interface OutputChunk extends core.OutputChunk {
  /** The output as bytes. */
  readonly bytes: Uint8Array;
}

/** A pool, with the other names of its size. */
export interface Pool extends core.Pool {
  /** The number of warm containers. */
  readonly size: number;
  /** The number of warm containers. */
  readonly replicas: number;
}

function toPool(pool: core.Pool): Pool {
  const size = pool.warmContainers ?? 0;
  return { ...pool, size, replicas: size };
}

function generatedName(): string {
  return `sandbox-${crypto.randomUUID().slice(0, 8)}`;
}

/** The client. */
export class SandboxClient {
  /** The client of sandpool. */
  readonly core: core.SandboxClient;

  constructor(options: SandboxClientOptions = {}) {
    const { apiEndpoint, address, apiKey, timeoutMs, maxRetries } = options;
    this.core = new core.SandboxClient({
      address: either("apiEndpoint", apiEndpoint, "address", address),
      apiKey,
      requestTimeoutMs: timeoutMs,
      retry: maxRetries === undefined ? undefined : { maxAttempts: maxRetries + 1 },
    });
  }

  /** Closes the connection. */
  close(): void {
    this.core.close();
  }

  /** Closes the client at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Creates a template. */
  createTemplate(name: string, template: CreateTemplateOptions): Promise<core.Template> {
    const { cpu, memory, storage, ...options } = template;
    return this.core.createTemplate(name, {
      ...options,
      cpus: either("cpus", options.cpus, "cpu", cpus(cpu)),
      memoryMb: either("memoryMb", options.memoryMb, "memory", mebibytes("memory", memory)),
      ephemeralDiskMb: either("ephemeralDiskMb", options.ephemeralDiskMb, "storage", mebibytes("storage", storage)),
    });
  }

  /** Returns a template. */
  getTemplate(name: string): Promise<core.Template> {
    return this.core.getTemplate(name);
  }

  /** Returns all templates. */
  listTemplates(): Promise<core.Template[]> {
    return this.core.listTemplates().toArray();
  }

  /** Changes the name or the specification of a template. */
  updateTemplate(name: string, { newName, ...changes }: UpdateTemplateOptions): Promise<core.Template> {
    return this.core.updateTemplate(name, { ...changes, name: newName });
  }

  /** Deletes a template. */
  deleteTemplate(name: string): Promise<void> {
    return this.core.deleteTemplate(name);
  }

  /** Creates a pool. The call does not wait until the pool is full. */
  async createPool(name: string, { templateName, size, replicas }: CreatePoolOptions): Promise<Pool> {
    const warmContainers = either("size", size, "replicas", replicas);
    return toPool(await this.core.createPool(name, { templateName, warmContainers }));
  }

  /** Returns a pool. */
  async getPool(name: string): Promise<Pool> {
    return toPool(await this.core.getPool(name));
  }

  /** Returns all pools. */
  async listPools(): Promise<Pool[]> {
    return (await this.core.listPools().toArray()).map(toPool);
  }

  /** Changes the name or the size of a pool. */
  async updatePool(name: string, { newName, size, replicas }: UpdatePoolOptions): Promise<Pool> {
    const warmContainers = either("size", size, "replicas", replicas);
    return toPool(await this.core.updatePool(name, { name: newName, warmContainers }));
  }

  /** Deletes a pool. */
  deletePool(name: string): Promise<void> {
    return this.core.deletePool(name);
  }

  /** Creates a sandbox of a template: from a pool that uses it, otherwise started cold. It always has a name. */
  async createSandbox(templateName: string, options: CreateSandboxOptions = {}): Promise<Sandbox> {
    const { name = generatedName(), timeout = CREATE_SECS } = options;
    return new Sandbox(await this.core.create({ templateName, name, requestTimeoutMs: ms(timeout) }));
  }

  /** Returns a sandbox. */
  async getSandbox(name: string): Promise<Sandbox> {
    return new Sandbox(await this.core.getSandbox(name));
  }

  /** Returns all sandboxes that are not terminated. */
  async listSandboxes(): Promise<Sandbox[]> {
    return (await this.core.listSandboxes().toArray()).map((sandbox) => new Sandbox(sandbox));
  }

  /** Changes the name of a sandbox. */
  async updateSandbox(name: string, newName: string): Promise<Sandbox> {
    return new Sandbox(await this.core.updateSandbox(name, { name: newName }));
  }

  /** Terminates a sandbox. */
  deleteSandbox(name: string): Promise<void> {
    return this.core.deleteSandbox(name);
  }

  /** Returns the state of a sandbox. */
  async getSandboxStatus(name: string): Promise<core.SandboxState> {
    return (await this.core.getSandbox(name)).state;
  }

  /**
   * Waits until a sandbox runs commands, and returns it.
   *
   * @throws {@link core.SandboxNotReadyError} when it terminates, {@link core.ResourceTimeoutError} after `timeout`.
   */
  async waitForSandbox(name: string, { timeout = WAIT_SECS, signal }: WaitOptions = {}): Promise<Sandbox> {
    for await (const { state } of this.core.watchSandbox(name, { timeoutMs: ms(timeout), signal })) {
      if (state === "running") return this.getSandbox(name);
      if (state !== "starting") break;
    }
    throw new core.SandboxNotReadyError(`sandbox ${name} is not starting; create another one`, {
      code: "FAILED_PRECONDITION",
      reason: "SANDBOX_TERMINATED",
      resourceType: "sandbox",
      resourceName: name,
    });
  }
}

/** A sandbox. At the end of an `await using` block it is deleted if this client created it. */
export class Sandbox {
  /** The sandbox of sandpool. */
  readonly core: core.Sandbox;

  /** @internal Sandboxes come from a {@link SandboxClient}. */
  constructor(sandbox: core.Sandbox) {
    this.core = sandbox;
  }

  /** The name; the identifier for a sandbox that was created without one. */
  get name(): string {
    return this.core.name ?? this.core.sandboxId;
  }

  /** The identifier. */
  get sandboxId(): string {
    return this.core.sandboxId;
  }

  /** The state at the time of the last response. */
  get state(): core.SandboxState {
    return this.core.state;
  }

  /** The name of the template, or null. */
  get templateName(): string | null {
    return this.core.info.templateName;
  }

  /**
   * Runs a command and returns its result when it has exited; with `wait: false` returns a handle at once. The command
   * survives a broken connection.
   */
  run(command: string | readonly string[], options: RunOptions & { readonly wait: false }): Promise<CommandHandle>;
  run(
    command: string | readonly string[],
    options?: RunOptions & { readonly wait?: true | undefined },
  ): Promise<core.CommandResult>;
  async run(
    command: string | readonly string[],
    options: RunOptions = {},
  ): Promise<CommandHandle | core.CommandResult> {
    if (options.wait !== false) return runCommand(this.core, command, options);
    return new CommandHandle(this.core, await startCommand(this.core, command, options, false));
  }

  /** Returns a handle of a command that was started before, from the given offsets of its output on. */
  async reconnect(commandId: string, offsets: core.OutputOffsets = {}): Promise<CommandHandle> {
    return new CommandHandle(this.core, await this.core.processes.attach(commandId, offsets));
  }

  /** Writes a file. */
  async write(path: string, content: string | Uint8Array): Promise<void> {
    await this.core.files.write(path, content);
  }

  /** Reads a file. */
  read(path: string): Promise<Uint8Array> {
    return this.core.files.read(path);
  }

  /** Forwards a port of this machine to a port of the sandbox. Node only. */
  tunnel(remotePort: number, options: { readonly localPort?: number | undefined } = {}): Promise<core.Tunnel> {
    return this.core.ports.tunnel(remotePort, options);
  }

  /** Terminates the sandbox. */
  delete(): Promise<void> {
    return this.core.delete();
  }

  /** Deletes the sandbox at the end of an `await using` block if this client created it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.core[Symbol.asyncDispose]();
  }
}

/** A command that is running. Iterate over it for its output, or await `result`. */
export class CommandHandle implements AsyncIterable<OutputChunk> {
  readonly #sandbox: core.Sandbox;
  #result: Promise<core.CommandResult> | undefined;

  /** The process of sandpool. */
  readonly core: core.Process;

  /** @internal Handles come from a {@link Sandbox}. */
  constructor(sandbox: core.Sandbox, process: core.Process) {
    this.#sandbox = sandbox;
    this.core = process;
  }

  /** The identifier of the command. */
  get commandId(): string {
    return this.core.processId;
  }

  /** The identifier of the sandbox. */
  get sandboxId(): string {
    return this.core.sandboxId;
  }

  /** The PID in the sandbox, or null. */
  get pid(): number | null {
    return this.core.pid;
  }

  /** The offsets after the last received bytes, for {@link Sandbox.reconnect}. */
  get offsets(): { readonly stdoutOffset: number; readonly stderrOffset: number } {
    return { stdoutOffset: this.core.stdoutOffset, stderrOffset: this.core.stderrOffset };
  }

  /** Yields the output as it arrives. */
  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk, void, undefined> {
    for await (const chunk of this.core) yield { ...chunk, bytes: chunk.dataBytes };
  }

  /** Resolves to the result when the command has exited. */
  get result(): Promise<core.CommandResult> {
    this.#result ??= this.core.wait();
    return this.#result;
  }

  /** Waits for the result; the listeners are called with the output as it arrives. */
  wait(listeners: core.OutputListeners = {}): Promise<core.CommandResult> {
    return this.core.wait(listeners);
  }

  /** Kills the command with all its descendants. */
  kill(): Promise<void> {
    return this.core.kill();
  }

  /** Writes to standard input. */
  sendInput(data: string | Uint8Array): Promise<void> {
    return this.core.writeStdin(data);
  }

  /** Closes standard input. */
  closeInput(): Promise<void> {
    return this.core.closeStdin();
  }

  /** Sends a signal. */
  sendSignal(signal: number, options: { readonly tree?: boolean | undefined } = {}): Promise<void> {
    return this.core.signal(signal, options);
  }

  /** Changes the size of the terminal. */
  resize({ rows, cols }: core.TerminalSize): Promise<void> {
    return this.core.resize(rows, cols);
  }

  /** Returns another handle of the command, which continues where this one is. */
  async reconnect(): Promise<CommandHandle> {
    return new CommandHandle(this.#sandbox, await this.#sandbox.processes.attach(this.commandId, this.offsets));
  }
}
