/** What calls answer: plain objects. `null` stands for what is absent. */

/** A pool's condition; `unknown` for one that this version of the package does not know. */
export type PoolState = "ready" | "filling" | "degraded" | "paused" | "drained" | "unknown";

/** When a pool's image is pulled: when the engine lacks it, before each container, or never. */
export type PullPolicy = "missing" | "always" | "never" | "unknown";

/**
 * Who sees to it that a container keeps to its disk: the engine's storage, which refuses to write more, or the server,
 * which looks every few seconds and ends a sandbox that is over.
 */
export type DiskEnforcement = "engine" | "watched" | "unknown";

/** Why a container could not be made for a pool. */
export type PoolErrorReason =
  | "image_not_found"
  | "pull_failed"
  | "start_failed"
  | "not_ready"
  | "engine_unreachable"
  | "disk_full"
  | "limit_unsupported"
  | "unknown";

/** Where a sandbox is in its life. */
export type SandboxState = "starting" | "running" | "terminating" | "terminated" | "unknown";

/** Whether a ready container was taken for a sandbox or one was started for it. */
export type SandboxStart = "warm" | "cold";

/** Why a sandbox ended. */
export type SandboxEndReason =
  | "deleted"
  | "timed_out"
  | "exited"
  | "oom_killed"
  | "disk_exceeded"
  | "lost"
  | "failed"
  | "unknown";

/** What a message of a watch tells: the state at its beginning, a change since, or the end of it. */
export type WatchEventType = "present" | "changed" | "deleted" | "unknown";

/** What each container of a pool, a template or a sandbox is. */
export interface ContainerInfo {
  /** The container image. */
  readonly image: string;
  /** CPUs of the container. */
  readonly cpus: number;
  /** Memory of the container in MiB, without swap. */
  readonly memoryMb: number;
  /** Disk of the container in MiB. */
  readonly ephemeralDiskMb: number;
  /** The lifetime of a sandbox from its claim in seconds, 0 for none. */
  readonly timeoutSecs: number;
  /** Names of the secrets that a sandbox is given. */
  readonly secretNames: readonly string[];
  /** The command that runs beside the sandbox's commands; empty for none. */
  readonly entrypoint: readonly string[];
  /** Environment of the sandbox's processes and of the entrypoint, over the image's. */
  readonly env: Readonly<Record<string, string>>;
}

/** What a container has to do before it counts as ready. */
export interface ReadinessInfo {
  /** A program and its arguments that must succeed; empty: a container is ready when it runs commands. */
  readonly readinessCommand: readonly string[];
  /** Seconds between two tries. */
  readonly readinessIntervalSecs: number;
  /** Seconds that one try may take. */
  readonly readinessTimeoutSecs: number;
  /** How often it may fail before the container is given up. */
  readonly readinessRetries: number;
}

/** A pool: containers of one kind, started and ready. */
export interface Pool extends ContainerInfo, ReadinessInfo {
  /** The server's identifier of the pool. */
  readonly poolId: string;
  /** The pool's name, or null when it has none. */
  readonly name: string | null;
  /** The template that the pool follows, or null when it has a specification of its own. */
  readonly templateName: string | null;
  /** How many containers are kept ready and unclaimed. */
  readonly warmContainers: number;
  /** The same as `warmContainers`. */
  readonly size: number;
  /** The same as `warmContainers`. */
  readonly replicas: number;
  /** The most containers that may exist at once, or null for no limit. */
  readonly maxContainers: number | null;
  /** When the image is pulled. */
  readonly pullPolicy: PullPolicy;
  /** Seconds between two looks at whether the image's tag names another image by now; 0 for never. */
  readonly imageCheckSecs: number;
  /** Seconds after which an unclaimed container is replaced, less up to a fifth at random; 0 for never. */
  readonly maxAgeSecs: number;
  /** Whether the pool is paused: no containers are made and no sandboxes taken. */
  readonly paused: boolean;
  /** Whether the pool is drained: paused, and without ready containers. */
  readonly drain: boolean;
  /** Changes with each update; give it to an update to refuse to overwrite another's. */
  readonly etag: string;
  /** When the pool was created. */
  readonly createTime: Date;
  /** When the pool was changed last. */
  readonly updateTime: Date;
  /** What the pool's containers were doing when the server answered. */
  readonly status: PoolStatus;
}

/** What a pool's containers are doing. */
export interface PoolStatus {
  /** The pool's condition in a word. */
  readonly state: PoolState;
  /** Containers that are ready, unclaimed and of the present specification. */
  readonly warm: number;
  /** Containers that are being created. */
  readonly creating: number;
  /** Containers that belong to a sandbox. */
  readonly active: number;
  /** Containers that are being removed; they count against `maxContainers` until they are gone. */
  readonly removing: number;
  /** Unclaimed containers of an earlier specification; they are never handed out. */
  readonly stale: number;
  /** How many ready containers the pool aims at. */
  readonly wanted: number;
  /** Sandboxes that were taken from a ready container since the pool was created. */
  readonly hits: number;
  /** Sandboxes that found no ready container since the pool was created. */
  readonly misses: number;
  /** The newest failure to fill the pool, or null when the last attempt succeeded. */
  readonly lastError: PoolError | null;
  /** The image that the pool's tag names, as the engine identifies it, or null until it was looked up. */
  readonly imageDigest: string | null;
  /** The pull of the pool's image, or null unless one is under way. */
  readonly imagePull: ImagePull | null;
  /** How the limit on disk is enforced on this engine, or null until the engine has answered. */
  readonly diskEnforcement: DiskEnforcement | null;
  /** Callers who wait in line for a sandbox of this pool. */
  readonly waiting: number;
}

/** A pull of an image that is under way. */
export interface ImagePull {
  /** The image. */
  readonly image: string;
  /** Bytes fetched so far. */
  readonly currentBytes: number;
  /** Bytes to fetch, as far as they are known by now; may grow. */
  readonly totalBytes: number;
}

/** A failure to create a container for a pool. */
export interface PoolError {
  /** What kind of failure it was. */
  readonly reason: PoolErrorReason;
  /** What happened and what to do about it. */
  readonly message: string;
  /** When it happened. */
  readonly time: Date;
  /** When the next attempt is due, or null when one is under way. */
  readonly nextAttemptTime: Date | null;
  /** How many attempts have failed in a row. */
  readonly consecutiveFailures: number;
}

/** One message of a watch on pools. */
export interface PoolEvent {
  /** What happened. */
  readonly type: WatchEventType;
  /** The pool as it is now, or as it was last when it is deleted. */
  readonly pool: Pool;
}

/** A template: a named specification of containers, for pools and for sandboxes. */
export interface Template extends ContainerInfo, ReadinessInfo {
  /** The server's identifier of the template. */
  readonly templateId: string;
  /** The template's name. */
  readonly name: string;
  /** Changes with each update; give it to an update to refuse to overwrite another's. */
  readonly etag: string;
  /** When the template was created. */
  readonly createTime: Date;
  /** When the template was changed last. */
  readonly updateTime: Date;
}

/** A secret, which each sandbox of a pool that names it has in its environment. Its value is answered by no call. */
export interface Secret {
  /** The secret's name, and that of the environment variable. */
  readonly name: string;
  /** When the secret was created. */
  readonly createTime: Date;
  /** When its value was changed last. */
  readonly updateTime: Date;
}

/**
 * What is known of a sandbox: one container that belongs to one caller. Of its environment what its pool, its template
 * or its creation from an image said; what was given for this sandbox alone is not repeated.
 */
export interface SandboxInfo extends ContainerInfo {
  /** The server's identifier of the sandbox. */
  readonly sandboxId: string;
  /** The sandbox's name, or null when it has none. */
  readonly name: string | null;
  /** Where the sandbox was in its life when the server answered. */
  readonly state: SandboxState;
  /** The pool that the sandbox counts in, or null. */
  readonly poolId: string | null;
  /** The template that the sandbox was made from, directly or through its pool, or null. */
  readonly templateName: string | null;
  /** Labels of the caller's choice. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Whether a ready container was taken or one was started; null while it is still starting. */
  readonly start: SandboxStart | null;
  /** How long the server took from the request to a sandbox that runs commands in milliseconds; null until then. */
  readonly startDurationMs: number | null;
  /** When the sandbox was claimed. */
  readonly createTime: Date;
  /** When the sandbox will be ended, or null when it has no lifetime. */
  readonly expireTime: Date | null;
  /** When the sandbox ended, or null. */
  readonly endTime: Date | null;
  /** Why the sandbox ended, or null when it has not. */
  readonly endReason: SandboxEndReason | null;
  /** More on why the sandbox ended, for a person; may be empty. */
  readonly endMessage: string;
  /** The exit code of the container where it ended by itself, or null. */
  readonly exitCode: number | null;
  /** Changes with each update; give it to an update to refuse to overwrite another's. */
  readonly etag: string;
}
