import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { bytes, integer, reject, textList } from "./core/arguments.js";
import { toLogEntry, toSandboxMetrics } from "./core/convert-io.js";
import { ClientClosedError, ResourceNotFoundError, SandboxNotReadyError } from "./core/errors.js";
import { limited } from "./core/limits.js";
import type { SandboxCalls } from "./core/sandbox-calls.js";
import type { SandboxAccess, SandboxIo } from "./core/sandbox-io.js";
import { duration } from "./core/time.js";
import { Files } from "./files.js";
import type { CallOptions, MutationOptions, UpdateSandboxOptions, WatchOptions } from "./options.js";
import { Ports } from "./ports.js";
import { runToExit } from "./process.js";
import { Processes } from "./processes.js";
import type { Command, LogOptions, RunOptions, WatchMetricsOptions } from "./sandbox-options.js";
import type { CommandResult, LogEntry, SandboxMetrics } from "./sandbox-types.js";
import { Terminals } from "./terminals.js";
import type { SandboxInfo, SandboxState, StartType } from "./types.js";

/**
 * The handle of a sandbox.
 *
 * Its properties hold the last known state; {@link Sandbox.refresh} reads it again. At the end of an `await using` block
 * the sandbox is deleted if this client created it with `create` or `createBatch`. A sandbox from `getSandbox`,
 * `listSandboxes` or `updateSandbox` keeps running.
 *
 * @example
 * ```ts
 * await using sandbox = await client.create({ poolId });
 * const { stdout } = await sandbox.run("python3 --version");
 * ```
 */
export class Sandbox {
  readonly #calls: SandboxCalls;
  readonly #access: SandboxAccess;
  readonly #created: boolean;
  #info: SandboxInfo;
  #closed = false;

  /** The identifier that the server assigned. */
  readonly sandboxId: string;
  /** The files of the sandbox. */
  readonly files: Files;
  /** The processes and services of the sandbox. */
  readonly processes: Processes;
  /** The terminals of the sandbox. */
  readonly terminals: Terminals;
  /** The ports of the sandbox. */
  readonly ports: Ports;

  /** @internal Handles come from a {@link SandboxClient}. */
  constructor(info: SandboxInfo, calls: SandboxCalls, io: SandboxIo, created: boolean) {
    const checkOpen = () => this.#checkOpen();
    this.#calls = calls;
    this.#created = created;
    this.#info = info;
    this.sandboxId = info.sandboxId;
    this.#access = {
      sandboxId: info.sandboxId,
      get io() {
        checkOpen();
        return io;
      },
    };
    this.files = new Files(this.#access);
    this.processes = new Processes(this.#access);
    this.terminals = new Terminals(this.#access);
    this.ports = new Ports(this.#access);
  }

  /** The sandbox at the time of the last response. */
  get info(): SandboxInfo {
    return this.#info;
  }

  /** The name, or null. */
  get name(): string | null {
    return this.#info.name;
  }

  /** The state at the time of the last response. */
  get state(): SandboxState {
    return this.#info.state;
  }

  /** Whether the sandbox started warm or cold, or null while it is starting. */
  get startType(): StartType | null {
    return this.#info.startType;
  }

  /**
   * Runs a command and returns its result when it has exited. A string is a shell command; an array is a program with its
   * arguments and needs no shell. An exit code other than 0 and an exceeded `timeoutMs` are not errors; see `success` and
   * `timedOut` of the result.
   *
   * The command survives a broken connection: the client reconnects and continues at the last byte received, and the
   * command is never started twice. When the call is aborted or a listener throws, the command is killed.
   * `resumable: false` runs it with one request instead, which is slightly faster for short commands.
   *
   * @throws {@link SandboxNotReadyError} when the sandbox is not running, {@link ResourceStateError} when the command
   * cannot be started, {@link SandboxConnectionError} when nothing responds for 60 s, {@link CommandTimeoutError} when
   * the exit of the command is not reported in time.
   */
  async run(command: Command, options: RunOptions = {}): Promise<CommandResult> {
    const { resumable = true, stdin, onStdout, onStderr } = options;
    if (resumable) return runToExit(this.#access, command, options);
    reject("they require resumable: true", { stdin, onStdout, onStderr });
    this.#checkOpen();
    return this.#calls.runCommand(this.sandboxId, command, options);
  }

  /**
   * Yields the log lines of the entrypoint and of the services, oldest first. With `follow` it continues until the
   * sandbox terminates. When the connection breaks, it continues after the last line received.
   */
  async *logs(options: LogOptions = {}): AsyncGenerator<LogEntry, void, undefined> {
    const { io, sandboxId } = this.#access;
    const { follow = false } = options;
    const sources = textList("sources", options.sources);
    let tail = integer("tail", options.tail);
    let afterSequence = bytes("afterSequence", options.afterSequence ?? 0);
    const since = options.since === undefined ? undefined : timestampFromDate(options.since);
    const open = (signal: AbortSignal | undefined) =>
      io.resumed((again) => {
        if (again) tail = undefined; // all lines after the last received one
        const request = { sandboxId, sources, tail, since, afterSequence, follow };
        return io.stream((to) => io.monitor.readLogs(request, to), { signal });
      }, signal);
    let dropped = 0;
    let begun = false;
    try {
      for await (const response of limited(`the log of sandbox ${sandboxId}`, options, open)) {
        begun = true;
        dropped += Number(response.droppedEntries);
        for (const entry of response.entries) {
          afterSequence = entry.sequence;
          yield toLogEntry(entry, dropped);
          dropped = 0;
        }
      }
    } catch (error) {
      if (!(follow && begun && error instanceof SandboxNotReadyError)) throw error; // otherwise the sandbox terminated
    }
  }

  /** Returns the current resource usage. */
  async metrics(call?: CallOptions): Promise<SandboxMetrics> {
    const { io, sandboxId } = this.#access;
    return toSandboxMetrics((await io.safe((to) => io.monitor.getMetrics({ sandboxId }, to), call)).metrics);
  }

  /** Yields the resource usage, one measurement per interval. When the connection breaks, it is resumed. */
  async *watchMetrics(options: WatchMetricsOptions = {}): AsyncGenerator<SandboxMetrics, void, undefined> {
    const { io, sandboxId } = this.#access;
    const request = { sandboxId, interval: duration("intervalMs", options.intervalMs) };
    const open = (signal: AbortSignal | undefined) =>
      io.resumed(() => io.stream((to) => io.monitor.watchMetrics(request, to), { signal }), signal);
    for await (const { metrics } of limited(`the watch on metrics of sandbox ${sandboxId}`, options, open)) {
      yield toSandboxMetrics(metrics);
    }
  }

  /** Reads the sandbox again, updates the properties of this handle and returns the sandbox. */
  async refresh(call?: CallOptions): Promise<SandboxInfo> {
    this.#checkOpen();
    this.#info = await this.#calls.get(this.sandboxId, call);
    return this.#info;
  }

  /** Changes the name, the metadata or the lifetime, updates the properties of this handle and returns the sandbox. */
  async update(changes: UpdateSandboxOptions): Promise<SandboxInfo> {
    this.#checkOpen();
    this.#info = await this.#calls.update(this.sandboxId, changes);
    return this.#info;
  }

  /**
   * Yields the current state of the sandbox and then each change, until it is terminated. When the connection breaks, the
   * watch is resumed. The properties of this handle do not change.
   */
  async *watch(watch: WatchOptions = {}): AsyncGenerator<SandboxInfo, void, undefined> {
    this.#checkOpen();
    yield* this.#calls.watch(this.sandboxId, watch);
  }

  /** Terminates the sandbox. Its container is removed and never reused. A second call has no effect. */
  async delete(call?: MutationOptions): Promise<void> {
    this.#checkOpen();
    this.#info = await this.#calls.delete(this.sandboxId, call);
  }

  /** Closes the handle: later calls reject with {@link ClientClosedError}. The sandbox keeps running. */
  close(): void {
    this.#closed = true;
  }

  /** Deletes the sandbox at the end of an `await using` block if this client created it; otherwise closes the handle. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#created || this.#closed) {
      this.close();
      return;
    }
    try {
      await this.delete();
    } catch (error) {
      if (!(error instanceof ResourceNotFoundError)) throw error; // it terminated before its retention time passed
    }
  }

  /** Returns the sandbox for `JSON.stringify`. */
  toJSON(): SandboxInfo {
    return this.#info;
  }

  #checkOpen(): void {
    if (this.#closed) {
      throw new ClientClosedError(`the handle of sandbox ${this.sandboxId} is closed; call getSandbox for another one`);
    }
  }
}
