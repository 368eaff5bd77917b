/** Converts the messages of pools, templates, secrets and sandboxes to the models of `types.ts`. */
import { create } from "@bufbuild/protobuf";
import {
  type ContainerSpec as SpecMessage,
  ContainerSpecSchema,
  type ReadinessProbe as ProbeMessage,
} from "../gen/sandpool/v1/container_pb.js";
import { PoolStatusSchema } from "../gen/sandpool/v1/pool_pb.js";
import type * as pb from "../gen/sandpool/v1/pool_pb.js";
import type { WatchPoolsResponse } from "../gen/sandpool/v1/pool_service_pb.js";
import type { Sandbox as SandboxMessage } from "../gen/sandpool/v1/sandbox_pb.js";
import type { RunCommandResponse } from "../gen/sandpool/v1/sandbox_service_pb.js";
import type { Secret as SecretMessage } from "../gen/sandpool/v1/secret_pb.js";
import type { Template as TemplateMessage } from "../gen/sandpool/v1/template_pb.js";
import type { CommandResult } from "../sandbox-types.js";
import type * as types from "../types.js";
import { bytesOf } from "./bytes.js";
import * as enums from "./enums.js";
import { ServerError } from "./errors.js";
import { date, milliseconds, timeOf } from "./time.js";

const orNull = (text: string): string | null => text || null;

/** Returns a part of a response that the contract requires. */
export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new ServerError(`the response of the server lacks ${name}`, { code: "INTERNAL" });
  return value;
}

function toReadinessProbe(probe: ProbeMessage): types.ReadinessProbe {
  return {
    command: [...probe.command],
    intervalMs: milliseconds(probe.interval) ?? 0,
    timeoutMs: milliseconds(probe.timeout) ?? 0,
    failureThreshold: probe.failureThreshold ?? 0,
  };
}

/** The specification and the attributes that repeat it. */
function specified(
  spec: SpecMessage = create(ContainerSpecSchema),
): types.ContainerAttributes & { spec: types.ContainerSpec } {
  const attributes = {
    image: spec.image,
    cpus: spec.cpus ?? 0,
    memoryMb: spec.memoryMb ?? 0,
    ephemeralDiskMb: spec.ephemeralDiskMb ?? 0,
    env: { ...spec.env },
    entrypoint: spec.entrypoint.length > 0 ? [...spec.entrypoint] : null,
    secretNames: [...spec.secretNames],
  };
  const readinessProbe = spec.readinessProbe === undefined ? null : toReadinessProbe(spec.readinessProbe);
  return { spec: { ...attributes, pullPolicy: enums.toPullPolicy(spec.pullPolicy), readinessProbe }, ...attributes };
}

function toPoolError(error: pb.PoolError): types.PoolError {
  return {
    reason: enums.toPoolErrorReason(error.reason),
    message: error.message,
    time: timeOf(error.time),
    nextAttemptTime: date(error.nextAttemptTime),
    consecutiveFailures: error.consecutiveFailures,
  };
}

function toPoolStatus(status: pb.PoolStatus): types.PoolStatus {
  const { warm, creating, active, removing, stale, desired, waiting } = status;
  return {
    state: enums.toPoolState(status.state),
    warm,
    creating,
    active,
    removing,
    stale,
    desired,
    hits: Number(status.hits),
    misses: Number(status.misses),
    lastError: status.lastError === undefined ? null : toPoolError(status.lastError),
    imageDigest: orNull(status.imageDigest),
    imagePull: status.imagePull === undefined ? null : toImagePull(status.imagePull),
    diskEnforcement: enums.toDiskEnforcement(status.diskEnforcement),
    waiting,
  };
}

function toImagePull({ image, currentBytes, totalBytes }: pb.ImagePull): types.ImagePull {
  return { image, currentBytes: Number(currentBytes), totalBytes: Number(totalBytes) };
}

/** Converts a pool. */
export function toPool(message: pb.Pool | undefined): types.Pool {
  const pool = required(message, "pool");
  return {
    poolId: pool.poolId,
    name: orNull(pool.name),
    templateName: orNull(pool.templateName),
    ...specified(pool.spec),
    warmContainers: pool.warmContainers ?? null,
    maxContainers: pool.maxContainers ?? null,
    timeoutMs: milliseconds(pool.timeout) ?? 0,
    paused: pool.paused,
    drained: pool.drained,
    imageRefreshIntervalMs: milliseconds(pool.imageRefreshInterval),
    warmTtlMs: milliseconds(pool.warmTtl),
    etag: pool.etag,
    createTime: timeOf(pool.createTime),
    updateTime: timeOf(pool.updateTime),
    status: toPoolStatus(pool.status ?? create(PoolStatusSchema)),
  };
}

/** Converts an event of a watch on pools. */
export function toPoolEvent(message: WatchPoolsResponse): types.PoolEvent {
  return { type: enums.toPoolEventType(message.type), pool: toPool(message.pool) };
}

/** Converts a template. */
export function toTemplate(message: TemplateMessage | undefined): types.Template {
  const template = required(message, "template");
  return {
    templateId: template.templateId,
    name: template.name,
    ...specified(template.spec),
    timeoutMs: milliseconds(template.timeout) ?? 0,
    etag: template.etag,
    createTime: timeOf(template.createTime),
    updateTime: timeOf(template.updateTime),
  };
}

/** Converts a secret. */
export function toSecret(message: SecretMessage | undefined): types.Secret {
  const secret = required(message, "secret");
  return {
    name: secret.name,
    createTime: timeOf(secret.createTime),
    updateTime: timeOf(secret.updateTime),
  };
}

/** Converts a sandbox. */
export function toSandboxInfo(message: SandboxMessage | undefined): types.SandboxInfo {
  const sandbox = required(message, "sandbox");
  return {
    sandboxId: sandbox.sandboxId,
    name: orNull(sandbox.name),
    state: enums.toSandboxState(sandbox.state),
    poolId: orNull(sandbox.poolId),
    templateName: orNull(sandbox.templateName),
    ...specified(sandbox.spec),
    timeoutMs: milliseconds(sandbox.timeout) ?? 0,
    metadata: { ...sandbox.metadata },
    startType: enums.toStartType(sandbox.startType),
    startDurationMs: milliseconds(sandbox.startDuration),
    createTime: timeOf(sandbox.createTime),
    expireTime: date(sandbox.expireTime),
    endTime: date(sandbox.endTime),
    terminationReason: enums.toTerminationReason(sandbox.terminationReason),
    terminationMessage: orNull(sandbox.terminationMessage),
    exitCode: sandbox.exitCode ?? null,
    etag: sandbox.etag,
  };
}

/** Converts the response to a command. */
export function toCommandResult(message: RunCommandResponse): CommandResult {
  const exitCode = message.status.case === "exitCode" ? message.status.value : null;
  const reason = enums.toExitReason(message.reason);
  return {
    stdout: message.stdout,
    stderr: message.stderr,
    stdoutBytes: message.stdoutBytes.length > 0 ? message.stdoutBytes : bytesOf(message.stdout),
    stderrBytes: message.stderrBytes.length > 0 ? message.stderrBytes : bytesOf(message.stderr),
    exitCode,
    signal: message.status.case === "signal" ? message.status.value : null,
    reason,
    success: exitCode === 0,
    timedOut: reason === "timed_out",
    durationMs: milliseconds(message.duration) ?? 0,
    stdoutDroppedBytes: Number(message.stdoutDroppedBytes),
    stderrDroppedBytes: Number(message.stderrDroppedBytes),
  };
}
