/** From the messages of the contract to the plain objects of `types.ts`. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import * as pb from "../gen/sandpool/v1/pool_pb.js";
import { type WatchPoolsResponse, WatchEventType } from "../gen/sandpool/v1/pool_service_pb.js";
import * as sbx from "../gen/sandpool/v1/sandbox_pb.js";
import type { RunCommandResponse } from "../gen/sandpool/v1/sandbox_service_pb.js";
import type { Secret as SecretMessage } from "../gen/sandpool/v1/secret_pb.js";
import type { Template as TemplateMessage } from "../gen/sandpool/v1/template_pb.js";
import type { CommandEndReason, CommandResult } from "../inside-types.js";
import type * as types from "../types.js";
import { RemoteAPIError } from "./errors.js";
import { date, milliseconds } from "./time.js";

const POOL_STATES: Readonly<Record<pb.PoolState, types.PoolState>> = {
  [pb.PoolState.UNSPECIFIED]: "unknown",
  [pb.PoolState.READY]: "ready",
  [pb.PoolState.FILLING]: "filling",
  [pb.PoolState.DEGRADED]: "degraded",
  [pb.PoolState.PAUSED]: "paused",
  [pb.PoolState.DRAINED]: "drained",
};

const PULL_POLICIES: Readonly<Record<pb.PullPolicy, types.PullPolicy>> = {
  [pb.PullPolicy.UNSPECIFIED]: "unknown",
  [pb.PullPolicy.MISSING]: "missing",
  [pb.PullPolicy.ALWAYS]: "always",
  [pb.PullPolicy.NEVER]: "never",
};

const DISK_ENFORCEMENTS: Readonly<Record<pb.DiskEnforcement, types.DiskEnforcement | null>> = {
  [pb.DiskEnforcement.UNSPECIFIED]: null,
  [pb.DiskEnforcement.ENGINE]: "engine",
  [pb.DiskEnforcement.WATCHED]: "watched",
};

const POOL_ERROR_REASONS: Readonly<Record<pb.PoolErrorReason, types.PoolErrorReason>> = {
  [pb.PoolErrorReason.UNSPECIFIED]: "unknown",
  [pb.PoolErrorReason.IMAGE_NOT_FOUND]: "image_not_found",
  [pb.PoolErrorReason.PULL_FAILED]: "pull_failed",
  [pb.PoolErrorReason.START_FAILED]: "start_failed",
  [pb.PoolErrorReason.NOT_READY]: "not_ready",
  [pb.PoolErrorReason.ENGINE_UNREACHABLE]: "engine_unreachable",
  [pb.PoolErrorReason.DISK_FULL]: "disk_full",
  [pb.PoolErrorReason.LIMIT_UNSUPPORTED]: "limit_unsupported",
};

const WATCH_EVENT_TYPES: Readonly<Record<WatchEventType, types.WatchEventType>> = {
  [WatchEventType.UNSPECIFIED]: "unknown",
  [WatchEventType.PRESENT]: "present",
  [WatchEventType.CHANGED]: "changed",
  [WatchEventType.DELETED]: "deleted",
  [WatchEventType.BOOKMARK]: "unknown", // it is about no pool, so that it is no event
};

const SANDBOX_STATES: Readonly<Record<sbx.SandboxState, types.SandboxState>> = {
  [sbx.SandboxState.UNSPECIFIED]: "unknown",
  [sbx.SandboxState.STARTING]: "starting",
  [sbx.SandboxState.RUNNING]: "running",
  [sbx.SandboxState.TERMINATING]: "terminating",
  [sbx.SandboxState.TERMINATED]: "terminated",
};

const SANDBOX_STARTS: Readonly<Record<sbx.SandboxStart, types.SandboxStart | null>> = {
  [sbx.SandboxStart.UNSPECIFIED]: null,
  [sbx.SandboxStart.WARM]: "warm",
  [sbx.SandboxStart.COLD]: "cold",
};

const SANDBOX_END_REASONS: Readonly<Record<sbx.SandboxEndReason, types.SandboxEndReason | null>> = {
  [sbx.SandboxEndReason.UNSPECIFIED]: null,
  [sbx.SandboxEndReason.DELETED]: "deleted",
  [sbx.SandboxEndReason.TIMED_OUT]: "timed_out",
  [sbx.SandboxEndReason.EXITED]: "exited",
  [sbx.SandboxEndReason.OOM_KILLED]: "oom_killed",
  [sbx.SandboxEndReason.DISK_EXCEEDED]: "disk_exceeded",
  [sbx.SandboxEndReason.LOST]: "lost",
  [sbx.SandboxEndReason.FAILED]: "failed",
};

/** Why a command or a process ended. */
export const COMMAND_END_REASONS: Readonly<Record<sbx.CommandEndReason, CommandEndReason>> = {
  [sbx.CommandEndReason.UNSPECIFIED]: "unknown",
  [sbx.CommandEndReason.EXITED]: "exited",
  [sbx.CommandEndReason.SIGNALED]: "signaled",
  [sbx.CommandEndReason.OOM_KILLED]: "oom_killed",
  [sbx.CommandEndReason.TIMED_OUT]: "timed_out",
  [sbx.CommandEndReason.KILLED]: "killed",
  [sbx.CommandEndReason.IDLE_TIMED_OUT]: "idle_timed_out",
  [sbx.CommandEndReason.DISCONNECTED]: "disconnected",
  [sbx.CommandEndReason.SHUT_DOWN]: "shut_down",
};

/** The word for a number of the contract; a newer server may send one that the table does not have. */
export function word<N extends number, W, F>(table: Readonly<Record<N, W>>, value: N, otherwise: F): W | F {
  return (table as Readonly<Partial<Record<N, W>>>)[value] ?? otherwise;
}

const orNull = (text: string): string | null => text || null;

/** What an answer must hold; that it does not is an error of the server. */
export function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new RemoteAPIError(`the server's answer lacks ${what}`, { code: "internal" });
  return value;
}

/** The state of the contract for one of ours. */
export function toSandboxState(state: Exclude<types.SandboxState, "unknown">): sbx.SandboxState {
  const found = Object.entries(SANDBOX_STATES).find(([, name]) => name === state);
  return found === undefined ? sbx.SandboxState.UNSPECIFIED : Number(found[0]);
}

interface ContainerMessage {
  image: string;
  cpus: number;
  memoryMb: number;
  ephemeralDiskMb: number;
  timeoutSecs: number;
  secretNames: string[];
  entrypoint: string[];
  env: { [name: string]: string };
}

function container(message: ContainerMessage): types.ContainerInfo {
  const { image, cpus, memoryMb, ephemeralDiskMb, timeoutSecs } = message;
  const { secretNames, entrypoint } = message;
  return { image, cpus, memoryMb, ephemeralDiskMb, timeoutSecs, secretNames, entrypoint, env: { ...message.env } };
}

function readiness(message: pb.Pool | TemplateMessage): types.ReadinessInfo {
  const { readinessCommand, readinessIntervalSecs, readinessTimeoutSecs, readinessRetries } = message;
  return { readinessCommand, readinessIntervalSecs, readinessTimeoutSecs, readinessRetries };
}

function toPoolError(error: pb.PoolError): types.PoolError {
  return {
    reason: word(POOL_ERROR_REASONS, error.reason, "unknown"),
    message: error.message,
    time: timestampDate(required(error.time, "last_error.time")),
    nextAttemptTime: date(error.nextAttemptTime),
    consecutiveFailures: error.consecutiveFailures,
  };
}

function toPoolStatus(status: pb.PoolStatus): types.PoolStatus {
  const { warm, creating, active, removing, stale, wanted } = status;
  return {
    state: word(POOL_STATES, status.state, "unknown"),
    warm,
    creating,
    active,
    removing,
    stale,
    wanted,
    hits: Number(status.hits),
    misses: Number(status.misses),
    lastError: status.lastError === undefined ? null : toPoolError(status.lastError),
    imageDigest: orNull(status.imageDigest),
    imagePull: status.imagePull === undefined ? null : toImagePull(status.imagePull),
    diskEnforcement: toDiskEnforcement(status.diskEnforcement),
    waiting: status.waiting,
  };
}

function toImagePull({ image, currentBytes, totalBytes }: pb.ImagePull): types.ImagePull {
  return { image, currentBytes: Number(currentBytes), totalBytes: Number(totalBytes) };
}

/** Null is a word of this table, so it cannot stand for a number that is not in it. */
function toDiskEnforcement(value: pb.DiskEnforcement): types.DiskEnforcement | null {
  return value in DISK_ENFORCEMENTS ? DISK_ENFORCEMENTS[value] : "unknown";
}

/** A pool. */
export function toPool(message: pb.Pool | undefined): types.Pool {
  const pool = required(message, "the pool");
  return {
    poolId: pool.poolId,
    name: orNull(pool.name),
    templateName: orNull(pool.templateName),
    ...container(pool),
    ...readiness(pool),
    warmContainers: pool.warmContainers,
    size: pool.warmContainers,
    replicas: pool.warmContainers,
    maxContainers: pool.maxContainers ?? null,
    pullPolicy: word(PULL_POLICIES, pool.pullPolicy, "unknown"),
    imageCheckSecs: pool.imageCheckSecs,
    maxAgeSecs: pool.maxAgeSecs,
    paused: pool.paused,
    drain: pool.drain,
    etag: pool.etag,
    createTime: timestampDate(required(pool.createTime, "pool.create_time")),
    updateTime: timestampDate(required(pool.updateTime, "pool.update_time")),
    status: toPoolStatus(required(pool.status, "pool.status")),
  };
}

/** One message of a watch on pools. */
export function toPoolEvent(message: WatchPoolsResponse): types.PoolEvent {
  return { type: word(WATCH_EVENT_TYPES, message.type, "unknown"), pool: toPool(message.pool) };
}

/** A template. */
export function toTemplate(message: TemplateMessage | undefined): types.Template {
  const template = required(message, "the template");
  return {
    templateId: template.templateId,
    name: template.name,
    ...container(template),
    ...readiness(template),
    etag: template.etag,
    createTime: timestampDate(required(template.createTime, "template.create_time")),
    updateTime: timestampDate(required(template.updateTime, "template.update_time")),
  };
}

/** A secret. */
export function toSecret(message: SecretMessage | undefined): types.Secret {
  const secret = required(message, "the secret");
  return {
    name: secret.name,
    createTime: timestampDate(required(secret.createTime, "secret.create_time")),
    updateTime: timestampDate(required(secret.updateTime, "secret.update_time")),
  };
}

/** A sandbox. */
export function toSandboxInfo(message: sbx.Sandbox | undefined): types.SandboxInfo {
  const sandbox = required(message, "the sandbox");
  return {
    sandboxId: sandbox.sandboxId,
    name: orNull(sandbox.name),
    state: word(SANDBOX_STATES, sandbox.state, "unknown"),
    poolId: orNull(sandbox.poolId),
    templateName: orNull(sandbox.templateName),
    ...container(sandbox),
    metadata: { ...sandbox.metadata },
    start: word(SANDBOX_STARTS, sandbox.start, null),
    startDurationMs: milliseconds(sandbox.startDuration),
    createTime: timestampDate(required(sandbox.createTime, "sandbox.create_time")),
    expireTime: date(sandbox.expireTime),
    endTime: date(sandbox.endTime),
    endReason: toEndReason(sandbox.endReason),
    endMessage: sandbox.endMessage,
    exitCode: sandbox.exitCode ?? null,
    etag: sandbox.etag,
  };
}

/** Null is a word of this table, so it cannot stand for a number that is not in it. */
function toEndReason(reason: sbx.SandboxEndReason): types.SandboxEndReason | null {
  return reason in SANDBOX_END_REASONS ? SANDBOX_END_REASONS[reason] : "unknown";
}

/** What a command did. */
export function toCommandResult(message: RunCommandResponse): CommandResult {
  const exitCode = message.exit.case === "exitCode" ? message.exit.value : null;
  const reason = word(COMMAND_END_REASONS, message.reason, "unknown");
  return {
    stdout: message.stdout,
    stderr: message.stderr,
    exitCode,
    signal: message.exit.case === "signal" ? message.exit.value : null,
    reason,
    success: reason === "exited" && exitCode === 0,
    timedOut: reason === "timed_out",
    durationMs: milliseconds(message.duration) ?? 0,
    stdoutBytes: message.stdoutBytes.length > 0 ? message.stdoutBytes : null,
    stderrBytes: message.stderrBytes.length > 0 ? message.stderrBytes : null,
    stdoutDroppedBytes: Number(message.stdoutDroppedBytes),
    stderrDroppedBytes: Number(message.stderrDroppedBytes),
  };
}
