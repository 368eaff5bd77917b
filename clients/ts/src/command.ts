import type { MessageInitShape } from "@bufbuild/protobuf";
import { bytesOf, joined, pieces } from "./core/bytes.js";
import { ResourceTimeoutError, type SandpoolError, SandboxConnectionError } from "./core/errors.js";
import { type Inside, streamName, toProcessEnd } from "./core/inside.js";
import { retryDelay, sleep } from "./core/retry.js";
import type { ProcessEvent } from "./gen/sandpool/v1/process_pb.js";
import type { StartProcessRequestSchema } from "./gen/sandpool/v1/process_service_pb.js";
import type { OutputListeners } from "./inside-options.js";
import type { CommandResult, OutputChunk, ProcessEnd, TerminalSize } from "./inside-types.js";
import type { CallOptions } from "./options.js";

/** How much of each stream a result holds; what is beyond that is counted and dropped. */
const KEPT_BYTES = 64 << 20;
/** How much input goes in one message. */
const LARGEST_INPUT = 1 << 20;
/** What may pass beyond a command's own limit until its end must have come: a broken connection, its killing. */
const MARGIN_MS = 70_000;
/** What a call gets all the same when that has passed. */
const LEAST_MS = 10_000;
/** The offset that means: what is printed from now on. */
const LATEST = -1;

/** One stream of output: where it is, what was kept of it, and what makes text of it without cutting a character. */
class Gathered {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #parts: Uint8Array[] = [];
  #kept = 0;
  offset = 0;
  dropped = 0;

  /** The text of these bytes, as far as its characters are whole. */
  add(bytes: Uint8Array): string {
    const part = bytes.subarray(0, Math.max(0, KEPT_BYTES - this.#kept));
    if (part.length > 0) this.#parts.push(part);
    this.#kept += part.length;
    this.dropped += bytes.length - part.length;
    this.offset += bytes.length;
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** Goes over bytes that cannot be had any more. */
  skip(to: number): void {
    if (this.offset !== LATEST) this.dropped += Math.max(0, to - this.offset);
    this.offset = Math.max(to, this.offset);
  }

  /** What is left of a character that was cut for good. */
  end(): string {
    return this.#decoder.decode();
  }

  /** All that was kept, as text, and as it was where that is not UTF-8. */
  whole(): { text: string; bytes: Uint8Array | null } {
    const bytes = joined(this.#parts);
    try {
      return { text: new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(bytes), bytes: null };
    } catch {
      return { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), bytes };
    }
  }
}

/** What starts a command. */
export type StartRequest = MessageInitShape<typeof StartProcessRequestSchema>;

/** A command whose end is waited for. */
export interface Awaited {
  /** How long it may run, in milliseconds. */
  readonly limitMs: number;
  /** Starts it by following it, in one call; null where it has been started. */
  readonly request: StartRequest | null;
}

/**
 * A command that runs on its own: it outlives the connection, and its output is taken up where it was left.
 *
 * Iterate over it for the output while it comes, or await {@link CommandHandle.result}. When the connection or the server
 * breaks, both go on by themselves: nothing is lost and nothing runs twice.
 */
export class CommandHandle implements AsyncIterable<OutputChunk> {
  readonly #inside: Inside;
  readonly #signal: AbortSignal | undefined;
  readonly #streams = { stdout: new Gathered(), stderr: new Gathered() };
  readonly #began = performance.now();
  readonly #awaited: Awaited | undefined;
  /** Whether the command is known to run, so that it is attached to and not started. */
  #runs: boolean;
  #end: ProcessEnd | undefined;
  #chunks: AsyncGenerator<OutputChunk, void, undefined> | undefined;
  #result: Promise<CommandResult> | undefined;

  /** Names the command in its sandbox; see {@link Sandbox.reconnect}. */
  readonly commandId: string;
  /** The sandbox in which it runs. */
  readonly sandboxId: string;
  /** The process id inside the sandbox, or null when it had ended before it was looked at. */
  readonly pid: number | null;

  /** @internal Handles come from a {@link Sandbox}. */
  constructor(
    inside: Inside,
    about: { sandboxId: string; commandId: string; pid: number | null },
    from: { stdoutOffset?: number | undefined; stderrOffset?: number | undefined } = {},
    signal?: AbortSignal,
    awaited?: Awaited,
  ) {
    this.#inside = inside;
    this.#awaited = awaited;
    this.#runs = !awaited?.request;
    this.sandboxId = about.sandboxId;
    this.commandId = about.commandId;
    this.pid = about.pid;
    this.#streams.stdout.offset = from.stdoutOffset ?? 0;
    this.#streams.stderr.offset = from.stderrOffset ?? 0;
    this.#signal = signal;
  }

  /** The output from where this handle is; one loop at a time. */
  [Symbol.asyncIterator](): AsyncGenerator<OutputChunk, void, undefined> {
    this.#chunks ??= this.#follow();
    return this.#chunks;
  }

  /** Resolves when the command has ended and all its output has arrived, whether somebody iterates or not. */
  get result(): Promise<CommandResult> {
    this.#result ??= this.#drain();
    return this.#result;
  }

  /** The same as {@link CommandHandle.result}; output is given to the listeners as it comes. */
  async wait(listeners: OutputListeners = {}): Promise<CommandResult> {
    for await (const { stream, data } of this) (stream === "stdout" ? listeners.onStdout : listeners.onStderr)?.(data);
    return this.result;
  }

  /** How much of each stream has arrived: give these to {@link Sandbox.reconnect}. */
  get offsets(): { readonly stdoutOffset: number; readonly stderrOffset: number } {
    return { stdoutOffset: this.#streams.stdout.offset, stderrOffset: this.#streams.stderr.offset };
  }

  /** Kills the command and every process that it started; resolves when they are gone. */
  async kill(call?: CallOptions): Promise<void> {
    await this.#inside.safe((to) => this.#inside.processes.killProcess(this.#ref(), to), call);
  }

  /** Sends it a signal, such as 15, with `tree` also to all that it started. It is never sent twice. */
  async sendSignal(signal: number, options: { readonly tree?: boolean } = {}): Promise<void> {
    const request = { ...this.#ref(), signal, tree: options.tree ?? false };
    await this.#inside.once((to) => this.#inside.processes.signalProcess(request, to));
  }

  /** Writes to the command's standard input, or types on its terminal. Resolves when it has been taken. */
  async sendInput(data: string | Uint8Array): Promise<void> {
    // Where the input is now, so that a repetition is told from more of the same.
    const found = await this.#inside.safe((to) => this.#inside.processes.getProcess(this.#ref(), to));
    let offset = found.process?.stdinBytes ?? 0n;
    for (const part of inputParts(data)) {
      await this.#write({ data: part, offset });
      offset += BigInt(part.length);
    }
  }

  /** Ends the standard input; on a terminal this types the end-of-file character. */
  async closeInput(): Promise<void> {
    await this.#write({ close: true });
  }

  /** Changes the size of the command's terminal. */
  async resize(terminal: TerminalSize): Promise<void> {
    await this.#inside.safe((to) => this.#inside.processes.resizeProcess({ ...this.#ref(), terminal }, to));
  }

  /** Another handle of the same command, from where this one is. */
  reconnect(): CommandHandle {
    return new CommandHandle(this.#inside, this, this.offsets, this.#signal);
  }

  #ref(): { sandboxId: string; processId: string } {
    return { sandboxId: this.sandboxId, processId: this.commandId };
  }

  async #write(input: { data?: Uint8Array; offset?: bigint; close?: boolean }): Promise<void> {
    await this.#inside.safe((to) => this.#inside.processes.writeProcessInput({ ...this.#ref(), input }, to));
  }

  async #drain(): Promise<CommandResult> {
    for await (const _ of this);
    const end = this.#end;
    if (end === undefined) throw new SandboxConnectionError("the output was left before the command ended");
    const { stdout, stderr } = this.#streams;
    const [out, err] = [stdout.whole(), stderr.whole()];
    return {
      stdout: out.text,
      stderr: err.text,
      ...end,
      success: end.reason === "exited" && end.exitCode === 0,
      timedOut: end.reason === "timed_out",
      durationMs: performance.now() - this.#began,
      stdoutBytes: out.bytes,
      stderrBytes: err.bytes,
      stdoutDroppedBytes: stdout.dropped,
      stderrDroppedBytes: stderr.dropped,
    };
  }

  /** The output until the end, over as many connections as it takes. */
  async *#follow(): AsyncGenerator<OutputChunk, void, undefined> {
    for (let retry = 0; this.#end === undefined; ) {
      let printed = false;
      try {
        for await (const event of this.#events()) {
          retry = 0;
          for (const chunk of this.#take(event)) {
            printed = true;
            yield chunk;
          }
        }
        if (this.#end === undefined) throw new SandboxConnectionError("the output ended before the command had");
      } catch (error) {
        // A call whose time is over while output comes says no more than that whoever listens is slow.
        if (this.#end === undefined && printed && error instanceof ResourceTimeoutError) continue;
        const ours = error as SandpoolError;
        const delay = this.#end === undefined ? retryDelay(ours, retry, "safe", this.#inside.patient) : null;
        if (delay === null) throw error;
        retry += 1;
        await sleep(delay, this.#signal);
      }
    }
  }

  async *#events(): AsyncGenerator<ProcessEvent, void, undefined> {
    const { processes } = this.#inside;
    const { stdout, stderr } = this.#streams;
    const start = this.#runs ? null : this.#awaited?.request;
    const request = { ...this.#ref(), stdoutOffset: BigInt(stdout.offset), stderrOffset: BigInt(stderr.offset) };
    const answers = this.#inside.stream<{ event?: ProcessEvent | undefined }>(
      (to) => (start ? processes.connectProcess(once(start), to) : processes.attachProcess(request, to)),
      this.#signal,
      this.#leftMs(),
    );
    for await (const { event } of answers) {
      this.#runs = true;
      if (event !== undefined) yield event;
    }
  }

  /** How long the next call may take, in milliseconds, where the command has a limit. */
  #leftMs(): number | undefined {
    if (this.#awaited === undefined) return undefined;
    return Math.max(this.#began + this.#awaited.limitMs + MARGIN_MS - performance.now(), LEAST_MS);
  }

  *#take({ event }: ProcessEvent): Generator<OutputChunk, void, undefined> {
    if (event.case === "output") {
      const stream = streamName(event.value.stream);
      const chunk = this.#output(stream, Number(event.value.offset), event.value.data);
      if (chunk !== null) yield chunk;
    } else if (event.case === "gap") {
      this.#streams[streamName(event.value.stream)].skip(Number(event.value.end));
    } else if (event.case === "ended") {
      this.#end = toProcessEnd(event.value);
      for (const stream of ["stdout", "stderr"] as const) {
        const { offset } = this.#streams[stream];
        const data = this.#streams[stream].end();
        if (data !== "") yield { stream, data, bytes: new Uint8Array(), offset };
      }
    }
  }

  /** The chunk of an output's bytes, as far as they are new; null where none is. A gap that nobody told shows too. */
  #output(stream: "stdout" | "stderr", at: number, data: Uint8Array): OutputChunk | null {
    const gathered = this.#streams[stream];
    if (gathered.offset < at) gathered.skip(at);
    const { offset } = gathered;
    const bytes = data.subarray(offset - at);
    return bytes.length === 0 ? null : { stream, data: gathered.add(bytes), bytes, offset };
  }
}

/** Input in parts that fit into a message; at least one, so that whoever sends it hears whether it is taken. */
export function* inputParts(data: string | Uint8Array): Generator<Uint8Array, void, undefined> {
  const bytes = bytesOf(data);
  if (bytes.length === 0) yield bytes;
  yield* pieces(bytes, LARGEST_INPUT);
}

/** The one request of a call that could have more of them. */
async function* once(start: StartRequest) {
  yield { message: { case: "start" as const, value: start } };
}
