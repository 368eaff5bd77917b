/** From the options of `options.ts` to the messages of the contract. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { CreatePoolRequestSchema, UpdatePoolRequestSchema } from "../gen/sandpool/v1/pool_service_pb.js";
import type {
  CreateSandboxRequestSchema,
  ListSandboxesRequestSchema,
  RunCommandRequestSchema,
  UpdateSandboxRequestSchema,
} from "../gen/sandpool/v1/sandbox_service_pb.js";
import type {
  CreateTemplateRequestSchema,
  UpdateTemplateRequestSchema,
} from "../gen/sandpool/v1/template_service_pb.js";
import type * as options from "../options.js";
import { toSandboxState } from "./convert.js";
import { invalid } from "./errors.js";

const INT32_MAX = 2 ** 31 - 1;
const INTEGERS = ["memoryMb", "ephemeralDiskMb", "warmContainers", "maxContainers", "timeoutSecs"] as const;

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
    paused: pool.paused ?? false,
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
    paused: pool.paused,
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
      paused: "paused",
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
    cpus: template.cpus,
    memoryMb: template.memoryMb,
    ephemeralDiskMb: template.ephemeralDiskMb,
    timeoutSecs: template.timeoutSecs ?? 0,
    secretNames: list(template.secretNames),
    entrypoint: list(template.entrypoint),
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
    updateMask: mask(template, {
      newName: "name",
      image: "image",
      cpus: "cpus",
      memoryMb: "memory_mb",
      ephemeralDiskMb: "ephemeral_disk_mb",
      timeoutSecs: "timeout_secs",
      secretNames: "secret_names",
      entrypoint: "entrypoint",
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
    name: sandbox.name ?? "",
    metadata: { ...sandbox.metadata },
    requestId,
  };
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
    metadata: { ...sandbox.metadata },
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
    metadata: { ...filter.metadata },
  };
}

export function runCommandRequest(
  sandboxId: string,
  command: string | readonly string[],
  run: options.RunOptions,
): MessageInitShape<typeof RunCommandRequestSchema> {
  return {
    sandboxId,
    ...(typeof command === "string" ? { command } : { argv: [...command] }),
    env: { ...run.env },
    workingDir: run.cwd ?? "",
    user: run.user ?? "",
    timeoutSecs: run.timeout,
  };
}
