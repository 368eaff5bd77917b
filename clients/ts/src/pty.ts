import type { CommandHandle } from "./command.js";
import type { CommandResult, TerminalSize } from "./inside-types.js";

/** The size of a terminal where none is given. */
export const TERMINAL: TerminalSize = { rows: 24, cols: 80 };

/** Shells count a signal's number on top of this. */
const SIGNALED = 128;

/** Gets what a terminal prints. */
export type OnData = (data: Uint8Array) => void;
/** Gets the exit code of a terminal's program, 128 and the signal's number where one ended it. */
export type OnExit = (code: number) => void;

/** What listens to a terminal. */
export interface PtyListeners {
  /** Called with what the terminal prints, as it comes. Without it, iterate over the terminal instead. */
  readonly onData?: OnData | undefined;
  /** Called when the program has ended. */
  readonly onExit?: OnExit | undefined;
}

/**
 * A program on a terminal in a sandbox.
 *
 * What it prints goes to `onData` as it comes; without `onData`, iterate over the terminal instead. At the end of an
 * `await using` block it is killed. A connection that breaks is taken up at the byte where it was.
 */
export class Pty implements AsyncIterable<Uint8Array> {
  readonly #handle: CommandHandle;
  readonly #left: AbortController;
  readonly #listeners: PtyListeners;
  readonly #reading: Promise<void> | undefined;

  /** @internal `left` ends what follows the handle. */
  constructor(handle: CommandHandle, left: AbortController, listeners: PtyListeners) {
    this.#handle = handle;
    this.#left = left;
    this.#listeners = listeners;
    if (listeners.onData === undefined && listeners.onExit === undefined) return;
    this.#reading = this.#read();
    this.#reading.catch(() => undefined); // whoever waits hears of it
  }

  /** The process's identifier, for {@link Sandbox.connectPty}. */
  get sessionId(): string {
    return this.#handle.commandId;
  }

  /** The process id inside the sandbox, or null when it had ended before it was looked at. */
  get pid(): number | null {
    return this.#handle.pid;
  }

  /** What the terminal prints, from where it was taken up; one loop at a time. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#reading !== undefined) throw new TypeError("onData gets what the terminal prints; leave it out to iterate");
    for await (const { bytes } of this.#handle) if (bytes.length > 0) yield bytes;
  }

  /** How the program ended; waits for that. */
  get result(): Promise<CommandResult> {
    return this.wait().then(() => this.#handle.result);
  }

  /** Types something. */
  sendInput(data: string | Uint8Array): Promise<void> {
    return this.#handle.sendInput(data);
  }

  /** Changes the terminal's size; the program is told. */
  resize(size: TerminalSize): Promise<void> {
    return this.#handle.resize(size);
  }

  /** Kills the program with every process that it started. */
  kill(): Promise<void> {
    return this.#handle.kill();
  }

  /**
   * Resolves when the program has ended, to its exit code, 128 and the signal's number where one ended it. What it prints
   * meanwhile and nobody iterates over is dropped.
   */
  async wait(): Promise<number> {
    await this.#reading;
    return exitCode(await this.#handle.result);
  }

  /** Stops to follow it; the program goes on, and {@link Sandbox.connectPty} takes it up. */
  async disconnect(): Promise<void> {
    this.#left.abort(new DOMException("the terminal is followed no longer", "AbortError"));
    await this.#reading?.catch(() => undefined);
  }

  /** Kills the program at the end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.disconnect();
  }

  async #read(): Promise<void> {
    for await (const { bytes } of this.#handle) if (bytes.length > 0) this.#listeners.onData?.(bytes);
    this.#listeners.onExit?.(exitCode(await this.#handle.result));
  }
}

function exitCode({ exitCode, signal }: CommandResult): number {
  return exitCode ?? SIGNALED + (signal ?? 0);
}
