/** What calls answer that do something inside a sandbox: plain objects. `null` stands for what is absent. */

/** Why a command ended. */
export type CommandEndReason =
  | "exited"
  | "signaled"
  | "oom_killed"
  | "timed_out"
  | "killed"
  | "idle_timed_out"
  | "disconnected"
  | "shut_down"
  | "unknown";

/** How a command ended and what it printed: at most 1 MiB of each stream. */
export interface CommandResult {
  /** Standard output as text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stdout: string;
  /** Standard error as text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stderr: string;
  /** The exit code, or null when a signal ended the command. */
  readonly exitCode: number | null;
  /** The number of the signal that ended the command, or null. */
  readonly signal: number | null;
  /** Why the command ended. */
  readonly reason: CommandEndReason;
  /** Whether it exited by itself with code 0. */
  readonly success: boolean;
  /** Whether it was killed because its `timeout` had passed. */
  readonly timedOut: boolean;
  /** How long it ran in milliseconds. */
  readonly durationMs: number;
  /** Standard output as it was where it is not UTF-8, else null. */
  readonly stdoutBytes: Uint8Array | null;
  /** Standard error as it was where it is not UTF-8, else null. */
  readonly stderrBytes: Uint8Array | null;
  /** How many bytes of standard output were dropped. */
  readonly stdoutDroppedBytes: number;
  /** How many bytes of standard error were dropped. */
  readonly stderrDroppedBytes: number;
}

/** Where a process is in its life. */
export type ProcessState = "running" | "backing_off" | "ended" | "unknown";

/** What a service's health check found. */
export type ProcessHealth = "starting" | "healthy" | "unhealthy";

/** When a service is started again. */
export type RestartPolicy = "never" | "on_failure" | "always";

/** The size of a terminal in characters. */
export interface TerminalSize {
  readonly rows: number;
  readonly cols: number;
}

/** How a process ended. */
export interface ProcessEnd {
  /** The exit code, or null when a signal ended it. */
  readonly exitCode: number | null;
  /** The number of the signal that ended it, or null. */
  readonly signal: number | null;
  /** Why it ended. */
  readonly reason: CommandEndReason;
}

/** What is kept of a stream of output: offsets in bytes from its begin. */
export interface KeptOutput {
  /** The first byte that is still kept. */
  readonly begin: number;
  /** After the last byte that was printed. */
  readonly end: number;
}

/** A process that outlives the call that started it, or a service. */
export interface Process {
  /** The identifier that was chosen for it. */
  readonly processId: string;
  /** The service's name, or null for what is none. */
  readonly name: string | null;
  readonly state: ProcessState;
  /** The process id inside the sandbox, or null while there is none. */
  readonly pid: number | null;
  /** The line for the shell, or null. */
  readonly command: string | null;
  /** The program and its arguments, or nothing. */
  readonly argv: readonly string[];
  /** The terminal's size, or null without one. */
  readonly terminal: TerminalSize | null;
  /** Whether its standard input can be written to. */
  readonly stdinOpen: boolean;
  /** How many bytes of input it was given. */
  readonly stdinBytes: number;
  readonly stdout: KeptOutput;
  readonly stderr: KeptOutput;
  readonly startTime: Date | null;
  readonly endTime: Date | null;
  /** How it, or the last run of a service, ended; null until then. */
  readonly end: ProcessEnd | null;
  /** The exit code of `end`, or null. */
  readonly exitCode: number | null;
  /** The number of the signal of `end`, or null. */
  readonly signal: number | null;
  /** How many clients are attached. */
  readonly attachedClients: number;
  /** How often a service was started again. */
  readonly restarts: number;
  readonly restartPolicy: RestartPolicy;
  /** What the health check found, or null without one. */
  readonly health: ProcessHealth | null;
  readonly healthMessage: string;
  /** When its record goes, or null while it runs. */
  readonly expireTime: Date | null;
}

/** A piece of output. */
export interface OutputChunk {
  readonly stream: "stdout" | "stderr";
  /** The output as text; a character is never cut, and bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly data: string;
  /** The output as it was. */
  readonly bytes: Uint8Array;
  /** The offset of the first byte in its stream. */
  readonly offset: number;
}

/** What a path names. */
export type FileType = "file" | "directory" | "symlink" | "other";

/** A file, folder or anything else that has a name. */
export interface FileInfo {
  readonly path: string;
  /** The last part of the path. */
  readonly name: string;
  readonly type: FileType;
  /** Whether it is a folder. */
  readonly isDir: boolean;
  /** The size in bytes. */
  readonly size: number;
  /** The permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly user: string | null;
  readonly group: string | null;
  readonly modifyTime: Date;
  /** Where a symbolic link leads, or null for anything else. */
  readonly linkTarget: string | null;
  /** Changes whenever the content does. */
  readonly etag: string;
}

/** What is in a folder. */
export interface DirectoryListing {
  readonly path: string;
  /** By name. */
  readonly entries: readonly FileInfo[];
}

/** What is kept of what a process printed. */
export interface ProcessOutput {
  /** As text; bytes that are not UTF-8 are replaced by U+FFFD. */
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBytes: Uint8Array;
  readonly stderrBytes: Uint8Array;
  /** After the last byte: where to go on. */
  readonly stdoutOffset: number;
  readonly stderrOffset: number;
  /** How many bytes of both streams were printed before and are not kept any more. */
  readonly lostBytes: number;
}

/** A change of a path that is watched. */
export interface FileChange {
  readonly change: "created" | "modified" | "removed" | "attributes" | "overflow";
  readonly path: string;
}

/** A line that the entrypoint or a service printed. */
export interface LogEntry {
  /** The place among all entries, from 1; ask for those after it to go on. */
  readonly sequence: number;
  readonly time: Date;
  /** `entrypoint` or the service's name. */
  readonly source: string;
  readonly stream: "stdout" | "stderr";
  readonly text: string;
  /** Whether the line goes on in the next entry of the same source and stream. */
  readonly partial: boolean;
}

/** What a sandbox uses at one moment. */
export interface SandboxStats {
  readonly time: Date;
  /** The processor time used in all, in milliseconds. */
  readonly cpuTimeMs: number;
  /** The CPUs in use. */
  readonly cpusUsed: number;
  /** The CPUs that it may use; 0 for all. */
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
  /** The disk in use as it was measured last; null where it is not measured. */
  readonly diskBytes: number | null;
  readonly diskLimitBytes: number;
  readonly networkReceivedBytes: number;
  readonly networkSentBytes: number;
  readonly processes: number;
  readonly processesLimit: number;
}

/** A port of a sandbox that is served by HTTP. */
export interface ExposedPort {
  readonly port: number;
  readonly url: string;
  readonly createTime: Date;
}
