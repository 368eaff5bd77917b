/** Converts the messages of processes, files, ports, logs and metrics to the models of `sandbox-types.ts`. */
import type { FileInfo as FileMessage } from "../gen/sandpool/v1/file_pb.js";
import type { WatchFilesResponse } from "../gen/sandpool/v1/file_service_pb.js";
import type { LogEntry as LogMessage, SandboxMetrics as MetricsMessage } from "../gen/sandpool/v1/monitor_pb.js";
import type { ExposedPort as PortMessage } from "../gen/sandpool/v1/port_pb.js";
import type {
  OutputBuffer as BufferMessage,
  Process as ProcessMessage,
  ProcessExit as ExitMessage,
} from "../gen/sandpool/v1/process_pb.js";
import type * as types from "../sandbox-types.js";
import { required } from "./convert.js";
import * as enums from "./enums.js";
import { date, milliseconds, timeOf } from "./time.js";

/** Converts the exit of a process. */
export function toProcessExit({ status, reason }: ExitMessage): types.ProcessExit {
  return {
    exitCode: status.case === "exitCode" ? status.value : null,
    signal: status.case === "signal" ? status.value : null,
    reason: enums.toExitReason(reason),
  };
}

function toOutputBuffer(buffer: BufferMessage | undefined): types.OutputBuffer {
  return { startOffset: Number(buffer?.startOffset ?? 0), endOffset: Number(buffer?.endOffset ?? 0) };
}

/** Converts a process. */
export function toProcessInfo(found: ProcessMessage | undefined): types.ProcessInfo {
  const message = required(found, "process");
  const { terminal } = message;
  return {
    processId: message.processId,
    name: message.name || null,
    state: enums.toProcessState(message.state),
    pid: message.pid || null,
    command: message.command || null,
    argv: message.argv.length > 0 ? [...message.argv] : null,
    cwd: message.workingDir || null,
    user: message.user || null,
    terminal: terminal === undefined ? null : { rows: terminal.rows, cols: terminal.cols },
    stdinOpen: message.stdinOpen,
    stdinBytes: Number(message.stdinBytes),
    stdout: toOutputBuffer(message.stdout),
    stderr: toOutputBuffer(message.stderr),
    startTime: date(message.startTime),
    endTime: date(message.endTime),
    exit: message.exit === undefined ? null : toProcessExit(message.exit),
    attachedClients: message.attachedClients,
    restarts: message.restarts,
    restartPolicy: message.name === "" ? null : (enums.toRestartPolicy(message.restartPolicy) ?? "never"),
    health: enums.toProcessHealth(message.health),
    healthMessage: message.healthMessage || null,
    expireTime: date(message.expireTime),
  };
}

/** Converts a file. */
export function toFileInfo(found: FileMessage | undefined): types.FileInfo {
  const message = required(found, "file");
  const type = enums.toFileType(message.type);
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
    modifyTime: timeOf(message.modifyTime),
    linkTarget: message.linkTarget || null,
    etag: message.etag,
  };
}

/** Converts a response of a watch on files; null for one that only shows that the watch is alive. */
export function toFileEvent({ change, path }: WatchFilesResponse): types.FileEvent | null {
  return change === 0 ? null : { change: enums.toFileChange(change), path };
}

/** Converts a log entry; `droppedEntries` is the number of missing entries before it. */
export function toLogEntry(message: LogMessage, droppedEntries: number): types.LogEntry {
  return {
    sequence: Number(message.sequence),
    time: timeOf(message.time),
    source: message.source,
    stream: enums.toOutputStream(message.stream),
    text: message.text,
    partial: message.partial,
    droppedEntries,
  };
}

/** Converts metrics. */
export function toSandboxMetrics(found: MetricsMessage | undefined): types.SandboxMetrics {
  const message = required(found, "metrics");
  return {
    time: timeOf(message.time),
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

/** Converts an exposed port. */
export function toExposedPort(found: PortMessage | undefined): types.ExposedPort {
  const message = required(found, "exposed_port");
  return { port: message.port, url: message.url, createTime: timeOf(message.createTime) };
}
