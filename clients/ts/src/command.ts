import { type SandpoolError, SandboxConnectionError } from "./core/errors.js";
import { type Inside, streamName, toProcessEnd } from "./core/inside.js";
import { DEFAULT_RETRY, retryDelay, sleep } from "./core/retry.js";
import type { ProcessEvent } from "./gen/sandpool/v1/process_pb.js";
import type { CommandResult, OutputChunk, ProcessEnd, TerminalSize } from "./types.js";

/** The bytes of a stream so far, and what makes text of them without cutting a character. */
class Gathered {
  readonly #decoder = new TextDecoder();
  offset = 0;
  text = "";
  dropped = 0;

  add(bytes: Uint8Array): string {
    const text = this.#decoder.decode(bytes, { stream: true });
    this.text += text;
    this.offset += bytes.length;
    return text;
  }

  skip(to: number): void {
    this.dropped += to - this.offset;
    this.offset = to;
  }

  end(): string {
    const text = this.#decoder.decode();
    this.text += text;
    return text;
  }
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
  readonly #started = performance.now();
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
  ) {
    this.#inside = inside;
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

  /** How much of each stream has arrived: give these to {@link Sandbox.reconnect}. */
  get offsets(): { readonly stdoutOffset: number; readonly stderrOffset: number } {
    return { stdoutOffset: this.#streams.stdout.offset, stderrOffset: this.#streams.stderr.offset };
  }

  /** Kills the command and every process that it started; resolves when they are gone. */
  async kill(): Promise<void> {
    await this.#inside.safe((to) => this.#inside.processes.killProcess(this.#ref(), to));
  }

  /** Writes to the command's standard input, or types on its terminal. Resolves when it has been taken. */
  async sendInput(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    // Where the input is now, so that a repetition is told from more of the same.
    const found = await this.#inside.safe((to) => this.#inside.processes.getProcess(this.#ref(), to));
    let offset = found.process?.stdinBytes ?? 0n;
    for (let begin = 0; begin < bytes.length || begin === 0; begin += LARGEST_INPUT) {
      const part = bytes.subarray(begin, begin + LARGEST_INPUT);
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
    return {
      stdout: stdout.text,
      stderr: stderr.text,
      ...end,
      success: end.reason === "exited" && end.exitCode === 0,
      durationMs: performance.now() - this.#started,
      stdoutBytes: null,
      stderrBytes: null,
      stdoutDroppedBytes: stdout.dropped,
      stderrDroppedBytes: stderr.dropped,
    };
  }

  /** The output until the end, over as many connections as it takes. */
  async *#follow(): AsyncGenerator<OutputChunk, void, undefined> {
    for (let retry = 0; this.#end === undefined; ) {
      try {
        for await (const event of this.#events()) {
          retry = 0;
          yield* this.#take(event);
        }
      } catch (error) {
        const delay = this.#end === undefined ? this.#delay(error as SandpoolError, retry) : null;
        if (delay === null) throw error;
        retry += 1;
        await sleep(delay, this.#signal);
      }
    }
  }

  #delay(error: SandpoolError, retry: number): number | null {
    return retryDelay(error, retry, "safe", { ...DEFAULT_RETRY, maxRetries: this.#inside.retries * RETRIES_FACTOR });
  }

  async *#events(): AsyncGenerator<ProcessEvent, void, undefined> {
    const { stdout, stderr } = this.#streams;
    const request = { ...this.#ref(), stdoutOffset: BigInt(stdout.offset), stderrOffset: BigInt(stderr.offset) };
    const answers = this.#inside.stream((to) => this.#inside.processes.attachProcess(request, to), this.#signal);
    for await (const { event } of answers) if (event !== undefined) yield event;
  }

  *#take({ event }: ProcessEvent): Generator<OutputChunk, void, undefined> {
    if (event.case === "output") {
      const stream = streamName(event.value.stream);
      const gathered = this.#streams[stream];
      const { offset } = gathered;
      yield { stream, data: gathered.add(event.value.data), bytes: event.value.data, offset };
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
}

/** How much input goes in one message. */
const LARGEST_INPUT = 1 << 20;
/** A server that is started again needs longer than a call is repeated for. */
const RETRIES_FACTOR = 5;
