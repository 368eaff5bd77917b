/** What calls take that do something inside a sandbox. */
import type { RestartPolicy, TerminalSize } from "./inside-types.js";
import type { PtyListeners } from "./pty.js";

/** Where the output of a command goes while it comes. */
export interface OutputListeners {
  /** Called with each piece of standard output; with a terminal, with all that it shows. */
  readonly onStdout?: ((text: string) => void) | undefined;
  /** Called with each piece of standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

/** Where the output of a command goes while it comes, and what else only a command with a stream of its own has. */
export interface StreamOptions extends OutputListeners {
  /** For how many seconds the command may run with no client attached; then it is killed. Default 300. */
  readonly idleTimeout?: number | undefined;
  /** Whether it is killed as soon as no client is attached any more. Default false. */
  readonly killOnDisconnect?: boolean | undefined;
  /** For how many seconds its output is kept after its end. Default 600. */
  readonly ttlSeconds?: number | undefined;
  /** Whether it takes input; see `CommandHandle.sendInput`. Default with `wait: false`; a terminal always does. */
  readonly stdin?: boolean | undefined;
  /** Run it on a terminal: of 24 lines and 80 columns, or of this size. Default false. */
  readonly pty?: boolean | TerminalSize | undefined;
  /** The command's identifier; choose one to find it again. Default: a random one. */
  readonly commandId?: string | undefined;
}

/** How to start a command without waiting for its end. */
export type StartOptions = RunOptions & StreamOptions & { readonly wait: false };

/** How a command that is given as one string is read. */
export interface CommandOptions {
  /** The arguments: the string is the program then, and no shell is needed. */
  readonly args?: readonly string[] | undefined;
  /** Another shell for the line, such as `/bin/zsh`. Default /bin/bash, or /bin/sh. */
  readonly shell?: string | undefined;
}

/** In what surroundings something runs. */
export interface PlaceOptions {
  /** Environment variables over those of the sandbox. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory, an absolute path that exists. Default the image's. */
  readonly cwd?: string | undefined;
  /** The same as `cwd`. */
  readonly workingDir?: string | undefined;
  /** The user to run as: a name that the image knows, or a number with an optional group, `1000:1000`. */
  readonly user?: string | undefined;
}

/** How to start a process. */
export interface ProcessOptions extends CommandOptions, PlaceOptions {
  /** The identifier; the same one again starts nothing. Default: a random one. */
  readonly processId?: string | undefined;
  /** Whether its standard input can be written to. Default false: it is empty. */
  readonly stdin?: boolean | undefined;
  /** The same as `stdin`: `pipe` is true, `closed` false. */
  readonly stdinMode?: "closed" | "pipe" | undefined;
  readonly terminal?: TerminalSize | undefined;
  /** Limits in seconds. */
  readonly timeout?: number | undefined;
  readonly idleTimeout?: number | undefined;
  readonly ttlSeconds?: number | undefined;
  readonly killOnDisconnect?: boolean | undefined;
  /** How many of the last bytes of each stream are kept. Default 1 MiB. */
  readonly outputBufferBytes?: number | undefined;
  /**
   * What happens when it prints more than is kept: it waits for clients that are attached, else the oldest bytes go
   * (`wait_attached`, the default); the oldest bytes go (`drop_oldest`); it waits until somebody has read them (`wait`).
   */
  readonly outputOverflow?: "wait_attached" | "drop_oldest" | "wait" | undefined;
  /** Makes it a service of this name. */
  readonly name?: string | undefined;
  /** When a service is started again. Default `never`. */
  readonly restart?: RestartPolicy | undefined;
  /** How it is found out whether a service is well. */
  readonly healthCheck?: HealthCheck | undefined;
}

/** How to start a program on a terminal. */
export interface PtyOptions extends PtyListeners, PlaceOptions, Partial<TerminalSize> {
  /** A line for the shell, or a program with its arguments. Default: an interactive shell. */
  readonly command?: string | readonly string[] | undefined;
  /** With a `command` that is one string: that is the program, and these are its arguments. */
  readonly args?: readonly string[] | undefined;
  /** Environment variables over those of the sandbox; TERM is xterm-256color by default. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Limits in seconds; none by default. */
  readonly timeout?: number | undefined;
  readonly idleTimeout?: number | undefined;
}

/** From where on a process's output is wanted, in bytes; -1: from now on. Default all that is kept. */
export interface OutputOffsets {
  readonly stdoutOffset?: number | undefined;
  readonly stderrOffset?: number | undefined;
}

/** A health check by HTTP (a `path`) or by connecting. */
export interface HealthCheck {
  readonly port: number;
  /** The path to GET; without one a connection is enough. */
  readonly path?: string | undefined;
  readonly intervalSecs?: number | undefined;
  readonly timeoutSecs?: number | undefined;
  readonly retries?: number | undefined;
}

/** What a file is to be. */
export interface FileOptions {
  /** The permission bits, such as 0o755. Default those of the file that is replaced, else 0o644. */
  readonly mode?: number | undefined;
  /** The owner, a name or number with an optional group. */
  readonly owner?: string | undefined;
}

/** How to write a file. */
export interface WriteOptions extends FileOptions {
  /** What to do with a file that is there. Default `replace`. */
  readonly writeMode?: "replace" | "create" | "append" | undefined;
  /** Called with how many bytes have gone, of how many; undefined where the content comes in parts. */
  readonly onProgress?: ((bytes: number, total: number | undefined) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to copy a file between this machine and a sandbox. */
export interface TransferOptions {
  /** Called with how many bytes have gone or come, of how many. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to copy a file of this machine into a sandbox. */
export interface UploadOptions extends TransferOptions, FileOptions {}

/** Which part of a file to read. */
export interface RangeOptions {
  /** Where to begin, in bytes. Default 0. */
  readonly offset?: number | undefined;
  /** How many bytes. Default all. */
  readonly length?: number | undefined;
}

/** How to read a file. */
export interface ReadOptions extends RangeOptions {
  /** Called with how many bytes have come, of how many the file has. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Which log lines to read. */
export interface LogOptions {
  readonly sources?: readonly string[] | undefined;
  /** Only the last so many of those that are there. */
  readonly tail?: number | undefined;
  readonly since?: Date | undefined;
  /** Only entries after this sequence. */
  readonly afterSequence?: number | undefined;
  /** Go on with what is printed from now on. Default false. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to run a command. */
export interface RunOptions extends CommandOptions, PlaceOptions {
  /** How long the command may run in seconds, 0.001 to 86,400; then it is killed. Default 60. */
  readonly timeout?: number | undefined;
  /** Kills the command when aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}
