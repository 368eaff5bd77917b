/** The models of processes, files, ports, logs and metrics: plain objects. Absent values are `null`. */

/** How a command or process exited. */
export type ExitReason =
  | "exited"
  | "signaled"
  | "oom_killed"
  | "timed_out"
  | "killed"
  | "idle_timed_out"
  | "disconnected"
  | "shut_down"
  | "unknown";

/** The result of a command: how it exited and its output. */
export interface CommandResult {
  /**
   * Standard output as text; bytes that are not UTF-8 are replaced by U+FFFD. At most 64 MiB of each stream are
   * returned, with `resumable: false` 1 MiB.
   */
  readonly stdout: string;
  /** Standard error as text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stderr: string;
  /** Standard output as bytes. */
  readonly stdoutBytes: Uint8Array;
  /** Standard error as bytes. */
  readonly stderrBytes: Uint8Array;
  /** The exit code, or null when a signal ended the command. */
  readonly exitCode: number | null;
  /** The number of the signal that ended the command, or null. */
  readonly signal: number | null;
  /** How the command exited. */
  readonly reason: ExitReason;
  /** Whether the command exited by itself with code 0. */
  readonly success: boolean;
  /** Whether the command was killed because its `timeoutMs` passed. */
  readonly timedOut: boolean;
  /** How long the command ran in milliseconds. */
  readonly durationMs: number;
  /** The number of bytes of standard output that were dropped. */
  readonly stdoutDroppedBytes: number;
  /** The number of bytes of standard error that were dropped. */
  readonly stderrDroppedBytes: number;
}

/** The state of a process. `backing_off`: a run of the service exited; the next run starts after a delay. */
export type ProcessState = "running" | "backing_off" | "exited" | "unknown";

/** The health of a service. */
export type ProcessHealth = "starting" | "healthy" | "unhealthy" | "unknown";

/** When a service is restarted. */
export type RestartPolicy = "never" | "on_failure" | "always" | "unknown";

/**
 * The action when a process writes more output than the buffer can hold: it waits for attached clients, otherwise the
 * oldest bytes are dropped (`wait_attached`); the oldest bytes are dropped (`drop_oldest`); it waits until a client has
 * received them (`wait`).
 */
export type OutputOverflow = "wait_attached" | "drop_oldest" | "wait";

/** The action of a write when the file exists: replace it, fail, or append to it. */
export type WriteMode = "replace" | "create" | "append";

/** The size of a terminal in characters. */
export interface TerminalSize {
  readonly rows: number;
  readonly cols: number;
}

/** How a process exited. */
export interface ProcessExit {
  /** The exit code, or null when a signal ended the process. */
  readonly exitCode: number | null;
  /** The number of the signal that ended the process, or null. */
  readonly signal: number | null;
  /** How the process exited. */
  readonly reason: ExitReason;
}

/** The range of an output stream that is buffered, in bytes from the start of the process. */
export interface OutputBuffer {
  /** The offset of the first byte that is buffered. */
  readonly startOffset: number;
  /** The offset after the last byte that the process wrote. */
  readonly endOffset: number;
}

/** A process that a client started in a sandbox, running or exited; or a service. */
export interface ProcessInfo {
  /** The identifier of the process in its sandbox. */
  readonly processId: string;
  /** The name of the service, or null for a process that is not a service. */
  readonly name: string | null;
  /** The state of the process. */
  readonly state: ProcessState;
  /** The PID in the sandbox, or null while no run exists. */
  readonly pid: number | null;
  /** The shell command, or null. */
  readonly command: string | null;
  /** The program and its arguments, or null. */
  readonly argv: readonly string[] | null;
  /** The working directory. */
  readonly cwd: string | null;
  /** The user that the process runs as, or null when it is not known. */
  readonly user: string | null;
  /** The size of the terminal, or null without a terminal. */
  readonly terminal: TerminalSize | null;
  /** Whether standard input accepts more data. */
  readonly stdinOpen: boolean;
  /** The number of bytes of standard input that the process received. */
  readonly stdinBytes: number;
  /** The range of standard output that is buffered; with a terminal, of all output. */
  readonly stdout: OutputBuffer;
  /** The range of standard error that is buffered. */
  readonly stderr: OutputBuffer;
  /** When the current run started, by the sandbox's clock. */
  readonly startTime: Date | null;
  /** When the process exited, or null. */
  readonly endTime: Date | null;
  /** How the process, or the last run of a service, exited; null until then. */
  readonly exit: ProcessExit | null;
  /** The number of attached clients. */
  readonly attachedClients: number;
  /** The number of restarts of a service. */
  readonly restarts: number;
  /** The restart policy of a service, or null for a process that is not a service. */
  readonly restartPolicy: RestartPolicy | null;
  /** The result of the health check, or null without one. */
  readonly health: ProcessHealth | null;
  /** Details about the last failed health check, or null. */
  readonly healthMessage: string | null;
  /** When the record and the buffered output are deleted, or null while the process runs. */
  readonly expireTime: Date | null;
}

/** The stream that output was written to. With a terminal, all output is `stdout`. */
export type OutputStream = "stdout" | "stderr";

/** A piece of output. */
export interface OutputChunk {
  /** The stream. */
  readonly stream: OutputStream;
  /** The output as text. A character is never split, and bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly data: string;
  /** The output as bytes. */
  readonly dataBytes: Uint8Array;
  /** The offset of the first byte in the stream. */
  readonly offset: number;
  /** The number of bytes that are missing before this piece, because they were no longer buffered. */
  readonly droppedBytes: number;
}

/** The buffered output of a process. */
export interface ProcessOutput {
  /** Standard output as text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stdout: string;
  /** Standard error as text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stderr: string;
  /** Standard output as bytes. */
  readonly stdoutBytes: Uint8Array;
  /** Standard error as bytes. */
  readonly stderrBytes: Uint8Array;
  /** The offset after the last byte of standard output; attach there to continue. */
  readonly stdoutOffset: number;
  /** The offset after the last byte of standard error; attach there to continue. */
  readonly stderrOffset: number;
  /** The number of bytes of standard output that are no longer buffered. */
  readonly stdoutDroppedBytes: number;
  /** The number of bytes of standard error that are no longer buffered. */
  readonly stderrDroppedBytes: number;
}

/** The type of a file system object. */
export type FileType = "file" | "directory" | "symlink" | "other" | "unknown";

/** A file, a directory or another file system object. */
export interface FileInfo {
  /** The absolute path. */
  readonly path: string;
  /** The last part of the path. */
  readonly name: string;
  /** The type of the object. */
  readonly type: FileType;
  /** Whether it is a directory. */
  readonly isDir: boolean;
  /** The size in bytes. */
  readonly size: number;
  /** The permission bits. */
  readonly mode: number;
  /** The numeric user id of the owner. */
  readonly uid: number;
  /** The numeric group id. */
  readonly gid: number;
  /** The name of the owner in the sandbox, or null. */
  readonly user: string | null;
  /** The name of the group in the sandbox, or null. */
  readonly group: string | null;
  /** When the content last changed. */
  readonly modifyTime: Date;
  /** The target of a symbolic link, or null. */
  readonly linkTarget: string | null;
  /** The version of the content; it changes with the content. */
  readonly etag: string;
}

/** The kind of a file change. `overflow`: changes were missed; list the directory again. */
export type FileChange = "created" | "modified" | "removed" | "attributes" | "overflow" | "unknown";

/** A change of a watched path. */
export interface FileEvent {
  /** The kind of change. */
  readonly change: FileChange;
  /** The changed path. */
  readonly path: string;
}

/** The result of the upload of a directory. */
export interface DirectoryUpload {
  /** The number of entries that were written. */
  readonly entries: number;
  /** The number of bytes that were written to files. */
  readonly bytesWritten: number;
}

/** A log line of the entrypoint or of a service. */
export interface LogEntry {
  /** The sequence number among all entries of the sandbox, from 1. */
  readonly sequence: number;
  /** When the line was written. */
  readonly time: Date;
  /** `entrypoint` or the name of the service. */
  readonly source: string;
  /** The stream. */
  readonly stream: OutputStream;
  /** The text of the line. */
  readonly text: string;
  /** Whether the line continues in the next entry of the same source and stream. */
  readonly partial: boolean;
  /** The number of entries right before this one that are no longer retained. */
  readonly droppedEntries: number;
}

/** The resource usage and limits of a sandbox at one point in time. */
export interface SandboxMetrics {
  /** The time of the measurement. */
  readonly time: Date;
  /** The CPU time used since the container started, in milliseconds. */
  readonly cpuTimeMs: number;
  /** The average number of CPUs in use since the previous measurement. */
  readonly cpusUsed: number;
  /** The CPU limit; 0 when the sandbox can use all CPUs. */
  readonly cpus: number;
  /** The memory in use. */
  readonly memoryBytes: number;
  /** The memory limit. */
  readonly memoryLimitBytes: number;
  /** The disk space in use at the last measurement, or null when it is not measured. */
  readonly diskBytes: number | null;
  /** The disk limit. */
  readonly diskLimitBytes: number;
  /** The bytes received from the network since the container started. */
  readonly networkReceivedBytes: number;
  /** The bytes sent to the network since the container started. */
  readonly networkSentBytes: number;
  /** The number of processes and threads. */
  readonly processes: number;
  /** The limit of processes and threads. */
  readonly processesLimit: number;
}

/** A port of a sandbox that the server exposes by HTTP. */
export interface ExposedPort {
  /** The port in the sandbox. */
  readonly port: number;
  /** The URL of the port. */
  readonly url: string;
  /** When the port was exposed. */
  readonly createTime: Date;
}
