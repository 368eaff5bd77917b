/** What goes on inside sandboxes: the services that their agents answer, and their messages as plain objects. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type CallOptions as ConnectOptions, type Client, createClient, type Transport } from "@connectrpc/connect";
import { type FileInfo as FileMessage, FileChange, FileType } from "../gen/sandpool/v1/file_pb.js";
import { FileService } from "../gen/sandpool/v1/file_service_pb.js";
import type { LogEntry as LogMessage, SandboxStats as StatsMessage } from "../gen/sandpool/v1/monitor_pb.js";
import { MonitorService } from "../gen/sandpool/v1/monitor_service_pb.js";
import type { ExposedPort as PortMessage } from "../gen/sandpool/v1/port_pb.js";
import { PortService } from "../gen/sandpool/v1/port_service_pb.js";
import {
  OutputStream,
  type Process as ProcessMessage,
  type ProcessEnd as EndMessage,
  ProcessHealth,
  ProcessState,
  RestartPolicy,
} from "../gen/sandpool/v1/process_pb.js";
import { ProcessService } from "../gen/sandpool/v1/process_service_pb.js";
import type * as types from "../inside-types.js";
import type { CallOptions } from "../options.js";
import type { Caller } from "./caller.js";
import { COMMAND_END_REASONS, required, word } from "./convert.js";
import { invalid } from "./errors.js";
import type { Repeatable, RetryPolicy } from "./retry.js";
import { date, milliseconds } from "./time.js";

/** Calls into sandboxes. */
export class Inside {
  readonly processes: Client<typeof ProcessService>;
  readonly files: Client<typeof FileService>;
  readonly ports: Client<typeof PortService>;
  readonly monitor: Client<typeof MonitorService>;
  readonly #caller: Caller;
  readonly #timeoutMs: number;

  constructor(caller: Caller, transport: Transport, timeoutMs: number) {
    this.#caller = caller;
    this.#timeoutMs = timeoutMs;
    this.processes = createClient(ProcessService, transport);
    this.files = createClient(FileService, transport);
    this.ports = createClient(PortService, transport);
    this.monitor = createClient(MonitorService, transport);
  }

  /** Makes a call that may be repeated. */
  safe<T>(invoke: (to: ConnectOptions) => Promise<T>, call: CallOptions = {}): Promise<T> {
    return this.#caller.unary(invoke, "safe", { timeoutMs: call.timeoutMs ?? this.#timeoutMs, signal: call.signal });
  }

  /** Makes a call that must not run twice, with no limit in time but the caller's. */
  once<T>(invoke: (to: ConnectOptions) => Promise<T>, call: CallOptions = {}): Promise<T> {
    return this.long(invoke, "unsent", call);
  }

  /** Makes a call with no limit in time but the caller's. */
  long<T>(invoke: (to: ConnectOptions) => Promise<T>, repeatable: Repeatable, call: CallOptions = {}): Promise<T> {
    return this.#caller.unary(invoke, repeatable, { timeoutMs: call.timeoutMs, signal: call.signal });
  }

  /** Makes a call of many answers; it is opened again only while nothing has arrived. */
  stream<T>(
    invoke: (to: ConnectOptions) => AsyncIterable<T>,
    signal?: AbortSignal,
    timeoutMs?: number,
  ): AsyncGenerator<T, void, undefined> {
    return this.#caller.stream(invoke, signal, timeoutMs);
  }

  /** Whether a call can stream its requests while it is answered. */
  get duplex(): boolean {
    return this.#caller.duplex;
  }

  /** How often a stream that made no progress is opened again. */
  get patient(): RetryPolicy {
    return this.#caller.patient;
  }

  /** The messages of streams that are opened one after the other, where one broke, until one ends by itself. */
  follow<T>(open: (again: boolean) => AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T, void, undefined> {
    return this.#caller.follow(open, signal);
  }
}

const PROCESS_STATES: Readonly<Record<ProcessState, types.ProcessState>> = {
  [ProcessState.UNSPECIFIED]: "unknown",
  [ProcessState.RUNNING]: "running",
  [ProcessState.BACKING_OFF]: "backing_off",
  [ProcessState.ENDED]: "ended",
};

const HEALTH: Readonly<Record<ProcessHealth, types.ProcessHealth | null>> = {
  [ProcessHealth.UNSPECIFIED]: null,
  [ProcessHealth.STARTING]: "starting",
  [ProcessHealth.HEALTHY]: "healthy",
  [ProcessHealth.UNHEALTHY]: "unhealthy",
};

const RESTART_POLICIES: Readonly<Record<RestartPolicy, types.RestartPolicy>> = {
  [RestartPolicy.UNSPECIFIED]: "never",
  [RestartPolicy.NEVER]: "never",
  [RestartPolicy.ON_FAILURE]: "on_failure",
  [RestartPolicy.ALWAYS]: "always",
};

const FILE_TYPES: Readonly<Record<FileType, types.FileType>> = {
  [FileType.UNSPECIFIED]: "other",
  [FileType.FILE]: "file",
  [FileType.DIRECTORY]: "directory",
  [FileType.SYMLINK]: "symlink",
  [FileType.OTHER]: "other",
};

const FILE_CHANGES: Readonly<Record<FileChange, types.FileChange["change"] | null>> = {
  [FileChange.UNSPECIFIED]: null,
  [FileChange.CREATED]: "created",
  [FileChange.MODIFIED]: "modified",
  [FileChange.REMOVED]: "removed",
  [FileChange.ATTRIBUTES]: "attributes",
  [FileChange.OVERFLOW]: "overflow",
};

/** The state of the contract for one of ours. */
export function toProcessState(state: types.ProcessState): ProcessState {
  const found = Object.entries(PROCESS_STATES).find(([, word]) => word === state && word !== "unknown");
  if (found === undefined) throw invalid("states", `has ${JSON.stringify(state)}, which is no state of a process`);
  return Number(found[0]);
}

/** The policy of the contract for one of ours. */
export function toRestartPolicy(policy: types.RestartPolicy): RestartPolicy {
  return { never: RestartPolicy.NEVER, on_failure: RestartPolicy.ON_FAILURE, always: RestartPolicy.ALWAYS }[policy];
}

/** Which stream printed something. */
export function streamName(stream: OutputStream): "stdout" | "stderr" {
  return stream === OutputStream.STDERR ? "stderr" : "stdout";
}

/** How a process ended. */
export function toProcessEnd(message: EndMessage): types.ProcessEnd {
  const { exit } = message;
  return {
    exitCode: exit.case === "exitCode" ? exit.value : null,
    signal: exit.case === "signal" ? exit.value : null,
    reason: word(COMMAND_END_REASONS, message.reason, "unknown"),
  };
}

/** A process. */
export function toProcess(found: ProcessMessage | undefined): types.Process {
  const message = required(found, "a process");
  const { terminal } = message;
  const end = message.end === undefined ? null : toProcessEnd(message.end);
  return {
    processId: message.processId,
    name: message.name || null,
    state: word(PROCESS_STATES, message.state, "unknown"),
    pid: message.pid || null,
    command: message.command || null,
    argv: [...message.argv],
    terminal: terminal === undefined ? null : { rows: terminal.rows, cols: terminal.cols },
    stdinOpen: message.stdinOpen,
    stdinBytes: Number(message.stdinBytes),
    stdout: { begin: Number(message.stdout?.begin ?? 0), end: Number(message.stdout?.end ?? 0) },
    stderr: { begin: Number(message.stderr?.begin ?? 0), end: Number(message.stderr?.end ?? 0) },
    startTime: date(message.startTime),
    endTime: date(message.endTime),
    end,
    exitCode: end?.exitCode ?? null,
    signal: end?.signal ?? null,
    attachedClients: message.attachedClients,
    restarts: message.restarts,
    restartPolicy: word(RESTART_POLICIES, message.restartPolicy, "never"),
    health: word(HEALTH, message.health, null),
    healthMessage: message.healthMessage,
    expireTime: date(message.expireTime),
  };
}

/** A file. */
export function toFileInfo(found: FileMessage | undefined): types.FileInfo {
  const message = required(found, "a file");
  const type = word(FILE_TYPES, message.type, "other");
  return {
    path: message.path,
    name: message.path.slice(message.path.lastIndexOf("/") + 1),
    type,
    isDir: type === "directory",
    size: Number(message.size),
    mode: message.mode,
    uid: message.uid,
    gid: message.gid,
    user: message.user || null,
    group: message.group || null,
    modifyTime: timestampDate(required(message.modifyTime, "file.modify_time")),
    linkTarget: message.linkTarget || null,
    etag: message.etag,
  };
}

/** A change of a path that is watched; null for what only says that the watch lives. */
export function toFileChange(change: FileChange, path: string): types.FileChange | null {
  const found = word(FILE_CHANGES, change, null);
  return found === null ? null : { change: found, path };
}

/** A line of a log. */
export function toLogEntry(message: LogMessage): types.LogEntry {
  return {
    sequence: Number(message.sequence),
    time: timestampDate(required(message.time, "entry.time")),
    source: message.source,
    stream: streamName(message.stream),
    text: message.text,
    partial: message.partial,
  };
}

/** What a sandbox uses. */
export function toStats(found: StatsMessage | undefined): types.SandboxStats {
  const message = required(found, "stats");
  return {
    time: timestampDate(required(message.time, "stats.time")),
    cpuTimeMs: milliseconds(message.cpuTime) ?? 0,
    cpusUsed: message.cpusUsed,
    cpus: message.cpus,
    memoryBytes: Number(message.memoryBytes),
    memoryLimitBytes: Number(message.memoryLimitBytes),
    diskBytes: message.diskBytes === undefined ? null : Number(message.diskBytes),
    diskLimitBytes: Number(message.diskLimitBytes),
    networkReceivedBytes: Number(message.networkReceivedBytes),
    networkSentBytes: Number(message.networkSentBytes),
    processes: message.processes,
    processesLimit: message.processesLimit,
  };
}

/** A port that is served by HTTP. */
export function toExposedPort(found: PortMessage | undefined): types.ExposedPort {
  const message = required(found, "an exposed port");
  return { port: message.port, url: message.url, createTime: timestampDate(required(message.createTime, "create_time")) };
}
