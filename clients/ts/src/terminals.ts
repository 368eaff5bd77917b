import { toProcessInfo } from "./core/convert-io.js";
import { Output } from "./core/output.js";
import { startRequest } from "./core/process-requests.js";
import type { SandboxAccess } from "./core/sandbox-io.js";
import type { CallOptions } from "./options.js";
import { Process, startProcess } from "./process.js";
import type { AttachTerminalOptions, Command, TerminalListeners, TerminalOptions } from "./sandbox-options.js";
import type { CommandResult } from "./sandbox-types.js";

/** An interactive shell: the user's, otherwise /bin/sh. */
const SHELL = 'exec "${SHELL:-/bin/sh}" -i';
/** Shells return this number plus the number of the signal that ended a program. */
const SIGNAL_BASE = 128;

/** The terminals of a sandbox. */
export class Terminals {
  readonly #access: SandboxAccess;

  /** @internal */
  constructor(access: SandboxAccess) {
    this.#access = access;
  }

  /**
   * Starts a program on a terminal, by default an interactive shell. A string is a shell command; an array is a program
   * with its arguments.
   */
  create(command: Command, options?: TerminalOptions): Promise<Terminal>;
  create(options?: TerminalOptions): Promise<Terminal>;
  async create(first?: Command | TerminalOptions, second?: TerminalOptions): Promise<Terminal> {
    const isCommand = typeof first === "string" || Array.isArray(first);
    const options = ((isCommand ? second : first) ?? {}) as TerminalOptions;
    const command = isCommand ? (first as Command) : SHELL;
    const { rows = 24, cols = 80, env, cwd, user, timeoutMs, idleTimeoutMs, onData } = options;
    const request = startRequest(this.#access.sandboxId, command, {
      env: { TERM: "xterm-256color", ...env },
      cwd,
      user,
      timeoutMs,
      idleTimeoutMs,
      terminal: { rows, cols },
    });
    return new Terminal(await startProcess(this.#access, request, options, 0), { onData });
  }

  /** Returns a handle of an existing terminal, which continues at the given offset of its output. */
  async attach(processId: string, options: AttachTerminalOptions = {}): Promise<Terminal> {
    const { io, sandboxId } = this.#access;
    const { offset = 0, onData } = options;
    const response = await io.safe((to) => io.processes.getProcess({ sandboxId, processId }, to), options);
    const process = new Process(io, sandboxId, toProcessInfo(response.process), new Output(offset, 0, 0));
    return new Terminal(process, { onData });
  }
}

/**
 * A program on a terminal in a sandbox.
 *
 * Its output is passed to `onData`; without `onData`, iterate over the terminal. When the connection breaks, the handle
 * continues at the last byte received. At the end of an `await using` block the program is killed.
 */
export class Terminal implements AsyncIterable<Uint8Array> {
  readonly #process: Process;
  readonly #reading: Promise<CommandResult> | undefined;

  /** @internal Terminals come from {@link Terminals}. */
  constructor(process: Process, { onData }: TerminalListeners) {
    this.#process = process;
    if (onData === undefined) return;
    this.#reading = this.#read(onData);
    this.#reading.catch(() => undefined); // `wait` reports it
  }

  /** The identifier of the process, for {@link Terminals.attach}. */
  get processId(): string {
    return this.#process.processId;
  }

  /** The PID in the sandbox, or null when it is not known. */
  get pid(): number | null {
    return this.#process.pid;
  }

  /** Yields the output from the current offset on; one loop at a time. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#reading !== undefined) throw new TypeError("onData receives the output; omit it to iterate over a terminal");
    for await (const { dataBytes } of this.#process) if (dataBytes.length > 0) yield dataBytes;
  }

  /** Types on the terminal. Returns when the terminal has accepted all bytes. */
  write(data: string | Uint8Array, call?: CallOptions): Promise<void> {
    return this.#process.writeStdin(data, call);
  }

  /** Changes the size of the terminal. */
  resize(rows: number, cols: number, call?: CallOptions): Promise<void> {
    return this.#process.resize(rows, cols, call);
  }

  /** Kills the program with all its descendants. */
  kill(call?: CallOptions): Promise<void> {
    return this.#process.kill(call);
  }

  /**
   * Waits until the program has exited and returns its exit code: 128 plus the number of the signal when a signal ended
   * it. Output that arrives in the meantime and has no listener is dropped.
   */
  async wait(): Promise<number> {
    const { exitCode, signal } = await (this.#reading ?? this.#process.wait());
    return exitCode ?? SIGNAL_BASE + (signal ?? 0);
  }

  /** Stops following the terminal. The program keeps running; attach to it for another handle. */
  async detach(): Promise<void> {
    this.#process.detach();
    await this.#reading?.catch(() => undefined);
  }

  /** Kills the program at the end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.detach();
  }

  async #read(onData: (data: Uint8Array) => void): Promise<CommandResult> {
    for await (const { dataBytes } of this.#process) if (dataBytes.length > 0) onData(dataBytes);
    return this.#process.wait();
  }
}
