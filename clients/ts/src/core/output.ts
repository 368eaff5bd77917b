/** The output of a process as a client receives it over any number of connections. */
import type { ProcessEvent } from "../gen/sandpool/v1/process_pb.js";
import type { CommandResult, OutputChunk, OutputStream, ProcessExit, ProcessInfo } from "../sandbox-types.js";
import { joined } from "./bytes.js";
import { toProcessExit, toProcessInfo } from "./convert-io.js";
import { toOutputStream } from "./enums.js";

/** The number of bytes of each stream that a result contains; the rest is counted and dropped. */
export const RESULT_BYTES = 64 << 20;
/** The offset that stands for later output only. */
const LATEST = -1;

/** One stream: its offset, the retained bytes, and the decoder that never splits a character. */
class Tail {
  readonly #stream: OutputStream;
  readonly #most: number;
  readonly #parts: Uint8Array[] = [];
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #size = 0;
  /** The number of missing bytes before the next chunk. */
  #gap = 0;
  offset: number;
  /** The number of bytes that a result does not contain. */
  dropped = 0;

  constructor(stream: OutputStream, offset: number, most: number) {
    this.#stream = stream;
    this.offset = offset;
    this.#most = most;
  }

  /** Returns the chunk of received bytes, or null when all of them were received before. */
  take(at: number, data: Uint8Array): OutputChunk | null {
    if (this.offset === LATEST) this.offset = at;
    if (this.offset < at) this.skip(at); // a gap without an event
    const { offset } = this;
    const dataBytes = data.subarray(offset - at);
    if (dataBytes.length === 0) return null;
    this.offset += dataBytes.length;
    this.#retain(dataBytes);
    const droppedBytes = this.#gap;
    this.#gap = 0;
    const text = this.#decoder.decode(dataBytes, { stream: true });
    return { stream: this.#stream, data: text, dataBytes, offset, droppedBytes };
  }

  /** Skips bytes that can no longer be read. */
  skip(to: number): void {
    const missing = this.offset === LATEST ? 0 : Math.max(0, to - this.offset);
    this.#decoder.decode(); // drops an incomplete character
    this.offset = Math.max(this.offset, to);
    this.#gap += missing;
    this.dropped += missing;
  }

  /** Sets the offset of a tail that receives later output only. */
  start(endOffset: number): void {
    if (this.offset === LATEST) this.offset = endOffset;
  }

  /** Returns the chunk of a character that remained incomplete, or null. */
  finish(): OutputChunk | null {
    const { offset } = this;
    const data = this.#decoder.decode();
    if (data === "") return null;
    return { stream: this.#stream, data, dataBytes: new Uint8Array(), offset, droppedBytes: 0 };
  }

  /** Returns the retained bytes, also as text. */
  retained(): { text: string; bytes: Uint8Array } {
    const bytes = joined(this.#parts);
    return { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), bytes };
  }

  #retain(data: Uint8Array): void {
    const part = data.subarray(0, Math.max(0, this.#most - this.#size));
    if (part.length > 0) this.#parts.push(part);
    this.#size += part.length;
    this.dropped += data.length - part.length;
  }
}

/** The output and the exit of one process. */
export class Output {
  readonly #started = performance.now();
  readonly #tails: Readonly<Record<OutputStream, Tail>>;
  #durationMs = 0;
  /** The process at the last event about it, or undefined before the first one. */
  process: ProcessInfo | undefined;
  /** How the process exited, or undefined before. */
  exit: ProcessExit | undefined;

  /** `most` is the number of bytes of each stream to retain for the result. */
  constructor(stdoutOffset = 0, stderrOffset = 0, most = RESULT_BYTES) {
    this.#tails = {
      stdout: new Tail("stdout", stdoutOffset, most),
      stderr: new Tail("stderr", stderrOffset, most),
    };
  }

  /** The offset after the last received byte of standard output. */
  get stdoutOffset(): number {
    return this.#tails.stdout.offset;
  }

  /** The offset after the last received byte of standard error. */
  get stderrOffset(): number {
    return this.#tails.stderr.offset;
  }

  /** Yields the chunks of an event. */
  *take({ event }: ProcessEvent): Generator<OutputChunk, void, undefined> {
    switch (event.case) {
      case "process":
        this.process = toProcessInfo(event.value);
        this.#tails.stdout.start(this.process.stdout.endOffset);
        this.#tails.stderr.start(this.process.stderr.endOffset);
        return;
      case "output": {
        const { stream, offset, data } = event.value;
        const chunk = this.#tails[toOutputStream(stream)].take(Number(offset), data);
        if (chunk !== null) yield chunk;
        return;
      }
      case "gap":
        this.#tails[toOutputStream(event.value.stream)].skip(Number(event.value.endOffset));
        return;
      case "exited":
        this.exit = toProcessExit(event.value);
        this.#durationMs = performance.now() - this.#started;
        for (const tail of Object.values(this.#tails)) {
          const chunk = tail.finish();
          if (chunk !== null) yield chunk;
        }
    }
  }

  /** Returns the result; the exit must be known. */
  result(): CommandResult {
    const { exit, process } = this;
    if (exit === undefined) throw new Error("the process has not exited");
    const { stdout, stderr } = this.#tails;
    const [out, err] = [stdout.retained(), stderr.retained()];
    const { startTime = null, endTime = null } = process ?? {};
    return {
      stdout: out.text,
      stderr: err.text,
      stdoutBytes: out.bytes,
      stderrBytes: err.bytes,
      ...exit,
      success: exit.exitCode === 0,
      timedOut: exit.reason === "timed_out",
      durationMs: startTime && endTime ? endTime.getTime() - startTime.getTime() : this.#durationMs,
      stdoutDroppedBytes: stdout.dropped,
      stderrDroppedBytes: stderr.dropped,
    };
  }
}
