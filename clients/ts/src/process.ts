import { integer } from "./core/arguments.js";
import { bytesOf, pieces } from "./core/bytes.js";
import { toProcessInfo } from "./core/convert-io.js";
import { COMMAND_IDLE_TIMEOUT_MS, COMMAND_MARGIN_MS, COMMAND_TIMEOUT_MS, RESUME_TIMEOUT_MS } from "./core/defaults.js";
import {
  ClientClosedError,
  ResourceStateError,
  ResourceTimeoutError,
  SandboxConnectionError,
  SandpoolError,
} from "./core/errors.js";
import { Output } from "./core/output.js";
import { startRequest, type StartRequest } from "./core/process-requests.js";
import { Resumption, sleep } from "./core/retry.js";
import { commandTimeout } from "./core/sandbox-calls.js";
import type { SandboxAccess, SandboxIo } from "./core/sandbox-io.js";
import type { ProcessEvent } from "./gen/sandpool/v1/process_pb.js";
import type { CallOptions } from "./options.js";
import type { Command, OutputListeners, RunOptions, SignalOptions } from "./sandbox-options.js";
import type { CommandResult, OutputChunk, ProcessInfo } from "./sandbox-types.js";

/** The largest part of the input in one request. */
const INPUT_BYTES = 1 << 20;
/** The least time limit of a request that follows a command, so that its limit has a chance to be reported. */
const LEAST_MS = 10_000;
/** The time limit of the kill when a run is abandoned. */
const KILL_TIMEOUT_MS = 5_000;

/** How a handle follows its process; all optional. */
interface FollowOptions {
  /** Starts the process with the first connection, instead of attaching to it. */
  readonly start?: StartRequest | undefined;
  /** The time limit of the command, in milliseconds, if its exit must be reported soon after it. */
  readonly limitMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The handle of a process in a sandbox.
 *
 * Iterate over it for the output as it arrives, or call {@link Process.wait} for the result. Leaving the loop does not
 * end the process; another loop continues at the next byte. When the connection breaks or the server restarts, the
 * handle reconnects and continues at the last byte received. Only one loop or `wait` can run at a time.
 */
export class Process implements AsyncIterable<OutputChunk> {
  readonly #io: SandboxIo;
  readonly #output: Output;
  readonly #options: FollowOptions;
  readonly #detached = new AbortController();
  readonly #started = performance.now();
  #writing: Promise<unknown> = Promise.resolve();

  /** The identifier of the sandbox. */
  readonly sandboxId: string;
  /** The identifier of the process in its sandbox. */
  readonly processId: string;

  /** @internal Handles come from {@link Processes}. A process that is known only by its identifier is not running yet. */
  constructor(
    io: SandboxIo,
    sandboxId: string,
    process: ProcessInfo | string,
    output: Output,
    options: FollowOptions = {},
  ) {
    this.#io = io;
    this.#output = output;
    this.#options = options;
    this.sandboxId = sandboxId;
    this.processId = typeof process === "string" ? process : process.processId;
    if (typeof process !== "string") output.process = process;
  }

  /** The PID in the sandbox, or null when it is not known. */
  get pid(): number | null {
    return this.#output.process?.pid ?? null;
  }

  /** The offset after the last received byte of standard output. Pass it to `attach` to continue there. */
  get stdoutOffset(): number {
    return this.#output.stdoutOffset;
  }

  /** The offset after the last received byte of standard error. Pass it to `attach` to continue there. */
  get stderrOffset(): number {
    return this.#output.stderrOffset;
  }

  /** Yields the output from the current offsets on, until the process exits. */
  [Symbol.asyncIterator](): AsyncGenerator<OutputChunk, void, undefined> {
    return this.#follow();
  }

  /**
   * Waits until the process has exited and all its output has arrived, and returns the result. It contains the output
   * that this handle received, at most 64 MiB of each stream. The listeners are called with the output as it arrives.
   *
   * @throws {@link ClientClosedError} when the handle is detached.
   */
  async wait(listeners: OutputListeners = {}): Promise<CommandResult> {
    for await (const { stream, data } of this) {
      if (data !== "") (stream === "stdout" ? listeners.onStdout : listeners.onStderr)?.(data);
    }
    if (this.#output.exit === undefined) {
      throw new ClientClosedError(`the handle of process ${this.processId} is detached; call processes.attach`);
    }
    return this.#output.result();
  }

  /**
   * Writes to standard input, or types on the terminal. Returns when the process, or the pipe to it, has accepted all
   * bytes. When the connection breaks, the write is repeated; no byte is written twice.
   */
  async writeStdin(data: string | Uint8Array, call?: CallOptions): Promise<void> {
    await this.#exclusive(async () => {
      // The current offset, by which the server recognizes a repeated write.
      const { process } = await this.#io.safe((to) => this.#io.processes.getProcess(this.#ref, to), call);
      let offset = process?.stdinBytes ?? 0n;
      for (const part of inputParts(data)) {
        await this.#write({ data: part, offset }, call);
        offset += BigInt(part.length);
      }
    });
  }

  /** Closes standard input; on a terminal this types the end-of-file character. A second call has no effect. */
  async closeStdin(call?: CallOptions): Promise<void> {
    await this.#exclusive(() => this.#write({ close: true }, call).catch(ignoreClosedStdin));
  }

  /** Sends a signal by its number, with `tree` also to all descendants. It is never sent twice. */
  async signal(signal: number, options: SignalOptions = {}): Promise<void> {
    const request = { ...this.#ref, signal: integer("signal", signal), tree: options.tree ?? false };
    await this.#io.once((to) => this.#io.processes.signalProcess(request, to), options);
  }

  /** Kills the process with all its descendants. Returns when they have exited. A second call has no effect. */
  async kill(call?: CallOptions): Promise<void> {
    await this.#io.safe((to) => this.#io.processes.killProcess(this.#ref, to), call);
  }

  /** Changes the size of the terminal. */
  async resize(rows: number, cols: number, call?: CallOptions): Promise<void> {
    const terminal = { rows: integer("rows", rows), cols: integer("cols", cols) };
    await this.#io.safe((to) => this.#io.processes.resizeProcess({ ...this.#ref, terminal }, to), call);
  }

  /** Stops following the process: a loop in progress ends. The process keeps running; attach to it for another handle. */
  detach(): void {
    this.#detached.abort(new DOMException("the handle is detached", "AbortError"));
  }

  get #ref(): { sandboxId: string; processId: string } {
    return { sandboxId: this.sandboxId, processId: this.processId };
  }

  /** Runs writes one after the other. */
  #exclusive(write: () => Promise<void>): Promise<void> {
    const done = this.#writing.then(write);
    this.#writing = done.catch(() => undefined);
    return done;
  }

  async #write(
    input: { readonly data?: Uint8Array; readonly offset?: bigint; readonly close?: boolean },
    call?: CallOptions,
  ): Promise<void> {
    await this.#io.safe((to) => this.#io.processes.writeProcessInput({ ...this.#ref, input }, to), call);
  }

  /** Yields the output until the exit, over any number of connections. */
  async *#follow(): AsyncGenerator<OutputChunk, void, undefined> {
    const { limitMs } = this.#options;
    const resumption = new Resumption(this.#io.retry);
    if (this.#output.process !== undefined) resumption.begin();
    while (this.#output.exit === undefined && !this.#detached.signal.aborted) {
      let printed = false;
      try {
        for await (const event of this.#events()) {
          resumption.arrived();
          for (const chunk of this.#output.take(event)) {
            printed = true;
            yield chunk;
          }
        }
        if (this.#output.exit !== undefined) return;
        throw new SandboxConnectionError("the output ended before the process exited", { code: "UNAVAILABLE" });
      } catch (error) {
        if (this.#detached.signal.aborted || this.#output.exit !== undefined) return;
        if (error instanceof ResourceTimeoutError) {
          if (limitMs === undefined) throw error;
          if (printed) continue; // the time was over while output arrived: a listener is slow
          throw commandTimeout(error, limitMs);
        }
        const delay = resumption.delay(error as SandpoolError);
        if (delay === null) throw error;
        await this.#pause(delay);
      }
    }
  }

  async #pause(delayMs: number): Promise<void> {
    try {
      await sleep(delayMs, this.#signal);
    } catch (error) {
      if (!this.#detached.signal.aborted) throw error;
    }
  }

  get #signal(): AbortSignal {
    const { signal } = this.#options;
    return signal === undefined ? this.#detached.signal : AbortSignal.any([signal, this.#detached.signal]);
  }

  async *#events(): AsyncGenerator<ProcessEvent, void, undefined> {
    const { processes } = this.#io;
    const start = this.#output.process === undefined ? this.#options.start : undefined;
    const { stdoutOffset, stderrOffset } = this.#output;
    const request = { ...this.#ref, stdoutOffset: BigInt(stdoutOffset), stderrOffset: BigInt(stderrOffset) };
    const responses = this.#io.stream<{ event?: ProcessEvent | undefined }>(
      (to) => (start ? processes.connectProcess(only(start), to) : processes.attachProcess(request, to)),
      { signal: this.#signal, requestTimeoutMs: this.#leftMs() },
    );
    for await (const { event } of responses) if (event !== undefined) yield event;
  }

  /** Returns the time limit of the next connection, or undefined when the command has no limit. */
  #leftMs(): number | undefined {
    const { limitMs } = this.#options;
    if (limitMs === undefined) return undefined;
    const end = this.#started + limitMs + RESUME_TIMEOUT_MS + COMMAND_MARGIN_MS;
    return Math.max(end - performance.now(), LEAST_MS);
  }
}

/** Starts a process and follows it to its exit. It is killed when the caller gives up or a listener throws. */
export async function runToExit(access: SandboxAccess, command: Command, options: RunOptions): Promise<CommandResult> {
  const { io, sandboxId } = access;
  const { timeoutMs = COMMAND_TIMEOUT_MS, stdin, signal } = options;
  const { env, cwd, user } = options;
  const settings = { env, cwd, user, timeoutMs, idleTimeoutMs: COMMAND_IDLE_TIMEOUT_MS, stdin: stdin !== undefined };
  const request = startRequest(sandboxId, command, settings);
  const { processId } = request;
  signal?.throwIfAborted();
  // Input needs a process that is known to run; otherwise one call starts the process and streams its output.
  const separate = stdin !== undefined || !io.duplex;
  const follow = { start: separate ? undefined : request, limitMs: timeoutMs ?? undefined, signal };
  const process = new Process(io, sandboxId, processId, new Output(), follow);
  try {
    if (separate) await io.safe((to) => io.processes.startProcess(request, to), options);
    if (stdin === undefined) return await process.wait(options);
    const fed = feed(io, { sandboxId, processId }, stdin, signal).catch(ignoreClosedStdin);
    const [result] = await Promise.all([process.wait(options), fed]);
    return result;
  } catch (error) {
    process.detach();
    if (!(error instanceof SandpoolError)) await process.kill({ requestTimeoutMs: KILL_TIMEOUT_MS }).catch(ignoreOwn);
    throw error;
  }
}

/** Writes the whole standard input of a process and closes it, as long as a broken stream is resumed. */
async function feed(
  io: SandboxIo,
  ref: { readonly sandboxId: string; readonly processId: string },
  data: string | Uint8Array,
  signal: AbortSignal | undefined,
): Promise<void> {
  let offset = 0n;
  const inputs: { readonly data?: Uint8Array; readonly offset?: bigint; readonly close?: boolean }[] = [];
  for (const part of inputParts(data)) {
    inputs.push({ data: part, offset });
    offset += BigInt(part.length);
  }
  for (const input of [...inputs, { close: true }]) {
    const resumption = new Resumption(io.retry);
    resumption.begin();
    for (let written = false; !written; ) {
      try {
        await io.safe((to) => io.processes.writeProcessInput({ ...ref, input }, to), { signal });
        written = true;
      } catch (error) {
        const delay = resumption.delay(error as SandpoolError);
        if (delay === null) throw error;
        await sleep(delay, signal);
      }
    }
  }
}

/** Starts a process and returns its handle. */
export async function startProcess(
  { io, sandboxId }: SandboxAccess,
  request: StartRequest,
  call: CallOptions,
  most?: number,
): Promise<Process> {
  const response = await io.safe((to) => io.processes.startProcess(request, to), call);
  return new Process(io, sandboxId, toProcessInfo(response.process), new Output(0, 0, most));
}

/** Splits input into parts that fit into a request; yields one part for empty input, so that errors are reported. */
export function* inputParts(data: string | Uint8Array): Generator<Uint8Array, void, undefined> {
  const bytes = bytesOf(data);
  if (bytes.length === 0) yield bytes;
  yield* pieces(bytes, INPUT_BYTES);
}

/** The only request of a call that accepts several. */
async function* only(start: StartRequest) {
  yield { message: { case: "start" as const, value: start } };
}

/** Ignores that standard input is closed: by an earlier call, or because the process does not read it. */
export function ignoreClosedStdin(error: unknown): void {
  const closed = error instanceof ResourceStateError && ["STDIN_CLOSED", "PROCESS_EXITED"].includes(error.reason ?? "");
  if (!closed) throw error;
}

/** Ignores errors of this package. */
function ignoreOwn(error: unknown): void {
  if (!(error instanceof SandpoolError)) throw error;
}
