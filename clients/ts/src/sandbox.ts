import type { SandboxClient } from "./client.js";
import { CommandHandle, type StartRequest } from "./command.js";
import { ResourceNotFoundError, SandpoolError } from "./core/errors.js";
import { type Inside, toLogEntry, toProcess, toStats } from "./core/inside.js";
import { Files, type Content } from "./files.js";
import type {
  CallOptions,
  LogOptions,
  MutationOptions,
  RunOptions,
  StartOptions,
  StreamOptions,
  UpdateSandboxOptions,
  WriteOptions,
} from "./options.js";
import { Ports, type Tunnel } from "./ports.js";
import { Processes, startRequest } from "./processes.js";
import type { CommandResult, FileInfo, LogEntry, SandboxInfo, SandboxStats } from "./types.js";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";

const TERMINAL = { rows: 24, cols: 80 };
/** Limits of a command where none are given, in seconds. */
const COMMAND_SECS = 60;
const IDLE_SECS = 300;
/** How long giving up a command may take, in milliseconds. */
const KILL_MS = 5_000;

/** The plain properties of a sandbox, as the server answered them last; see {@link Sandbox.refresh}. */
export interface Sandbox extends SandboxInfo {}

/**
 * A sandbox: what is known of it, as plain properties, and what can be done with it.
 *
 * The properties are those of the answer that made this object and do not change by themselves.
 *
 * @example
 * ```ts
 * await using sandbox = await client.create({ poolId });
 * const { stdout } = await sandbox.run("python3 --version");
 * ```
 */
export class Sandbox {
  readonly #client: SandboxClient;
  readonly #inside: Inside;
  readonly #files: Files;
  readonly #processes: Processes;
  readonly #ports: Ports;

  /** @internal Sandboxes come from a {@link SandboxClient}. */
  constructor(info: SandboxInfo, client: SandboxClient, inside: Inside) {
    Object.assign(this, info);
    this.#client = client;
    this.#inside = inside;
    this.#files = new Files(inside, info.sandboxId);
    this.#processes = new Processes(inside, info.sandboxId);
    this.#ports = new Ports(inside, info.sandboxId);
  }

  /** Its files. */
  get files(): Files {
    return this.#files;
  }

  /** Its processes and services. */
  get processes(): Processes {
    return this.#processes;
  }

  /** Its ports. */
  get ports(): Ports {
    return this.#ports;
  }

  /**
   * Runs a command and resolves when it has ended. A string goes to the shell of the container; an array is the program
   * and its arguments and needs no shell. A command that fails or runs out of time resolves too: see `success` and
   * `reason`.
   *
   * It does not hang on the connection: where that breaks, or the server starts anew, the client takes it up at the byte
   * where it was. It is started once, however often that happens. With `onStdout` or `onStderr` the output comes while
   * the command runs; with `wait: false` it resolves to a {@link CommandHandle} at once.
   *
   * @throws {@link SandboxNotReadyError} when the sandbox has ended, {@link SandboxConnectionError} when nothing answers
   * for long, {@link ResourceTimeoutError} when its end is not told more than a minute after its own `timeout`.
   */
  run(command: string | readonly string[], options: StartOptions): Promise<CommandHandle>;
  run(
    command: string | readonly string[],
    options?: RunOptions & StreamOptions & { readonly wait?: true },
  ): Promise<CommandResult>;
  async run(
    command: string | readonly string[],
    options: RunOptions & StreamOptions & { readonly wait?: boolean } = {},
  ): Promise<CommandHandle | CommandResult> {
    const { signal } = options;
    const request = this.#request(command, options);
    if (options.wait === false) return this.#start(request, signal);
    const limitMs = (options.timeout ?? COMMAND_SECS) * 1000;
    const about = { sandboxId: this.sandboxId, commandId: request.processId, pid: null };
    const handle = this.#inside.duplex
      ? new CommandHandle(this.#inside, about, {}, signal, { request, limitMs })
      : await this.#start(request, signal, limitMs);
    try {
      for await (const { stream, data } of handle) (stream === "stdout" ? options.onStdout : options.onStderr)?.(data);
      return await handle.result;
    } catch (error) {
      // Nobody waits for it any more: its caller gave it up, or a listener failed.
      if (!(error instanceof SandpoolError)) await handle.kill({ timeoutMs: KILL_MS }).catch(ignoreOurs);
      throw error;
    }
  }

  /**
   * Runs a short command in one call of one answer, which takes a little less than {@link Sandbox.run}. It hangs on the
   * connection: where that breaks the command is killed, and it is never sent again. At most 1 MiB of each stream comes
   * back.
   *
   * @throws {@link SandboxConnectionError} when the server does not answer; the command may have run.
   */
  runOnce(command: string | readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return this.#client.runOnce(this.sandboxId, command, options);
  }

  #request(command: string | readonly string[], options: RunOptions & StreamOptions) {
    const { pty = false } = options;
    return startRequest(this.sandboxId, command, {
      processId: options.commandId,
      env: options.env,
      cwd: options.cwd,
      user: options.user,
      stdin: options.stdin,
      terminal: pty === true ? TERMINAL : pty === false ? undefined : pty,
      timeout: options.timeout ?? COMMAND_SECS,
      idleTimeout: options.idleTimeout ?? IDLE_SECS,
      ttlSeconds: options.ttlSeconds,
      killOnDisconnect: options.killOnDisconnect,
    });
  }

  async #start(request: StartRequest, signal: AbortSignal | undefined, limitMs?: number): Promise<CommandHandle> {
    const { process } = await this.#inside.safe((to) => this.#inside.processes.startProcess(request, to), { signal });
    const { processId, pid } = toProcess(process);
    const about = { sandboxId: this.sandboxId, commandId: processId, pid };
    const awaited = limitMs === undefined ? undefined : { request: null, limitMs };
    return new CommandHandle(this.#inside, about, {}, signal, awaited);
  }

  /** A handle of a command that was started before, from the given offsets of its output on. */
  reconnect(
    commandId: string,
    from: { readonly stdoutOffset?: number; readonly stderrOffset?: number } = {},
  ): Promise<CommandHandle> {
    return this.#processes.attach(commandId, from);
  }

  /** Reads a whole file. */
  read(path: string): Promise<Uint8Array> {
    return this.#files.read(path);
  }

  /** Writes a file of any size; it appears whole and at once. */
  write(path: string, content: Content, options: WriteOptions = {}): Promise<FileInfo> {
    return this.#files.write(path, content, options);
  }

  /** A listener on this machine's loopback address whose connections lead to a port of the sandbox. Node only. */
  tunnel(remotePort: number, options: { readonly localPort?: number } = {}): Promise<Tunnel> {
    return this.#ports.tunnel(remotePort, options);
  }

  /**
   * What the entrypoint and the services printed, line by line. A connection that breaks is taken up after the last line
   * that came; with `follow` it goes on until the sandbox ends.
   */
  async *logs(options: LogOptions = {}): AsyncGenerator<LogEntry, void, undefined> {
    const { follow = false, signal } = options;
    let afterSequence = BigInt(options.afterSequence ?? 0);
    const open = (again: boolean) => {
      const request = {
        sandboxId: this.sandboxId,
        sources: [...(options.sources ?? [])],
        tail: again ? undefined : options.tail, // what comes after the last line that came is wanted whole
        since: options.since === undefined ? undefined : timestampFromDate(options.since),
        afterSequence,
        follow,
      };
      return this.#inside.stream((to) => this.#inside.monitor.readLogs(request, to), signal);
    };
    for await (const { entries } of this.#inside.follow(open, signal)) {
      afterSequence = entries.at(-1)?.sequence ?? afterSequence;
      yield* entries.map(toLogEntry);
    }
  }

  /** What the sandbox uses now. */
  async stats(call?: CallOptions): Promise<SandboxStats> {
    const request = { sandboxId: this.sandboxId };
    return toStats((await this.#inside.safe((to) => this.#inside.monitor.getStats(request, to), call)).stats);
  }

  /** What the sandbox uses, every `intervalSecs` (1 by default), over broken connections too. */
  async *watchStats(
    options: { readonly intervalSecs?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<SandboxStats, void, undefined> {
    const request = { sandboxId: this.sandboxId, intervalSecs: options.intervalSecs };
    const open = () => this.#inside.stream((to) => this.#inside.monitor.watchStats(request, to), options.signal);
    for await (const { stats } of this.#inside.follow(open, options.signal)) yield toStats(stats);
  }

  /** Reads the sandbox anew. */
  refresh(call: CallOptions = {}): Promise<Sandbox> {
    return this.#client.getSandbox(this.sandboxId, call);
  }

  /** Changes name, labels or lifetime, and resolves to the sandbox after the change. */
  update(changes: UpdateSandboxOptions, call: MutationOptions = {}): Promise<Sandbox> {
    return this.#client.updateSandbox(this.sandboxId, changes, call);
  }

  /** See {@link SandboxClient.watchSandbox}. */
  watch(call: Pick<CallOptions, "signal"> = {}): AsyncIterable<Sandbox> {
    return this.#client.watchSandbox(this.sandboxId, call);
  }

  /** Ends the sandbox; its container is removed and never used again. It is no error when it has ended already. */
  async delete(call: MutationOptions = {}): Promise<void> {
    await this.#client.deleteSandbox(this.sandboxId, call);
  }

  /** The same as {@link Sandbox.delete}. */
  async terminate(call: MutationOptions = {}): Promise<void> {
    await this.delete(call);
  }

  /** Ends the sandbox at the end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (error) {
      if (!(error instanceof ResourceNotFoundError)) throw error; // it ended so long ago that the server forgot it
    }
  }
}

/** What is thrown while something is given up does not matter, unless it is a fault of this package. */
function ignoreOurs(error: unknown): void {
  if (!(error instanceof SandpoolError)) throw error;
}
