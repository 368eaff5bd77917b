/** The models of pools, templates, secrets and sandboxes: plain objects. Absent values are `null`. */

/** The state of a pool. `unknown`: a state that this version of the package does not know. */
export type PoolState = "ready" | "filling" | "degraded" | "paused" | "drained" | "unknown";

/** When the engine pulls an image: when it does not have it, before each container is created, or never. */
export type PullPolicy = "missing" | "always" | "never" | "unknown";

/**
 * How the limit on disk space is enforced: by the engine's storage, which rejects writes above the limit, or by the
 * server, which measures the usage every few seconds and terminates a sandbox above its limit.
 */
export type DiskEnforcement = "engine" | "best_effort" | "unknown";

/** The reason why a container could not be created for a pool. */
export type PoolErrorReason =
  | "image_not_found"
  | "pull_failed"
  | "start_failed"
  | "readiness_timeout"
  | "engine_unreachable"
  | "disk_full"
  | "limit_unsupported"
  | "unknown";

/** The state of a sandbox. */
export type SandboxState = "starting" | "running" | "terminating" | "terminated" | "unknown";

/** How a sandbox got its container: a warm one from a pool, or one that was started for it. */
export type StartType = "warm" | "cold" | "unknown";

/** Why a sandbox terminated. */
export type TerminationReason =
  | "deleted"
  | "timed_out"
  | "exited"
  | "oom_killed"
  | "disk_exceeded"
  | "lost"
  | "failed"
  | "unknown";

/** The kind of a pool event: the state at the start of the watch, a change, or a deletion. */
export type PoolEventType = "current" | "changed" | "deleted" | "unknown";

/** A command that decides whether a container is ready. */
export interface ReadinessProbe {
  /** The program and its arguments. Exit code 0 means ready. */
  readonly command: readonly string[];
  /** The time between two attempts in milliseconds. */
  readonly intervalMs: number;
  /** The time limit of one attempt in milliseconds. */
  readonly timeoutMs: number;
  /** The number of failed attempts after which the container is abandoned. */
  readonly failureThreshold: number;
}

/** The attributes of a specification that {@link Pool}, {@link Template} and {@link SandboxInfo} repeat. */
export interface ContainerAttributes {
  /** The container image. */
  readonly image: string;
  /** The number of CPUs. */
  readonly cpus: number;
  /** The memory in MiB, without swap. */
  readonly memoryMb: number;
  /** The writable disk space in MiB. */
  readonly ephemeralDiskMb: number;
  /** Environment variables of the sandbox's processes and of the entrypoint. They override those of the image. */
  readonly env: Readonly<Record<string, string>>;
  /** The program, with its arguments, that runs next to the sandbox's commands; null for none. */
  readonly entrypoint: readonly string[] | null;
  /** The names of the secrets that each sandbox receives as environment variables. */
  readonly secretNames: readonly string[];
}

/** The specification of a container. */
export interface ContainerSpec extends ContainerAttributes {
  /** When the engine pulls the image. */
  readonly pullPolicy: PullPolicy;
  /** The command that decides whether a container is ready; null: it is ready when it can run commands. */
  readonly readinessProbe: ReadinessProbe | null;
}

/** A pool of warm containers. */
export interface Pool extends ContainerAttributes {
  /** The identifier that the server assigned. */
  readonly poolId: string;
  /** The name, or null. */
  readonly name: string | null;
  /** The name of the template that defines `spec`, or null when the pool has its own specification. */
  readonly templateName: string | null;
  /** The container specification. */
  readonly spec: ContainerSpec;
  /** The number of warm containers to maintain, or null when it is not set: none. */
  readonly warmContainers: number | null;
  /** The maximum number of containers in any state, or null for no limit. */
  readonly maxContainers: number | null;
  /** The lifetime of a sandbox in milliseconds, counted from its claim; 0: no limit. */
  readonly timeoutMs: number;
  /** Whether the pool is paused: no containers are created and no sandboxes are claimed. */
  readonly paused: boolean;
  /** Whether the pool is drained: paused, with its unclaimed containers removed. */
  readonly drained: boolean;
  /** The interval in milliseconds at which the server checks whether the image's tag changed; null: never. */
  readonly imageRefreshIntervalMs: number | null;
  /** The age in milliseconds at which a warm container is replaced, less up to one fifth; null: never. */
  readonly warmTtlMs: number | null;
  /** Changes with every update. Pass it to an update or a delete to detect concurrent changes. */
  readonly etag: string;
  /** When the pool was created. */
  readonly createTime: Date;
  /** When the pool was last updated. */
  readonly updateTime: Date;
  /** The state of the pool's containers at the time of the response. */
  readonly status: PoolStatus;
}

/** The state of a pool and of its containers. */
export interface PoolStatus {
  /** The state of the pool as a whole. */
  readonly state: PoolState;
  /** The number of warm containers: ready, unclaimed and of the current specification. */
  readonly warm: number;
  /** The number of containers that are being created. */
  readonly creating: number;
  /** The number of containers that are assigned to a running sandbox. */
  readonly active: number;
  /** The number of containers that are being removed. They count towards `maxContainers`. */
  readonly removing: number;
  /** The number of unclaimed containers of an earlier specification. They are never assigned. */
  readonly stale: number;
  /** The number of warm containers that the pool aims at. */
  readonly desired: number;
  /** The number of sandboxes since the pool's creation that started warm. */
  readonly hits: number;
  /** The number of sandboxes since the pool's creation that found no warm container. */
  readonly misses: number;
  /** The most recent failure to create a container, or null when the last attempt succeeded. */
  readonly lastError: PoolError | null;
  /** The digest of the image that the pool's tag refers to, or null until it is known. */
  readonly imageDigest: string | null;
  /** The image pull in progress, or null. */
  readonly imagePull: ImagePull | null;
  /** How the engine enforces `ephemeralDiskMb`, or null until it is known. */
  readonly diskEnforcement: DiskEnforcement | null;
  /** The number of callers in the wait queue for a sandbox of this pool. */
  readonly waiting: number;
}

/** The progress of an image pull. */
export interface ImagePull {
  /** The image. */
  readonly image: string;
  /** The number of bytes received. */
  readonly currentBytes: number;
  /** The number of bytes to receive, as far as it is known; it may increase. */
  readonly totalBytes: number;
}

/** A failure to create a container for a pool. */
export interface PoolError {
  /** The kind of failure. */
  readonly reason: PoolErrorReason;
  /** The failure and the next action, for a person. */
  readonly message: string;
  /** When the failure occurred. */
  readonly time: Date;
  /** When the next attempt starts, or null while an attempt is in progress. */
  readonly nextAttemptTime: Date | null;
  /** The number of consecutive failed attempts. */
  readonly consecutiveFailures: number;
}

/** An event of a watch on pools. */
export interface PoolEvent {
  /** The kind of event. */
  readonly type: PoolEventType;
  /** The pool: its current state, or its last state when it was deleted. */
  readonly pool: Pool;
}

/** A named container specification for pools and sandboxes. */
export interface Template extends ContainerAttributes {
  /** The identifier that the server assigned. */
  readonly templateId: string;
  /** The name. */
  readonly name: string;
  /** The container specification. */
  readonly spec: ContainerSpec;
  /** The lifetime of a sandbox in milliseconds, counted from its claim; 0: no limit. */
  readonly timeoutMs: number;
  /** Changes with every update. Pass it to an update or a delete to detect concurrent changes. */
  readonly etag: string;
  /** When the template was created. */
  readonly createTime: Date;
  /** When the template was last updated. */
  readonly updateTime: Date;
}

/** A secret without its value. No call returns the value. */
export interface Secret {
  /** The name of the secret and of the environment variable. */
  readonly name: string;
  /** When the secret was created. */
  readonly createTime: Date;
  /** When the value was last updated. */
  readonly updateTime: Date;
}

/** A sandbox at the time of the response. */
export interface SandboxInfo extends ContainerAttributes {
  /** The identifier that the server assigned. */
  readonly sandboxId: string;
  /** The name, or null. */
  readonly name: string | null;
  /** The state of the sandbox. */
  readonly state: SandboxState;
  /** The identifier of the pool that the sandbox belongs to, or null. */
  readonly poolId: string | null;
  /** The name of the template that the sandbox uses, directly or through its pool, or null. */
  readonly templateName: string | null;
  /** The container specification. The environment of this sandbox alone is not returned. */
  readonly spec: ContainerSpec;
  /** The lifetime in milliseconds, counted from the claim; 0: no limit. */
  readonly timeoutMs: number;
  /** Labels that the caller chose. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Whether the sandbox started warm or cold, or null while it is starting. */
  readonly startType: StartType | null;
  /** The time in milliseconds from the request to a sandbox that runs commands, or null while it is starting. */
  readonly startDurationMs: number | null;
  /** When the sandbox was claimed. */
  readonly createTime: Date;
  /** When the lifetime ends, or null without a limit. */
  readonly expireTime: Date | null;
  /** When the sandbox terminated, or null. */
  readonly endTime: Date | null;
  /** Why the sandbox terminated, or null. */
  readonly terminationReason: TerminationReason | null;
  /** Details about the termination for a person, or null. */
  readonly terminationMessage: string | null;
  /** The exit code of the container when its first process exited, or null. */
  readonly exitCode: number | null;
  /** Changes with every update. Pass it to an update to detect concurrent changes. */
  readonly etag: string;
}
