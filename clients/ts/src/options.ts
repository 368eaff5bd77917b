/** The options of the client's methods. Durations are milliseconds. */
import type { Transport } from "@connectrpc/connect";
import type { Pool, PullPolicy, SandboxState } from "./types.js";

/** How calls that may be repeated are repeated while the server does not respond. */
export interface RetryPolicy {
  /** The maximum number of attempts; 1: no retries. Default: 5. */
  readonly maxAttempts?: number | undefined;
  /** The pause before the first retry in milliseconds; it doubles with each retry. Up to half of it is random. Default: 100. */
  readonly initialDelayMs?: number | undefined;
  /** The longest pause in milliseconds, unless the server asks for a longer one. Default: 2,000. */
  readonly maxDelayMs?: number | undefined;
}

/** The options of a client. */
export interface SandboxClientOptions {
  /**
   * The server: `host:port`, `http://host:port`, or `https://host:port` for TLS. The default port is 50051, with TLS
   * 443. Default: the environment variable SANDPOOL_ADDRESS, otherwise 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /** The API key, sent as a bearer token. Default: the environment variable SANDPOOL_API_KEY, otherwise none. */
  readonly apiKey?: string | undefined;
  /**
   * The time limit of a request with its retries; null: no limit. Default: 30,000. The creation of a sandbox has at least
   * 120,000, because it may start a container, plus the time that it may wait in the queue. Commands, transfers and
   * watches have other limits.
   */
  readonly requestTimeoutMs?: number | null | undefined;
  /** How calls are repeated while the server does not respond. */
  readonly retry?: RetryPolicy | undefined;
  /** A transport of connect-es to use instead of gRPC over HTTP/2. The client does not close it. */
  readonly transport?: Transport | undefined;
}

/** The options of every call. */
export interface CallOptions {
  /** Cancels the call when it is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The time limit of the request with its retries; null: no limit. Default: that of the client. */
  readonly requestTimeoutMs?: number | null | undefined;
}

/** The options of every call that changes a resource. */
export interface MutationOptions extends CallOptions {
  /**
   * Identifies the request: a second request with the same value within a day changes nothing and returns the first
   * response. Default: a generated value, which retries of the call repeat.
   */
  readonly requestId?: string | undefined;
}

/** The options of a list. */
export interface ListOptions extends CallOptions {
  /** The number of items to read with one request, 1 to 1,000. Default: 1,000. */
  readonly pageSize?: number | undefined;
}

/** The options of a stream that does not end by itself. */
export interface WatchOptions {
  /** Ends the stream when it is aborted; the loop then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** The time limit; then the loop rejects with `ResourceTimeoutError`. Default: no limit. */
  readonly timeoutMs?: number | null | undefined;
}

/** A command that decides whether a container is ready. */
export interface ReadinessProbeOptions {
  /** The program and its arguments. Exit code 0 means ready. */
  readonly command: readonly string[];
  /** The time between two attempts, 10 to 300,000. Default: 500. */
  readonly intervalMs?: number | undefined;
  /** The time limit of one attempt, 10 to 300,000. Default: 5,000. */
  readonly timeoutMs?: number | undefined;
  /** The number of failed attempts after which the container is abandoned, 1 to 1,000. Default: 20. */
  readonly failureThreshold?: number | undefined;
}

/** The specification of a container, apart from its image. */
export interface SpecOptions {
  /** The number of CPUs, 0.01 to 256. Default: 1. */
  readonly cpus?: number | undefined;
  /** The memory in MiB, without swap, 16 to 4,194,304. Default: 512. */
  readonly memoryMb?: number | undefined;
  /** The writable disk space in MiB, 1 to 16,777,216. Default: 1024. */
  readonly ephemeralDiskMb?: number | undefined;
  /** Environment variables of the sandbox's processes and of the entrypoint. Default: none. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /**
   * A program and its arguments that run in the container next to the sandbox's commands. It starts with the container,
   * or, with `secretNames`, when the sandbox is claimed. The sandbox terminates when it exits. Default: none.
   */
  readonly entrypoint?: readonly string[] | undefined;
  /** The names of the secrets that each sandbox receives as environment variables. Default: none. */
  readonly secretNames?: readonly string[] | undefined;
  /** When the engine pulls the image. Default: `missing`. */
  readonly pullPolicy?: Exclude<PullPolicy, "unknown"> | undefined;
  /** The command that decides whether a container is ready. Default: it is ready when it can run commands. */
  readonly readinessProbe?: ReadinessProbeOptions | undefined;
}

/** Excludes the specification in types: another resource defines it. */
export type NoSpec = { readonly [K in keyof SpecOptions]?: undefined };

/** The number of warm containers to maintain, 0 to 1,000; for a pool with a template also called `size`. Default: none. */
export type PoolSize =
  | { readonly warmContainers?: number | undefined; readonly size?: undefined }
  | { readonly size: number; readonly warmContainers?: undefined };

interface PoolLimits extends MutationOptions {
  /** The maximum number of containers in any state, 1 to 100,000. Default: no limit. */
  readonly maxContainers?: number | undefined;
  /** The lifetime of a sandbox, counted from its claim; null: no limit. Default: that of the template, otherwise no limit. */
  readonly timeoutMs?: number | null | undefined;
  /** Whether to create the pool paused. Default: false. */
  readonly paused?: boolean | undefined;
  /** Whether to create the pool drained, which implies paused. Default: false. */
  readonly drained?: boolean | undefined;
  /**
   * The interval at which the server checks whether the image's tag refers to another image; if it does, the warm
   * containers are replaced. Null: never, the default.
   */
  readonly imageRefreshIntervalMs?: number | null | undefined;
  /** The age at which a warm container is replaced. Null: never, the default. */
  readonly warmTtlMs?: number | null | undefined;
}

/** A pool with its own specification. */
export type ImagePoolOptions = PoolLimits &
  SpecOptions & {
    /** The container image. */
    readonly image: string;
    /** The number of warm containers to maintain, 0 to 1,000. Default: none. */
    readonly warmContainers?: number | undefined;
    readonly size?: undefined;
    readonly templateName?: undefined;
  };

/** A pool that uses a template. */
export type TemplatePoolOptions = PoolLimits &
  NoSpec &
  PoolSize & {
    /** The name or identifier of the template. */
    readonly templateName: string;
    readonly image?: undefined;
  };

/** A pool to create: either `image` or `templateName` defines its containers. */
export type CreatePoolOptions = ImagePoolOptions | TemplatePoolOptions;

/** The name of a new pool, when it is not the first argument. */
export interface Named {
  /** The name, unique among existing pools: lower-case letters, digits and hyphens, at most 63. Default: none. */
  readonly name?: string | undefined;
}

/** Changes of a specification. Omitted fields stay as they are; null returns a field to its default. */
export type SpecChanges = { readonly [K in keyof SpecOptions]?: SpecOptions[K] | null } & {
  /** The new image. */
  readonly image?: string | undefined;
};

/** Changes of a pool. Omitted fields stay as they are; null returns a field to its default. */
export type UpdatePoolOptions = SpecChanges &
  MutationOptions & {
    /** The new name; null removes the name. */
    readonly name?: string | null | undefined;
    /** The new number of warm containers; null: none. */
    readonly warmContainers?: number | null | undefined;
    /** The new maximum number of containers; null: no limit. */
    readonly maxContainers?: number | null | undefined;
    /** The new lifetime of sandboxes that are claimed later; 0: no limit; null: that of the template, otherwise no limit. */
    readonly timeoutMs?: number | null | undefined;
    /** Whether the pool is paused. */
    readonly paused?: boolean | undefined;
    /** Whether the pool is drained: paused, with its unclaimed containers removed. */
    readonly drained?: boolean | undefined;
    /** The new interval of image checks; null: never. */
    readonly imageRefreshIntervalMs?: number | null | undefined;
    /** The new age at which a warm container is replaced; null: never. */
    readonly warmTtlMs?: number | null | undefined;
    /** The pool's etag. If it is not current, the update fails with `ConflictError`. */
    readonly etag?: string | undefined;
  };

/** A template to create. */
export interface CreateTemplateOptions extends SpecOptions, MutationOptions {
  /** The container image. */
  readonly image: string;
  /** The lifetime of a sandbox, counted from its claim; null: no limit, the default. */
  readonly timeoutMs?: number | null | undefined;
}

/** Changes of a template. Omitted fields stay as they are; null returns a field to its default. */
export type UpdateTemplateOptions = SpecChanges &
  MutationOptions & {
    /** The new name. Pools that use the template keep using it. */
    readonly name?: string | undefined;
    /** The new lifetime of sandboxes that are claimed later; null: no limit. */
    readonly timeoutMs?: number | null | undefined;
    /** The template's etag. If it is not current, the update fails with `ConflictError`. */
    readonly etag?: string | undefined;
  };

/** The options of a deletion. */
export interface DeleteOptions extends MutationOptions {
  /** The resource's etag. If it is not current, the deletion fails with `ConflictError`. */
  readonly etag?: string | undefined;
}

/** The options of the deletion of a pool. */
export interface DeletePoolOptions extends DeleteOptions {
  /** Whether to delete the pool while sandboxes of it are active, and to terminate these sandboxes. Default: false. */
  readonly force?: boolean | undefined;
}

/** The options of the deletion of a secret. */
export interface DeleteSecretOptions extends MutationOptions {
  /** Whether to delete the secret while pools or templates reference it. Default: false. */
  readonly force?: boolean | undefined;
}

/** The options of every new sandbox. */
export interface SandboxOptions extends MutationOptions {
  /** The name, unique among sandboxes that are not terminated: lower-case letters, digits and hyphens, at most 63. */
  readonly name?: string | undefined;
  /** Labels: at most 64, keys of 1 to 63 characters, values of at most 1,024. Default: none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** The lifetime, counted from the claim; null: no limit. Default: that of the pool or template, otherwise no limit. */
  readonly timeoutMs?: number | null | undefined;
  /**
   * Environment variables of this sandbox. They override those of the specification; a warm container can still be
   * assigned. With an image, its entrypoint receives them as well. Default: none.
   */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/**
 * The action when no warm container is available: start a container, wait in the queue in FIFO order, or fail with
 * `PoolEmptyError`.
 */
export type WhenEmpty = "start_cold" | "wait" | "fail";

/** The action when no warm container is available, and the time limit of a wait. */
export type ClaimOptions =
  | { readonly whenEmpty?: Exclude<WhenEmpty, "wait"> | undefined; readonly queueTimeoutMs?: undefined }
  | {
      readonly whenEmpty: "wait";
      /** The time limit in the queue, 1 to 3,600,000; then the call fails with `ResourceTimeoutError`. Default: 30,000. */
      readonly queueTimeoutMs?: number | undefined;
    };

/** Excludes the options of a claim in types. */
interface NoClaim {
  readonly whenEmpty?: undefined;
  readonly queueTimeoutMs?: undefined;
}

/** Excludes the specification, apart from the environment, in types. */
type NoOwnSpec = Omit<NoSpec, "env">;

/** A sandbox from a pool, by the identifier or name of the pool. */
export type PoolSandboxOptions = SandboxOptions &
  ClaimOptions &
  NoOwnSpec & { readonly poolId: string; readonly templateName?: undefined; readonly image?: undefined };

/** A sandbox of a template: from any pool that uses it, otherwise with a cold start. */
export type TemplateSandboxOptions = SandboxOptions &
  ClaimOptions &
  NoOwnSpec & { readonly templateName: string; readonly poolId?: undefined; readonly image?: undefined };

/** A sandbox that belongs to no pool. */
export type ImageSandboxOptions = SandboxOptions &
  NoClaim &
  Omit<SpecOptions, "env"> & {
    readonly image: string;
    readonly poolId?: undefined;
    readonly templateName?: undefined;
  };

/** A sandbox to create: exactly one of `poolId`, `templateName` and `image` defines it. */
export type CreateOptions = PoolSandboxOptions | TemplateSandboxOptions | ImageSandboxOptions;

/** The sandboxes of a batch: they are identical, so they have no names. */
export type BatchOptions = CreateOptions & { readonly name?: undefined };

/** The options of a wait for a pool. */
export interface WaitForPoolOptions {
  /** The number of warm containers to wait for. Default: the number that the pool aims at. */
  readonly warm?: number | undefined;
  /** The time limit; null: no limit. Default: 300,000. */
  readonly timeoutMs?: number | null | undefined;
  /** Called with the current pool and after each change, including the progress of an image pull. */
  readonly onProgress?: ((pool: Pool) => void) | undefined;
  /** Ends the wait when it is aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Changes of a sandbox. Omitted fields stay as they are; null returns a field to its default. */
export interface UpdateSandboxOptions extends MutationOptions {
  /** The new name; null removes the name. */
  readonly name?: string | null | undefined;
  /** The new labels, which replace the previous ones; null removes all. */
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
  /** The new lifetime, counted from the claim; null: no limit. */
  readonly timeoutMs?: number | null | undefined;
  /** The sandbox's etag. If it is not current, the update fails with `ConflictError`. */
  readonly etag?: string | undefined;
}

/** The filters of a list of sandboxes. A sandbox is listed when it matches all of them. */
export interface ListSandboxesOptions extends ListOptions {
  /** Only sandboxes of this pool, by identifier or name. */
  readonly poolId?: string | undefined;
  /** Only sandboxes of this template, by name or identifier, directly or through a pool. */
  readonly templateName?: string | undefined;
  /** Only sandboxes in these states. Default: all states except `terminated`. */
  readonly states?: readonly Exclude<SandboxState, "unknown">[] | undefined;
  /** Only sandboxes whose metadata contains all these entries. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}
