/** From the options of `options.ts` to the messages of the contract. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { PullPolicy } from "../gen/sandpool/v1/pool_pb.js";
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
import type { RunOptions } from "../inside-options.js";
import type * as options from "../options.js";
import { commandWords, oneOf, workingDir } from "./commands.js";
import { toSandboxState } from "./convert.js";
import { invalid } from "./errors.js";
import { cpus, mebibytes } from "./quantities.js";

const INT32_MAX = 2 ** 31 - 1;
const INTEGERS = [
  "memoryMb",
  "ephemeralDiskMb",
  "warmContainers",
  "maxContainers",
  "timeoutSecs",
  "readinessRetries",
  "imageCheckSecs",
  "maxAgeSecs",
  "count",
] as const;

const PULL_POLICIES = { missing: PullPolicy.MISSING, always: PullPolicy.ALWAYS, never: PullPolicy.NEVER } as const;
const WHEN_EMPTY = { start_cold: WhenEmpty.START_COLD, wait: WhenEmpty.WAIT, fail: WhenEmpty.FAIL } as const;

/** The number of the contract for a word; undefined where there is none. */
function enumNumber<K extends string, N>(field: string, table: Readonly<Record<K, N>>, word: K | undefined | null) {
  if (word === undefined || word === null) return undefined;
  if (Object.hasOwn(table, word)) return table[word];
  throw invalid(field, `must be one of ${Object.keys(table).join(", ")}, not ${JSON.stringify(word)}`);
}

/** Half a character outside of the basic plane, which the encoding would silently replace. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** A text to send. The error does not show it, for it may be secret. */
function text(field: string, value: string): string {
  if (typeof value !== "string") throw invalid(field, `must be a string, not ${typeof value}`);
  if (LONE_SURROGATE.test(value)) throw invalid(field, "holds half a character (a lone surrogate), which is no text");
  return value;
}

/** A map of texts to send. Errors name keys and never show values. */
export function texts(field: string, values: Readonly<Record<string, string>> | null | undefined): Record<string, string> {
  const checked = Object.entries(values ?? {}).map(([key, value]) => [
    text(field, key),
    text(`${field}[${JSON.stringify(key)}]`, value),
  ]);
  return Object.fromEntries(checked) as Record<string, string>;
}

/** Refuses what the encoding of the contract cannot carry; ranges are the server's to check. */
function checkIntegers(values: { readonly [K in (typeof INTEGERS)[number]]?: number | null | undefined }): void {
  for (const name of INTEGERS) {
    const value = values[name];
    if (value === undefined || value === null) continue;
    if (Number.isInteger(value) && Math.abs(value) <= INT32_MAX) continue;
    throw invalid(name, `must be a whole number of at most 32 bits, not ${value}`);
  }
}

const list = (values: readonly string[] | null | undefined): string[] => [...(values ?? [])];

/** The pool's size, under whichever of its names it is given. */
function poolSize(sizes: Readonly<Partial<Record<"warmContainers" | "size" | "replicas", number | undefined>>>) {
  const given = [sizes.warmContainers, sizes.size, sizes.replicas].filter((size) => size !== undefined);
  if (given.length > 1) throw invalid("warmContainers", "give one of warmContainers, size and replicas");
  return given[0];
}

/** A value to send; null, which only the mask tells, is left out. */
const present = <T>(value: T | null | undefined): T | undefined => value ?? undefined;

/** The fields of the contract that a change names; `names` maps an option to its field. */
function mask<T extends object>(
  changes: T,
  names: { readonly [K in keyof T]?: string },
): MessageInitShape<typeof FieldMaskSchema> {
  const given = (Object.keys(names) as (keyof T)[]).filter((key) => changes[key] !== undefined);
  return { paths: given.map((key) => names[key]).filter((path) => path !== undefined) };
}

export function createPoolRequest(
  name: string | undefined,
  pool: options.CreatePoolOptions,
  requestId: string,
): MessageInitShape<typeof CreatePoolRequestSchema> {
  const warmContainers = poolSize(pool);
  checkIntegers({ ...pool, warmContainers });
  return {
    name: name ?? "",
    image: pool.image ?? "",
    templateName: pool.templateName ?? "",
    cpus: pool.cpus,
    memoryMb: pool.memoryMb,
    ephemeralDiskMb: pool.ephemeralDiskMb,
    warmContainers: warmContainers ?? 0,
    maxContainers: pool.maxContainers,
    timeoutSecs: pool.timeoutSecs,
    secretNames: list(pool.secretNames),
    entrypoint: list(pool.entrypoint),
    env: texts("env", pool.env),
    readinessCommand: list(pool.readinessCommand),
    readinessIntervalSecs: pool.readinessIntervalSecs,
    readinessTimeoutSecs: pool.readinessTimeoutSecs,
    readinessRetries: pool.readinessRetries,
    pullPolicy: enumNumber("pullPolicy", PULL_POLICIES, pool.pullPolicy) ?? PullPolicy.UNSPECIFIED,
    imageCheckSecs: pool.imageCheckSecs ?? 0,
    maxAgeSecs: pool.maxAgeSecs ?? 0,
    paused: pool.paused ?? false,
    drain: pool.drain ?? false,
    requestId,
  };
}

export function updatePoolRequest(
  poolId: string,
  pool: options.UpdatePoolOptions,
  requestId: string,
): MessageInitShape<typeof UpdatePoolRequestSchema> {
  const warmContainers = poolSize(pool);
  const changes = { ...pool, warmContainers };
  checkIntegers(changes);
  return {
    poolId,
    name: present(pool.newName),
    image: pool.image,
    cpus: present(pool.cpus),
    memoryMb: present(pool.memoryMb),
    ephemeralDiskMb: present(pool.ephemeralDiskMb),
    warmContainers,
    maxContainers: present(pool.maxContainers),
    timeoutSecs: present(pool.timeoutSecs),
    secretNames: list(pool.secretNames),
    entrypoint: list(pool.entrypoint),
    env: texts("env", pool.env),
    readinessCommand: list(pool.readinessCommand),
    readinessIntervalSecs: present(pool.readinessIntervalSecs),
    readinessTimeoutSecs: present(pool.readinessTimeoutSecs),
    readinessRetries: present(pool.readinessRetries),
    pullPolicy: enumNumber("pullPolicy", PULL_POLICIES, pool.pullPolicy),
    imageCheckSecs: present(pool.imageCheckSecs),
    maxAgeSecs: present(pool.maxAgeSecs),
    paused: pool.paused,
    drain: pool.drain,
    updateMask: mask(changes, {
      newName: "name",
      image: "image",
      cpus: "cpus",
      memoryMb: "memory_mb",
      ephemeralDiskMb: "ephemeral_disk_mb",
      warmContainers: "warm_containers",
      maxContainers: "max_containers",
      timeoutSecs: "timeout_secs",
      secretNames: "secret_names",
      entrypoint: "entrypoint",
      env: "env",
      readinessCommand: "readiness_command",
      readinessIntervalSecs: "readiness_interval_secs",
      readinessTimeoutSecs: "readiness_timeout_secs",
      readinessRetries: "readiness_retries",
      pullPolicy: "pull_policy",
      imageCheckSecs: "image_check_secs",
      maxAgeSecs: "max_age_secs",
      paused: "paused",
      drain: "drain",
    }),
    etag: pool.etag ?? "",
    requestId,
  };
}

export function createTemplateRequest(
  name: string,
  template: options.CreateTemplateOptions,
  requestId: string,
): MessageInitShape<typeof CreateTemplateRequestSchema> {
  checkIntegers(template);
  return {
    name,
    image: template.image,
    cpus: oneOf("cpus", template.cpus, "cpu", cpus(template.cpu)),
    memoryMb: oneOf("memoryMb", template.memoryMb, "memory", mebibytes("memory", template.memory)),
    ephemeralDiskMb: oneOf("ephemeralDiskMb", template.ephemeralDiskMb, "storage", mebibytes("storage", template.storage)),
    timeoutSecs: template.timeoutSecs ?? 0,
    secretNames: list(template.secretNames),
    entrypoint: list(template.entrypoint),
    env: texts("env", template.env),
    readinessCommand: list(template.readinessCommand),
    readinessIntervalSecs: template.readinessIntervalSecs,
    readinessTimeoutSecs: template.readinessTimeoutSecs,
    readinessRetries: template.readinessRetries,
    requestId,
  };
}

export function updateTemplateRequest(
  templateName: string,
  template: options.UpdateTemplateOptions,
  requestId: string,
): MessageInitShape<typeof UpdateTemplateRequestSchema> {
  checkIntegers(template);
  return {
    templateName,
    name: template.newName,
    image: template.image,
    cpus: present(template.cpus),
    memoryMb: present(template.memoryMb),
    ephemeralDiskMb: present(template.ephemeralDiskMb),
    timeoutSecs: present(template.timeoutSecs),
    secretNames: list(template.secretNames),
    entrypoint: list(template.entrypoint),
    env: texts("env", template.env),
    readinessCommand: list(template.readinessCommand),
    readinessIntervalSecs: present(template.readinessIntervalSecs),
    readinessTimeoutSecs: present(template.readinessTimeoutSecs),
    readinessRetries: present(template.readinessRetries),
    updateMask: mask(template, {
      newName: "name",
      image: "image",
      cpus: "cpus",
      memoryMb: "memory_mb",
      ephemeralDiskMb: "ephemeral_disk_mb",
      timeoutSecs: "timeout_secs",
      secretNames: "secret_names",
      entrypoint: "entrypoint",
      env: "env",
      readinessCommand: "readiness_command",
      readinessIntervalSecs: "readiness_interval_secs",
      readinessTimeoutSecs: "readiness_timeout_secs",
      readinessRetries: "readiness_retries",
    }),
    etag: template.etag ?? "",
    requestId,
  };
}

export function createSandboxRequest(
  sandbox: options.CreateOptions,
  requestId: string,
): MessageInitShape<typeof CreateSandboxRequestSchema> {
  checkIntegers(sandbox);
  return {
    poolId: sandbox.poolId ?? "",
    templateName: sandbox.templateName ?? "",
    image: sandbox.image ?? "",
    cpus: sandbox.cpus,
    memoryMb: sandbox.memoryMb,
    ephemeralDiskMb: sandbox.ephemeralDiskMb,
    timeoutSecs: sandbox.timeoutSecs,
    secretNames: list(sandbox.secretNames),
    entrypoint: list(sandbox.entrypoint),
    env: texts("env", sandbox.env),
    readinessCommand: list(sandbox.readinessCommand),
    readinessIntervalSecs: sandbox.readinessIntervalSecs,
    readinessTimeoutSecs: sandbox.readinessTimeoutSecs,
    readinessRetries: sandbox.readinessRetries,
    whenEmpty: enumNumber("whenEmpty", WHEN_EMPTY, sandbox.whenEmpty) ?? WhenEmpty.UNSPECIFIED,
    waitSecs: sandbox.waitSecs,
    name: sandbox.name ?? "",
    metadata: texts("metadata", sandbox.metadata),
    requestId,
  };
}

export function batchCreateSandboxesRequest(
  count: number,
  sandbox: options.BatchOptions,
  requestId: string,
): MessageInitShape<typeof BatchCreateSandboxesRequestSchema> {
  checkIntegers({ count });
  return { count, sandbox: createSandboxRequest(sandbox, ""), requestId };
}

/** Creates a secret, or changes its value: the two requests are alike. */
export function secretRequest(
  name: string,
  value: string,
  requestId: string,
): { name: string; value: string; requestId: string } {
  return { name, value: text("value", value), requestId };
}

export function updateSandboxRequest(
  sandboxId: string,
  sandbox: options.UpdateSandboxOptions,
  requestId: string,
): MessageInitShape<typeof UpdateSandboxRequestSchema> {
  checkIntegers(sandbox);
  return {
    sandboxId,
    name: present(sandbox.newName),
    metadata: texts("metadata", sandbox.metadata),
    timeoutSecs: present(sandbox.timeoutSecs),
    updateMask: mask(sandbox, { newName: "name", metadata: "metadata", timeoutSecs: "timeout_secs" }),
    etag: sandbox.etag ?? "",
    requestId,
  };
}

export function listSandboxesRequest(
  filter: options.ListSandboxesOptions,
  pageToken: string,
): MessageInitShape<typeof ListSandboxesRequestSchema> {
  return {
    pageToken,
    poolId: filter.poolId ?? "",
    templateName: filter.templateName ?? "",
    states: (filter.states ?? []).map(toSandboxState),
    metadata: texts("metadata", filter.metadata),
  };
}

export function runCommandRequest(
  sandboxId: string,
  command: string | readonly string[],
  run: RunOptions,
): MessageInitShape<typeof RunCommandRequestSchema> {
  return {
    sandboxId,
    ...commandWords(command, run),
    env: texts("env", run.env),
    workingDir: workingDir(run),
    user: run.user ?? "",
    timeoutSecs: run.timeout,
  };
}
