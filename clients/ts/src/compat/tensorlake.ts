/**
 * The names of the `tensorlake` sandbox SDK (0.5) in camel case: `sandpool/compat/tensorlake`.
 *
 * The classes wrap those of sandpool, which `core` returns. Durations are seconds, as in that SDK.
 *
 * @packageDocumentation
 */
import * as core from "../index.js";
import { type CommandOptions, commandOf, either, ms, runCommand } from "./shared.js";

export * from "../index.js";
export { SandboxNotReadyError as SandboxPending, ServerError as RemoteAPIError } from "../index.js";

/** The options of a client. */
export interface SandboxClientOptions {
  /** The address of the server. Default: the environment variable SANDPOOL_ADDRESS, otherwise 127.0.0.1:50051. */
  readonly apiUrl?: string | undefined;
  /** The API key. Default: the environment variable SANDPOOL_API_KEY. */
  readonly apiKey?: string | undefined;
  /** The time limit of a request in seconds. Default: 30. */
  readonly requestTimeout?: number | undefined;
}

/** The resources and the lifetime of a container. */
interface ContainerOptions {
  readonly cpus?: number | undefined;
  readonly memoryMb?: number | undefined;
  /** The writable disk space in MiB. */
  readonly diskMb?: number | undefined;
  /** Another name of `diskMb`. */
  readonly ephemeralDiskMb?: number | undefined;
  /** The lifetime of a sandbox in seconds; 0: no limit. */
  readonly timeoutSecs?: number | undefined;
  readonly entrypoint?: readonly string[] | undefined;
  readonly secretNames?: readonly string[] | undefined;
}

/** A sandbox to create: from an image or from a pool. */
export interface CreateOptions extends ContainerOptions {
  readonly image?: string | undefined;
  readonly poolId?: string | undefined;
  readonly name?: string | undefined;
}

/** A pool to create. */
export interface CreatePoolOptions extends ContainerOptions {
  readonly image: string;
  readonly maxContainers?: number | undefined;
  readonly warmContainers?: number | undefined;
}

/** Changes of a pool. */
export interface UpdatePoolOptions extends ContainerOptions {
  readonly image?: string | undefined;
  readonly maxContainers?: number | undefined;
  readonly warmContainers?: number | undefined;
}

/** The options of `run`. */
export type RunOptions = Pick<CommandOptions, "args" | "env" | "timeout" | "user" | "workingDir" | "signal">;

/** The options of a process. */
export interface StartProcessOptions {
  readonly args?: readonly string[] | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly workingDir?: string | undefined;
  /** Whether standard input accepts data (`pipe`) or is empty (`closed`, the default). */
  readonly stdinMode?: "closed" | "pipe" | undefined;
  readonly user?: string | undefined;
  /** Makes the process a service of this name. */
  readonly name?: string | undefined;
  readonly restart?: Exclude<core.RestartPolicy, "unknown"> | undefined;
  readonly healthCheck?: core.HealthCheck | undefined;
}

/** The options of a terminal. */
export interface PtyOptions extends PtyListeners {
  /** A shell command, or a program with its arguments. Default: an interactive shell. */
  readonly command?: string | readonly string[] | undefined;
  readonly args?: readonly string[] | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly workingDir?: string | undefined;
  readonly rows?: number | undefined;
  readonly cols?: number | undefined;
}

/** Called with the output of a terminal. */
export type OnData = (data: Uint8Array) => void;
/** Called with the exit code of a terminal's program, 128 plus the number of the signal when a signal ended it. */
export type OnExit = (code: number) => void;

/** Listeners of a terminal. */
export interface PtyListeners {
  readonly onData?: OnData | undefined;
  readonly onExit?: OnExit | undefined;
}

/** The contents of a directory. */
export interface DirectoryListing {
  readonly path: string;
  readonly entries: readonly core.FileInfo[];
}

/** Which log lines to read. */
export interface LogOptions {
  /** Only lines of these services, or of the `entrypoint`. */
  readonly processIds?: readonly string[] | undefined;
  /** The `nextToken` of an earlier call: only later lines. */
  readonly nextToken?: string | undefined;
  /** Only this number of the most recent lines. */
  readonly tail?: number | undefined;
}

/** The lines of a log. */
export interface SandboxLogs {
  readonly entries: readonly core.LogEntry[];
  /** Pass it to a later call to continue after these lines. */
  readonly nextToken: string;
}

/** Sandboxes of the pool are active. */
export class PoolInUseError extends core.PoolInUseError {
  /** The identifier of the pool. */
  readonly poolId: string;

  /** @internal */
  constructor(error: core.PoolInUseError) {
    const { code, reason, resourceType, resourceName, metadata } = error;
    super(error.message, {
      code: code ?? undefined,
      reason: reason ?? undefined,
      resourceType: resourceType ?? undefined,
      resourceName: resourceName ?? undefined,
      metadata,
      cause: error,
    });
    this.poolId = resourceName ?? "";
  }
}

function container(options: ContainerOptions) {
  const { cpus, memoryMb, entrypoint, secretNames, timeoutSecs } = options;
  const ephemeralDiskMb = either("diskMb", options.diskMb, "ephemeralDiskMb", options.ephemeralDiskMb);
  return { cpus, memoryMb, ephemeralDiskMb, entrypoint, secretNames, timeoutMs: ms(timeoutSecs) };
}

/** The client. */
export class SandboxClient {
  /** The client of sandpool. */
  readonly core: core.SandboxClient;

  constructor({ apiUrl, apiKey, requestTimeout }: SandboxClientOptions = {}) {
    this.core = new core.SandboxClient({ address: apiUrl, apiKey, requestTimeoutMs: ms(requestTimeout) });
  }

  /** Creates a client with an API key. */
  static forCloud(options: SandboxClientOptions = {}): SandboxClient {
    return new SandboxClient(options);
  }

  /** Creates a client of a server on this machine. */
  static forLocalhost(options: SandboxClientOptions = {}): SandboxClient {
    return new SandboxClient(options);
  }

  /** Closes the connection. */
  close(): void {
    this.core.close();
  }

  /** Closes the client at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Creates a sandbox from an image or from a pool. */
  async create(options: CreateOptions): Promise<Sandbox> {
    const { image, poolId, name } = options;
    return new Sandbox(await this.core.create({ image, poolId, name, ...container(options) } as core.CreateOptions));
  }

  /** The same as {@link SandboxClient.create}. */
  createAndConnect(options: CreateOptions): Promise<Sandbox> {
    return this.create(options);
  }

  /** Claims a sandbox from a pool. */
  claim(poolId: string): Promise<Sandbox> {
    return this.create({ poolId });
  }

  /** Returns a sandbox. */
  async get(sandboxId: string): Promise<core.SandboxInfo> {
    return (await this.core.getSandbox(sandboxId)).info;
  }

  /** Returns a handle of a sandbox, by its identifier or name. */
  async connect(identifier: string): Promise<Sandbox> {
    return new Sandbox(await this.core.getSandbox(identifier));
  }

  /** Returns all sandboxes that are not terminated. */
  async list(): Promise<core.SandboxInfo[]> {
    return (await this.core.listSandboxes().toArray()).map(({ info }) => info);
  }

  /** Changes the name of a sandbox. */
  async updateSandbox(sandboxId: string, { name }: { readonly name: string }): Promise<core.SandboxInfo> {
    return (await this.core.updateSandbox(sandboxId, { name })).info;
  }

  /** Terminates a sandbox. */
  delete(sandboxId: string): Promise<void> {
    return this.core.deleteSandbox(sandboxId);
  }

  /** Creates a pool. */
  createPool(options: CreatePoolOptions): Promise<core.Pool> {
    const { image, maxContainers, warmContainers } = options;
    return this.core.createPool({ image, maxContainers, warmContainers, ...container(options) });
  }

  /** Returns a pool. */
  getPool(poolId: string): Promise<core.Pool> {
    return this.core.getPool(poolId);
  }

  /** Returns all pools. */
  listPools(): Promise<core.Pool[]> {
    return this.core.listPools().toArray();
  }

  /** Updates a pool. */
  updatePool(poolId: string, options: UpdatePoolOptions): Promise<core.Pool> {
    const { image, maxContainers, warmContainers } = options;
    return this.core.updatePool(poolId, { image, maxContainers, warmContainers, ...container(options) });
  }

  /**
   * Deletes a pool.
   *
   * @throws {@link PoolInUseError} while sandboxes of the pool are active.
   */
  async deletePool(poolId: string): Promise<void> {
    try {
      await this.core.deletePool(poolId);
    } catch (error) {
      throw error instanceof core.PoolInUseError ? new PoolInUseError(error) : error;
    }
  }

  /** Exposes ports by HTTP. */
  async exposePorts(sandboxId: string, ports: number | readonly number[]): Promise<core.ExposedPort[]> {
    return (await this.connect(sandboxId)).exposePorts(ports);
  }

  /** Stops exposing ports. */
  async unexposePorts(sandboxId: string, ports: number | readonly number[]): Promise<void> {
    await (await this.connect(sandboxId)).unexposePorts(ports);
  }

  /** Returns the exposed ports. */
  async getPortAccess(sandboxId: string): Promise<core.ExposedPort[]> {
    return (await this.connect(sandboxId)).getPortAccess();
  }

  /** Returns the lines of a sandbox's log. */
  async getLogs(sandboxId: string, options?: LogOptions): Promise<SandboxLogs> {
    return (await this.connect(sandboxId)).getLogs(options);
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

  /** The identifier. */
  get sandboxId(): string {
    return this.core.sandboxId;
  }

  /** The name, or null. */
  get name(): string | null {
    return this.core.name;
  }

  /** The state at the time of the last response. */
  get status(): core.SandboxState {
    return this.core.state;
  }

  /** The sandbox at the time of the last response. */
  get info(): core.SandboxInfo {
    return this.core.info;
  }

  /** Changes the name. */
  update({ name }: { readonly name: string }): Promise<core.SandboxInfo> {
    return this.core.update({ name });
  }

  /** Closes the handle. The sandbox keeps running. */
  close(): void {
    this.core.close();
  }

  /** Terminates the sandbox. */
  terminate(): Promise<void> {
    return this.core.delete();
  }

  /** Deletes the sandbox at the end of an `await using` block if this client created it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.core[Symbol.asyncDispose]();
  }

  /** Runs a command and returns its result when it has exited. */
  run(command: string | readonly string[], options: RunOptions = {}): Promise<core.CommandResult> {
    return runCommand(this.core, command, options);
  }

  /** Starts a process. */
  async startProcess(
    command: string | readonly string[],
    options: StartProcessOptions = {},
  ): Promise<core.ProcessInfo> {
    const { env, workingDir, stdinMode, user, name, restart, healthCheck } = options;
    const process = await this.core.processes.start(commandOf(command, options), {
      env,
      cwd: workingDir,
      stdin: stdinMode === "pipe",
      user,
      name,
      restartPolicy: restart,
      healthCheck,
    });
    return this.core.processes.get(process.processId);
  }

  /** Returns all processes. */
  listProcesses(): Promise<core.ProcessInfo[]> {
    return this.core.processes.list().toArray();
  }

  /** Returns a process. */
  getProcess(process: string): Promise<core.ProcessInfo> {
    return this.core.processes.get(process);
  }

  /** Kills a process with all its descendants. */
  killProcess(process: string): Promise<void> {
    return this.core.processes.kill(process);
  }

  /** Restarts a service. */
  restartProcess(process: string): Promise<core.ProcessInfo> {
    return this.core.processes.restart(process);
  }

  /** Sends a signal. */
  sendSignal(process: string, signal = 15): Promise<void> {
    return this.core.processes.signal(process, signal);
  }

  /** Writes to the standard input of a process. */
  writeStdin(process: string, data: string | Uint8Array): Promise<void> {
    return this.core.processes.writeStdin(process, data);
  }

  /** Closes the standard input of a process. */
  closeStdin(process: string): Promise<void> {
    return this.core.processes.closeStdin(process);
  }

  /** Returns the buffered output of a process. */
  getOutput(process: string): Promise<core.ProcessOutput> {
    return this.core.processes.output(process);
  }

  /** Returns the buffered standard output of a process. */
  async getStdout(process: string): Promise<core.ProcessOutput> {
    return { ...(await this.getOutput(process)), stderr: "", stderrBytes: new Uint8Array() };
  }

  /** Returns the buffered standard error of a process. */
  async getStderr(process: string): Promise<core.ProcessOutput> {
    return { ...(await this.getOutput(process)), stdout: "", stdoutBytes: new Uint8Array() };
  }

  /** Yields the output of a process until it exits. */
  followOutput(process: string): AsyncGenerator<core.OutputChunk, void, undefined> {
    return this.core.processes.follow(process);
  }

  /** Yields the standard output of a process until it exits. */
  async *followStdout(process: string): AsyncGenerator<core.OutputChunk, void, undefined> {
    for await (const chunk of this.followOutput(process)) if (chunk.stream === "stdout") yield chunk;
  }

  /** Yields the standard error of a process until it exits. */
  async *followStderr(process: string): AsyncGenerator<core.OutputChunk, void, undefined> {
    for await (const chunk of this.followOutput(process)) if (chunk.stream === "stderr") yield chunk;
  }

  /** Starts a program on a terminal, by default a shell. */
  async createPty(options: PtyOptions = {}): Promise<Pty> {
    const { command, env, workingDir, rows, cols } = options;
    const pty = { env, cwd: workingDir, rows, cols, onData: ptyOutput(options) };
    const { terminals } = this.core;
    const terminal = command === undefined ? terminals.create(pty) : terminals.create(commandOf(command, options), pty);
    return new Pty(await terminal, options);
  }

  /** Returns a handle of a terminal that was started before. */
  async connectPty(sessionId: string, _token?: string, listeners: PtyListeners = {}): Promise<Pty> {
    const options = { onData: ptyOutput(listeners) };
    return new Pty(await this.core.terminals.attach(sessionId, options), listeners);
  }

  /** Reads a file. */
  readFile(path: string): Promise<Uint8Array> {
    return this.core.files.read(path);
  }

  /** Writes a file. */
  writeFile(path: string, content: string | Uint8Array): Promise<core.FileInfo> {
    return this.core.files.write(path, content);
  }

  /** Copies a file of this machine into the sandbox. Node only. */
  uploadFile(localPath: string, path: string): Promise<core.FileInfo> {
    return this.core.files.upload(localPath, path);
  }

  /** Copies a file of the sandbox to this machine. Node only. */
  downloadFile(path: string, localPath: string): Promise<core.FileInfo> {
    return this.core.files.download(path, localPath);
  }

  /** Removes a file or an empty directory. */
  deleteFile(path: string): Promise<void> {
    return this.core.files.remove(path);
  }

  /** Returns the contents of a directory. */
  async listDirectory(path: string): Promise<DirectoryListing> {
    return { path, entries: await this.core.files.list(path).toArray() };
  }

  /** Forwards a port of this machine to a port of the sandbox. Node only. */
  createTunnel(
    remotePort: number,
    options: {
      readonly localHost?: string | undefined;
      readonly localPort?: number | undefined;
      readonly connectTimeout?: number | undefined;
    } = {},
  ): Promise<core.Tunnel> {
    const { localHost, localPort, connectTimeout } = options;
    return this.core.ports.tunnel(remotePort, { localHost, localPort, connectTimeoutMs: ms(connectTimeout) });
  }

  /** Exposes ports by HTTP. */
  async exposePorts(ports: number | readonly number[]): Promise<core.ExposedPort[]> {
    const exposed: core.ExposedPort[] = [];
    for (const port of typeof ports === "number" ? [ports] : ports) exposed.push(await this.core.ports.expose(port));
    return exposed;
  }

  /** Stops exposing ports. */
  async unexposePorts(ports: number | readonly number[]): Promise<void> {
    for (const port of typeof ports === "number" ? [ports] : ports) await this.core.ports.unexpose(port);
  }

  /** Returns the exposed ports. */
  getPortAccess(): Promise<core.ExposedPort[]> {
    return this.core.ports.list().toArray();
  }

  /** Returns the lines of the log. */
  async getLogs({ processIds, nextToken, tail }: LogOptions = {}): Promise<SandboxLogs> {
    const afterSequence = Number(nextToken ?? 0);
    const entries: core.LogEntry[] = [];
    for await (const entry of this.core.logs({ sources: processIds, tail, afterSequence })) entries.push(entry);
    return { entries, nextToken: String(entries.at(-1)?.sequence ?? afterSequence) };
  }
}

/** Returns the listener of a terminal's output; `onExit` alone needs one too, so that the terminal is followed. */
function ptyOutput({ onData, onExit }: PtyListeners): OnData | undefined {
  return onData ?? (onExit === undefined ? undefined : () => undefined);
}

/** A program on a terminal. At the end of an `await using` block it is killed. */
export class Pty implements AsyncIterable<Uint8Array> {
  /** The terminal of sandpool. */
  readonly core: core.Terminal;

  /** @internal Terminals come from a {@link Sandbox}. */
  constructor(terminal: core.Terminal, { onExit }: PtyListeners) {
    this.core = terminal;
    if (onExit !== undefined) terminal.wait().then(onExit, () => undefined);
  }

  /** The identifier, for {@link Sandbox.connectPty}. */
  get sessionId(): string {
    return this.core.processId;
  }

  /** The PID in the sandbox, or null. */
  get pid(): number | null {
    return this.core.pid;
  }

  /** Yields the output. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    return this.core[Symbol.asyncIterator]();
  }

  /** Types on the terminal. */
  sendInput(data: string | Uint8Array): Promise<void> {
    return this.core.write(data);
  }

  /** Changes the size of the terminal. */
  resize({ rows, cols }: core.TerminalSize): Promise<void> {
    return this.core.resize(rows, cols);
  }

  /** Kills the program with all its descendants. */
  kill(): Promise<void> {
    return this.core.kill();
  }

  /** Waits until the program has exited and returns its exit code. */
  wait(): Promise<number> {
    return this.core.wait();
  }

  /** Stops following the terminal. The program keeps running. */
  disconnect(): Promise<void> {
    return this.core.detach();
  }

  /** Kills the program at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.core[Symbol.asyncDispose]();
  }
}
