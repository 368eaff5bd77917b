/** The options of a sandbox's methods. Durations are milliseconds. */
import type { CallOptions, ListOptions, WatchOptions } from "./options.js";
import type { OutputOverflow, ProcessState, RestartPolicy, TerminalSize, WriteMode } from "./sandbox-types.js";

/** A shell command, run by /bin/bash or /bin/sh; or a program and its arguments, which needs no shell. */
export type Command = string | readonly string[];

/** Listeners for output. */
export interface OutputListeners {
  /** Called with each piece of standard output; with a terminal, with all output. */
  readonly onStdout?: ((text: string) => void) | undefined;
  /** Called with each piece of standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

/** The environment of a command. */
export interface EnvironmentOptions {
  /** Environment variables that override those of the sandbox. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory, an absolute path to an existing directory. Default: that of the image. */
  readonly cwd?: string | undefined;
  /** The user: a name of the image, or a number, with an optional group, for example `1000:1000`. Default: that of the image. */
  readonly user?: string | undefined;
}

/** The options of `run`. */
export interface RunOptions extends CallOptions, EnvironmentOptions, OutputListeners {
  /**
   * The time limit of the command, 1 to 86,400,000; then it is killed with all its descendants. Null: no limit.
   * Default: 60,000.
   */
  readonly timeoutMs?: number | null | undefined;
  /** The standard input of the command. Default: empty. */
  readonly stdin?: string | Uint8Array | undefined;
  /**
   * Whether the command survives a broken connection. False: it is one request with one response, of at most 1 MiB of
   * each stream; when the connection breaks, the command is killed, and no time limit means 24 hours. Default: true.
   */
  readonly resumable?: boolean | undefined;
}

/** The options of a new process. */
export interface StartOptions extends CallOptions, EnvironmentOptions {
  /** The identifier of the process. A second start with the same value starts nothing. Default: a generated value. */
  readonly processId?: string | undefined;
  /** Whether standard input accepts data. Default: false. A terminal always accepts input. */
  readonly stdin?: boolean | undefined;
  /** Runs the process on a terminal of this size. Default: no terminal. */
  readonly terminal?: TerminalSize | undefined;
  /** The time limit of the process; null: no limit, the default. */
  readonly timeoutMs?: number | null | undefined;
  /** The time for which the process may run without an attached client; null: no limit, the default. */
  readonly idleTimeoutMs?: number | null | undefined;
  /** Whether the process is killed as soon as no client is attached. Default: false. */
  readonly killOnDisconnect?: boolean | undefined;
  /** How long the record and the output are retained after the process exited. Default: 600,000. */
  readonly retentionMs?: number | undefined;
  /** The number of bytes that are buffered for each stream. Default: 1 MiB. */
  readonly outputBufferBytes?: number | undefined;
  /** The action when the process writes more output than the buffer can hold. Default: `wait_attached`. */
  readonly outputOverflow?: OutputOverflow | undefined;
  /** Makes the process a service of this name. Default: not a service. */
  readonly name?: string | undefined;
  /** When the service is restarted. Default: `never`. */
  readonly restartPolicy?: Exclude<RestartPolicy, "unknown"> | undefined;
  /** The health check of the service. Default: none. */
  readonly healthCheck?: HealthCheck | undefined;
}

/** A periodic check of a service: by an HTTP request, or by a connection. */
export interface HealthCheck {
  /** The port in the sandbox. */
  readonly port: number;
  /** The path of a GET request; without it the check opens a connection. */
  readonly path?: string | undefined;
  /** The time between two checks. Default: 2,000. */
  readonly intervalMs?: number | undefined;
  /** The time limit of one check. Default: 2,000. */
  readonly timeoutMs?: number | undefined;
  /** The number of consecutive failed checks after which the service is unhealthy. Default: 3. */
  readonly failureThreshold?: number | undefined;
}

/** The options of a list of processes. */
export interface ListProcessesOptions extends ListOptions {
  /** Only processes in these states. Default: all. */
  readonly states?: readonly Exclude<ProcessState, "unknown">[] | undefined;
}

/** The offsets at which output is read, in bytes; -1: only later output. Default: 0. */
export interface OutputOffsets {
  readonly stdoutOffset?: number | undefined;
  readonly stderrOffset?: number | undefined;
}

/** The options of a handle of an existing process. */
export interface AttachOptions extends CallOptions, OutputOffsets {}

/** The options of a signal. */
export interface SignalOptions extends CallOptions {
  /** Whether to send the signal to all descendants of the process too. Default: false. */
  readonly tree?: boolean | undefined;
}

/** Listeners for the output of a terminal. */
export interface TerminalListeners {
  /** Called with the output of the terminal. Without it, iterate over the terminal. */
  readonly onData?: ((data: Uint8Array) => void) | undefined;
}

/** The options of a new terminal. */
export interface TerminalOptions extends CallOptions, EnvironmentOptions, TerminalListeners {
  /** The number of rows. Default: 24. */
  readonly rows?: number | undefined;
  /** The number of columns. Default: 80. */
  readonly cols?: number | undefined;
  /** Environment variables that override those of the sandbox; TERM is xterm-256color by default. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The time limit of the program; null: no limit, the default. */
  readonly timeoutMs?: number | null | undefined;
  /** The time for which the program may run without an attached client; null: no limit, the default. */
  readonly idleTimeoutMs?: number | null | undefined;
}

/** The options of a handle of an existing terminal. */
export interface AttachTerminalOptions extends CallOptions, TerminalListeners {
  /** The offset at which output is read, in bytes; -1: only later output. Default: 0. */
  readonly offset?: number | undefined;
}

/** The mode and the owner of a file. */
export interface FileOptions {
  /** The permission bits, for example 0o755. Default: those of the replaced file, otherwise 0o644. */
  readonly mode?: number | undefined;
  /** The owner: a name or a number, with an optional group. Default: that of the replaced file, otherwise the image's user. */
  readonly owner?: string | undefined;
}

/** The options of a write. */
export interface WriteOptions extends CallOptions, FileOptions {
  /** The action when the file exists. Default: `replace`. */
  readonly writeMode?: WriteMode | undefined;
  /** Called with the number of bytes sent and the total; the total is undefined for content in parts. */
  readonly onProgress?: ((bytes: number, total: number | undefined) => void) | undefined;
}

/** The options of a transfer between this machine and a sandbox. */
export interface TransferOptions extends CallOptions {
  /** Called with the number of bytes transferred and the total. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
}

/** The options of the upload of a file. */
export interface UploadOptions extends TransferOptions, FileOptions {
  /** The action when the file exists. Default: `replace`. */
  readonly writeMode?: WriteMode | undefined;
}

/** The options of a read. */
export interface ReadOptions extends CallOptions {
  /** The offset of the first byte. Default: 0. */
  readonly offset?: number | undefined;
  /** The number of bytes. Default: up to the end. */
  readonly length?: number | undefined;
  /** Called with the offset after the last byte received and the size of the file. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
}

/** The options of `files.stat`. */
export interface StatOptions extends CallOptions {
  /** Whether to describe the target of a symbolic link instead of the link. Default: false. */
  readonly followSymlinks?: boolean | undefined;
}

/** The options of `files.list`. */
export interface ListDirectoryOptions extends ListOptions {
  /** The number of levels to list, 1 to 64: 1 for the directory only. Default: 1. */
  readonly depth?: number | undefined;
}

/** The options of `files.mkdir`. */
export interface MakeDirectoryOptions extends CallOptions {
  /** The permission bits of created directories. Default: 0o755. */
  readonly mode?: number | undefined;
  /** The owner of created directories. Default: the image's user. */
  readonly owner?: string | undefined;
}

/** The options of `files.move` and `files.copy`. */
export interface MoveOptions extends CallOptions {
  /** Whether to replace an existing file at the destination. Default: false. */
  readonly overwrite?: boolean | undefined;
}

/** The options of `files.remove`. */
export interface RemoveOptions extends CallOptions {
  /** Whether to remove a directory with all of its contents. Default: false. */
  readonly recursive?: boolean | undefined;
  /** Whether the call succeeds when the path does not exist. Default: false. */
  readonly missingOk?: boolean | undefined;
}

/** The options of `files.watch`. */
export interface WatchFilesOptions extends WatchOptions {
  /** Whether to watch subdirectories too. Default: false. */
  readonly recursive?: boolean | undefined;
}

/** The options of the upload of a directory or an archive. */
export interface UploadDirectoryOptions extends CallOptions {
  /** The owner of all written entries. Default: the owners in the archive. */
  readonly owner?: string | undefined;
}

/** The options of a connection to a port. */
export interface ConnectOptions {
  /** The time limit for opening the connection, 100 to 60,000. Default: 10,000. */
  readonly connectTimeoutMs?: number | undefined;
}

/** The options of a tunnel. */
export interface TunnelOptions extends ConnectOptions {
  /** The port on this machine; 0: any free port, the default. */
  readonly localPort?: number | undefined;
  /** The address on this machine to listen on. Default: 127.0.0.1. */
  readonly localHost?: string | undefined;
}

/** Which log lines to read. */
export interface LogOptions extends WatchOptions {
  /** Only lines of these sources: `entrypoint` or names of services. Default: all. */
  readonly sources?: readonly string[] | undefined;
  /** Only this number of the most recent lines. Default: all. */
  readonly tail?: number | undefined;
  /** Only lines that were written at or after this time. */
  readonly since?: Date | undefined;
  /** Only entries after this sequence number. */
  readonly afterSequence?: number | undefined;
  /** Whether to continue with new lines until the sandbox terminates. Default: false. */
  readonly follow?: boolean | undefined;
}

/** The options of `watchMetrics`. */
export interface WatchMetricsOptions extends WatchOptions {
  /** The time between two measurements, 100 to 3,600,000. Default: 1,000. */
  readonly intervalMs?: number | undefined;
}
