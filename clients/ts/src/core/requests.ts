/** Converts the options of `options.ts` to the messages of the contract. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ContainerSpecSchema, PullPolicy, type ReadinessProbeSchema } from "../gen/sandpool/v1/container_pb.js";
import type { CreatePoolRequestSchema, UpdatePoolRequestSchema } from "../gen/sandpool/v1/pool_service_pb.js";
import {
  type BatchCreateSandboxesRequestSchema,
  type CreateSandboxRequestSchema,
  type ListSandboxesRequestSchema,
  type RunCommandRequestSchema,
  type UpdateSandboxRequestSchema,
  WhenEmpty,
} from "../gen/sandpool/v1/sandbox_service_pb.js";
import type {
  CreateTemplateRequestSchema,
  UpdateTemplateRequestSchema,
} from "../gen/sandpool/v1/template_service_pb.js";
import type * as options from "../options.js";
import type { Command, RunOptions } from "../sandbox-options.js";
import { commandFields, exactlyOne, integer, reject, text, textList, textMap } from "./arguments.js";
import { CREATE_TIMEOUT_MS, QUEUE_TIMEOUT_MS, READINESS } from "./defaults.js";
import { fromPullPolicy, fromSandboxState, fromWhenEmpty } from "./enums.js";
import { duration, durationOrNone } from "./time.js";

type SpecRequest = MessageInitShape<typeof ContainerSpecSchema>;
type GivenSpec = options.SpecChanges;

/** The fields of a specification, and their paths in an update mask. */
const SPEC_PATHS = {
  image: "spec.image",
  cpus: "spec.cpus",
  memoryMb: "spec.memory_mb",
  ephemeralDiskMb: "spec.ephemeral_disk_mb",
  env: "spec.env",
  entrypoint: "spec.entrypoint",
  secretNames: "spec.secret_names",
  pullPolicy: "spec.pull_policy",
  readinessProbe: "spec.readiness_probe",
} as const satisfies Record<keyof GivenSpec, string>;

/** Returns the request id of a change: the caller's, otherwise a generated one. */
export function requestId(call: options.MutationOptions | undefined): string {
  return call?.requestId ?? crypto.randomUUID();
}

function probe(given: options.ReadinessProbeOptions): MessageInitShape<typeof ReadinessProbeSchema> {
  return {
    command: textList("readinessProbe.command", given.command),
    interval: duration("readinessProbe.intervalMs", given.intervalMs),
    timeout: duration("readinessProbe.timeoutMs", given.timeoutMs),
    failureThreshold: integer("readinessProbe.failureThreshold", given.failureThreshold),
  };
}

/** Returns a specification; null, which only an update mask expresses, is left out. */
function spec(given: GivenSpec): SpecRequest {
  const { pullPolicy, readinessProbe } = given;
  return {
    image: given.image === undefined ? "" : text("image", given.image),
    cpus: given.cpus ?? undefined,
    memoryMb: integer("memoryMb", given.memoryMb),
    ephemeralDiskMb: integer("ephemeralDiskMb", given.ephemeralDiskMb),
    env: textMap("env", given.env),
    entrypoint: textList("entrypoint", given.entrypoint),
    secretNames: textList("secretNames", given.secretNames),
    pullPolicy: pullPolicy ? fromPullPolicy("pullPolicy", pullPolicy) : PullPolicy.UNSPECIFIED,
    readinessProbe: readinessProbe ? probe(readinessProbe) : undefined,
  };
}

/** Throws a TypeError for fields of a specification that another resource defines. */
function rejectSpec(given: GivenSpec, owner: string, except: readonly (keyof GivenSpec)[] = []): void {
  const names = (Object.keys(SPEC_PATHS) as (keyof GivenSpec)[]).filter((name) => !except.includes(name));
  const values = Object.fromEntries(names.map((name) => [name, given[name]]));
  reject(`the specification is that of the ${owner}`, values);
}

/** Returns the update mask of the given changes; `paths` maps an option to its field. */
function mask<T extends object>(changes: T, paths: { readonly [K in keyof T]?: string }): { paths: string[] } {
  const names = (Object.keys(paths) as (keyof T)[]).filter((name) => changes[name] !== undefined);
  const given = names.flatMap((name) => paths[name] ?? []);
  if (given.length === 0) throw new TypeError("nothing to update: set at least one field");
  return { paths: given };
}

/** Returns the specification of an update, or undefined when none of its fields changes. */
function changedSpec(changes: GivenSpec): SpecRequest | undefined {
  const names = Object.keys(SPEC_PATHS) as (keyof GivenSpec)[];
  return names.some((name) => changes[name] !== undefined) ? spec(changes) : undefined;
}

export function createPoolRequest(
  name: string | undefined,
  pool: options.CreatePoolOptions,
): MessageInitShape<typeof CreatePoolRequestSchema> {
  const { image, templateName, warmContainers, size } = pool;
  if (exactlyOne({ image, templateName }) === "templateName") rejectSpec(pool, "template");
  else reject("it is the name of warmContainers for a pool with a template", { size });
  if (size !== undefined) reject("size has the same meaning", { warmContainers });
  return {
    name: name === undefined ? "" : text("name", name),
    spec: image === undefined ? undefined : spec(pool),
    templateName: templateName ?? "",
    warmContainers: integer("warmContainers", warmContainers ?? size),
    maxContainers: integer("maxContainers", pool.maxContainers),
    timeout: durationOrNone("timeoutMs", pool.timeoutMs),
    paused: pool.paused ?? false,
    drained: pool.drained ?? false,
    imageRefreshInterval: durationOrNone("imageRefreshIntervalMs", pool.imageRefreshIntervalMs),
    warmTtl: durationOrNone("warmTtlMs", pool.warmTtlMs),
    requestId: requestId(pool),
  };
}

export function updatePoolRequest(
  poolId: string,
  changes: options.UpdatePoolOptions,
): MessageInitShape<typeof UpdatePoolRequestSchema> {
  return {
    poolId,
    name: changes.name ?? undefined,
    spec: changedSpec(changes),
    warmContainers: integer("warmContainers", changes.warmContainers),
    maxContainers: integer("maxContainers", changes.maxContainers),
    timeout: duration("timeoutMs", changes.timeoutMs ?? undefined),
    paused: changes.paused,
    drained: changes.drained,
    imageRefreshInterval: duration("imageRefreshIntervalMs", changes.imageRefreshIntervalMs ?? undefined),
    warmTtl: duration("warmTtlMs", changes.warmTtlMs ?? undefined),
    updateMask: mask<options.UpdatePoolOptions>(changes, {
      name: "name",
      ...SPEC_PATHS,
      warmContainers: "warm_containers",
      maxContainers: "max_containers",
      timeoutMs: "timeout",
      paused: "paused",
      drained: "drained",
      imageRefreshIntervalMs: "image_refresh_interval",
      warmTtlMs: "warm_ttl",
    }),
    etag: changes.etag ?? "",
    requestId: requestId(changes),
  };
}

export function createTemplateRequest(
  name: string,
  template: options.CreateTemplateOptions,
): MessageInitShape<typeof CreateTemplateRequestSchema> {
  return {
    name,
    spec: spec(template),
    timeout: durationOrNone("timeoutMs", template.timeoutMs),
    requestId: requestId(template),
  };
}

export function updateTemplateRequest(
  templateName: string,
  changes: options.UpdateTemplateOptions,
): MessageInitShape<typeof UpdateTemplateRequestSchema> {
  return {
    templateName,
    name: changes.name,
    spec: changedSpec(changes),
    timeout: duration("timeoutMs", changes.timeoutMs ?? undefined),
    updateMask: mask<options.UpdateTemplateOptions>(changes, { name: "name", ...SPEC_PATHS, timeoutMs: "timeout" }),
    etag: changes.etag ?? "",
    requestId: requestId(changes),
  };
}

/** A creation with all fields that its variants have. */
interface AnySandbox extends options.SandboxOptions, GivenSpec {
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly poolId?: string | undefined;
  readonly templateName?: string | undefined;
  readonly whenEmpty?: options.WhenEmpty | undefined;
  readonly queueTimeoutMs?: number | undefined;
}

export function createSandboxRequest(
  given: options.CreateOptions,
  id: string,
): MessageInitShape<typeof CreateSandboxRequestSchema> {
  const sandbox: AnySandbox = given;
  const { poolId, templateName, image, whenEmpty, queueTimeoutMs } = sandbox;
  const source = exactlyOne({ poolId, templateName, image });
  if (source !== "image") rejectSpec(sandbox, source === "poolId" ? "pool" : "template", ["env"]);
  else reject("a sandbox from an image always has a cold start", { whenEmpty });
  if (whenEmpty !== "wait") reject('it requires whenEmpty: "wait"', { queueTimeoutMs });
  return {
    poolId: poolId ?? "",
    templateName: templateName ?? "",
    // With an image, the variables belong to the specification, so that the entrypoint receives them as well.
    spec: image === undefined ? undefined : spec(sandbox),
    name: sandbox.name ?? "",
    metadata: textMap("metadata", sandbox.metadata),
    timeout: durationOrNone("timeoutMs", sandbox.timeoutMs),
    env: image === undefined ? textMap("env", sandbox.env) : {},
    whenEmpty: whenEmpty === undefined ? WhenEmpty.UNSPECIFIED : fromWhenEmpty("whenEmpty", whenEmpty),
    queueTimeout: duration("queueTimeoutMs", queueTimeoutMs),
    requestId: id,
  };
}

/**
 * Returns the least time limit of a creation: for the start of a container, for the wait in the queue, and for the
 * attempts of the readiness probe.
 */
export function creationTimeoutMs(given: options.CreateOptions): number {
  const { whenEmpty, queueTimeoutMs, readinessProbe }: AnySandbox = given;
  const queue = whenEmpty === "wait" ? (queueTimeoutMs ?? QUEUE_TIMEOUT_MS) : 0;
  if (!readinessProbe) return CREATE_TIMEOUT_MS + queue;
  const { intervalMs, timeoutMs, failureThreshold } = { ...READINESS, ...readinessProbe };
  const attempt = (intervalMs ?? READINESS.intervalMs) + (timeoutMs ?? READINESS.timeoutMs);
  return CREATE_TIMEOUT_MS + queue + (failureThreshold ?? READINESS.failureThreshold) * attempt;
}

export function batchCreateSandboxesRequest(
  count: number,
  sandbox: options.BatchOptions,
): MessageInitShape<typeof BatchCreateSandboxesRequestSchema> {
  reject("the sandboxes of a batch are identical", { name: sandbox.name });
  return { count: integer("count", count), sandbox: createSandboxRequest(sandbox, ""), requestId: requestId(sandbox) };
}

/** Returns the request that creates or updates a secret: the two are the same. */
export function secretRequest(
  name: string,
  value: string,
  call: options.MutationOptions | undefined,
): { name: string; value: string; requestId: string } {
  return { name: text("name", name), value: text("value", value), requestId: requestId(call) };
}

export function updateSandboxRequest(
  sandboxId: string,
  changes: options.UpdateSandboxOptions,
): MessageInitShape<typeof UpdateSandboxRequestSchema> {
  return {
    sandboxId,
    name: changes.name ?? undefined,
    metadata: textMap("metadata", changes.metadata),
    timeout: duration("timeoutMs", changes.timeoutMs ?? undefined),
    updateMask: mask(changes, { name: "name", metadata: "metadata", timeoutMs: "timeout" }),
    etag: changes.etag ?? "",
    requestId: requestId(changes),
  };
}

export function listSandboxesRequest(
  filter: options.ListSandboxesOptions,
): MessageInitShape<typeof ListSandboxesRequestSchema> {
  return {
    poolId: filter.poolId ?? "",
    templateName: filter.templateName ?? "",
    states: (filter.states ?? []).map((state) => fromSandboxState("states", state)),
    metadata: textMap("metadata", filter.metadata),
  };
}

export function runCommandRequest(
  sandboxId: string,
  command: Command,
  { env, cwd, user, timeoutMs }: RunOptions,
): MessageInitShape<typeof RunCommandRequestSchema> {
  return {
    sandboxId,
    ...commandFields(command),
    env: textMap("env", env),
    workingDir: cwd ?? "",
    user: user ?? "",
    timeout: duration("timeoutMs", timeoutMs ?? undefined),
  };
}
