/** What calls take. */
import type { Transport } from "@connectrpc/connect";
import type { Pool, PullPolicy, SandboxState } from "./types.js";

/** How to reach the server. */
export interface SandboxClientOptions {
  /**
   * `host:port`, `http://host:port`, or `https://host:port` for TLS. Without a port it is 50051, with TLS 443. Default:
   * SANDPOOL_ADDRESS of the environment, else 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /** The same as `address`. */
  readonly apiEndpoint?: string | undefined;
  /** Sent as a bearer token. Default: SANDPOOL_API_KEY of the environment, else none. */
  readonly apiKey?: string | undefined;
  /**
   * How long a call may take in milliseconds, repetitions included. Default 60,000. The creation of a sandbox, which
   * may have to start a container, gets at least 120,000, and the time that it may wait in line on top; commands go by
   * their own `timeout`; watches have no limit.
   */
  readonly timeoutMs?: number | undefined;
  /**
   * How many times a call is repeated when the server does not answer; 0 for never. Default 4. Only what is safe is
   * repeated: a command never once it may have been sent.
   */
  readonly maxRetries?: number | undefined;
  /** Another transport in place of gRPC over HTTP/2 to `address`. Whoever made it closes it. */
  readonly transport?: Transport | undefined;
}

/** What bounds one call. */
export interface CallOptions {
  /** Ends the call when aborted; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** How long this call may take in milliseconds, in place of the client's `timeoutMs`. */
  readonly timeoutMs?: number | undefined;
}

/** What bounds one call that changes something. */
export interface MutationOptions extends CallOptions {
  /**
   * Names the request: a second one of the same name within a day gets the first one's answer and changes nothing.
   * Default: a new name for each call, kept when the call is repeated.
   */
  readonly requestId?: string | undefined;
}

/** What each container is, beside its image. */
export interface ContainerSpec {
  /** CPUs, 0.01 to 256. Default 1.0. */
  readonly cpus?: number | undefined;
  /** Memory in MiB, without swap, 16 to 4,194,304. Default 512. */
  readonly memoryMb?: number | undefined;
  /** Disk in MiB, 1 to 16,777,216. Default 1024. */
  readonly ephemeralDiskMb?: number | undefined;
  /** Names of secrets to give to each sandbox. Each must exist. Default none. */
  readonly secretNames?: readonly string[] | undefined;
  /**
   * A command that runs in each container beside the sandbox's commands. Default none. With secrets it starts when a
   * sandbox is claimed, else when its container does. When it ends, so does the sandbox.
   */
  readonly entrypoint?: readonly string[] | undefined;
  /** Environment of the sandbox's processes and of the entrypoint, over the image's. Default none. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /**
   * A program and its arguments that must succeed in a container before it counts as ready. Default none: a container
   * is ready when it runs commands.
   */
  readonly readinessCommand?: readonly string[] | undefined;
  /** Seconds between two tries of `readinessCommand`, 0.01 to 300. Default 0.5. */
  readonly readinessIntervalSecs?: number | undefined;
  /** Seconds that one try of `readinessCommand` may take, 0.01 to 300. Default 5. */
  readonly readinessTimeoutSecs?: number | undefined;
  /** How often `readinessCommand` may fail before the container is given up, 1 to 1,000. Default 20. */
  readonly readinessRetries?: number | undefined;
}

/** Says in types that the specification comes from elsewhere. */
export type NoContainerSpec = { readonly [K in keyof ContainerSpec]?: undefined };

/** How many containers a pool keeps ready and unclaimed, 0 to 1,000, under one of its names. Default 0. */
export type PoolSize =
  | { readonly warmContainers?: number | undefined; readonly size?: undefined; readonly replicas?: undefined }
  | { readonly size: number; readonly warmContainers?: undefined; readonly replicas?: undefined }
  | { readonly replicas: number; readonly warmContainers?: undefined; readonly size?: undefined };

interface PoolLimits {
  /** The most containers that may exist at once, in whatever state, 1 to 100,000. Default no limit. */
  readonly maxContainers?: number | undefined;
  /** The lifetime of a sandbox in seconds from its claim, 0 for none. Default 0, or the template's. */
  readonly timeoutSecs?: number | undefined;
  /** When the image is pulled: when the engine lacks it (the default), before each container, or never. */
  readonly pullPolicy?: Exclude<PullPolicy, "unknown"> | undefined;
  /**
   * Seconds between two looks at whether the image's tag names another image by now, whereupon the ready containers are
   * replaced, 0 (never) to 31,536,000. Default 0.
   */
  readonly imageCheckSecs?: number | undefined;
  /** Seconds after which a ready container is replaced, 0 (never) to 31,536,000. Default 0. */
  readonly maxAgeSecs?: number | undefined;
  /** Create the pool paused. Default false. */
  readonly paused?: boolean | undefined;
  /** Create the pool drained, which is paused too. Default false. */
  readonly drain?: boolean | undefined;
}

/** A pool with a specification of its own. */
export type ImagePoolOptions = PoolLimits &
  ContainerSpec &
  PoolSize & {
    /** The container image, pulled when the engine does not have it. */
    readonly image: string;
    readonly templateName?: undefined;
  };

/** A pool that follows a template. */
export type TemplatePoolOptions = PoolLimits &
  NoContainerSpec &
  PoolSize & {
    /** The template, by name or identifier. */
    readonly templateName: string;
    readonly image?: undefined;
  };

/** A pool to create: either `image` or `templateName` says what its containers are. */
export type CreatePoolOptions = ImagePoolOptions | TemplatePoolOptions;

/** A name for a new pool, where it is not given beside the options. */
export interface Named {
  /** Unique among the living pools: lower-case letters, digits and hyphens, at most 63. Default none. */
  readonly name?: string | undefined;
}

/** What an update changes of the containers; what is left out stays, and `null` goes back to the default. */
export type ContainerChanges = { readonly [K in keyof ContainerSpec]?: ContainerSpec[K] | null };

/** What an update changes; what is left out stays, and `null` goes back to the default. */
export type UpdatePoolOptions = PoolSize &
  ContainerChanges & {
  /** The new name; null takes the name away. */
  readonly newName?: string | null | undefined;
  /** The new image. Refused on a pool that follows a template, like the rest of the specification. */
  readonly image?: string | undefined;
  /** The new limit on containers; null lifts it. */
  readonly maxContainers?: number | null | undefined;
  /** The new lifetime of sandboxes claimed from now on, in seconds; null follows the template again. */
  readonly timeoutSecs?: number | null | undefined;
  /** When the image is pulled from now on. */
  readonly pullPolicy?: Exclude<PullPolicy, "unknown"> | null | undefined;
  /** Seconds between two looks at whether the image's tag names another image by now; 0 or null for never. */
  readonly imageCheckSecs?: number | null | undefined;
  /** Seconds after which a ready container is replaced; 0 or null for never. */
  readonly maxAgeSecs?: number | null | undefined;
  /** Whether the pool is paused. */
  readonly paused?: boolean | undefined;
  /** Whether the pool is drained: paused, and its ready containers removed. */
  readonly drain?: boolean | undefined;
  /** Refuse the change with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
};

/** A template to create. */
export interface CreateTemplateOptions extends ContainerSpec {
  /** The container image, pulled when the engine does not have it. */
  readonly image: string;
  /** The same as `cpus`, as a number or such as `"500m"`. */
  readonly cpu?: string | number | undefined;
  /** The same as `memoryMb` in bytes, such as `"512Mi"`. */
  readonly memory?: string | undefined;
  /** The same as `ephemeralDiskMb` in bytes, such as `"2Gi"`. */
  readonly storage?: string | undefined;
  /** The lifetime of a sandbox in seconds from its claim, 0 for none. Default 0. */
  readonly timeoutSecs?: number | undefined;
}

/** What an update changes; what is left out stays, and `null` goes back to the default. */
export interface UpdateTemplateOptions extends ContainerChanges {
  /** The new name; pools follow it. */
  readonly newName?: string | undefined;
  readonly image?: string | undefined;
  readonly timeoutSecs?: number | null | undefined;
  /** Refuse the change with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
}

/** What a deletion may depend on. */
export interface DeleteOptions extends MutationOptions {
  /** Refuse the deletion with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
}

/** How to delete a pool. */
export interface DeletePoolOptions extends DeleteOptions {
  /** Delete the pool even while sandboxes of it are in use, and end those. Default false. */
  readonly force?: boolean | undefined;
}

/** How to delete a secret. */
export interface DeleteSecretOptions extends MutationOptions {
  /**
   * Delete the secret even while pools or templates name it: they cannot be filled until there is one of that name
   * again, or they name it no more. Default false.
   */
  readonly force?: boolean | undefined;
}

/** What any new sandbox may be given. */
export interface SandboxOptions {
  /** Unique among sandboxes that have not ended: lower-case letters, digits and hyphens, at most 63. Default none. */
  readonly name?: string | undefined;
  /** Labels: at most 64, keys of 1 to 63 characters, values of at most 1,024. Default none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Lifetime in seconds from the claim, 0 for none. Default the pool's or the template's, else 0. */
  readonly timeoutSecs?: number | undefined;
  /**
   * Environment of this sandbox's processes, over the pool's, the template's or the image's; a ready container is taken
   * all the same. Default none.
   */
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/**
 * What a creation does when no container is ready: start one, wait in line, first come, first served, or fail at once
 * with `PoolEmptyError`.
 */
export type WhenEmpty = "start_cold" | "wait" | "fail";

/** What to do when no container is ready, and for how long to wait. */
export type DrawOptions =
  | { readonly whenEmpty?: Exclude<WhenEmpty, "wait"> | undefined; readonly waitSecs?: undefined }
  | {
      readonly whenEmpty: "wait";
      /** How long to wait in line in seconds, 0.001 to 3,600; then it is a `ResourceTimeoutError`. Default 30. */
      readonly waitSecs?: number | undefined;
    };

/** Says in types that there is nothing to draw from. */
interface NoDrawOptions {
  readonly whenEmpty?: undefined;
  readonly waitSecs?: undefined;
}

/** Says in types that the specification, apart from the environment, comes from elsewhere. */
type NoOwnContainer = Omit<NoContainerSpec, "env">;

/** A sandbox from a pool, by the pool's identifier or name. */
export type PoolSandboxOptions = SandboxOptions &
  DrawOptions &
  NoOwnContainer & { readonly poolId: string; readonly templateName?: undefined; readonly image?: undefined };

/** A sandbox of a template: from any pool that follows it, cold where none has a ready one. */
export type TemplateSandboxOptions = SandboxOptions &
  DrawOptions &
  NoOwnContainer & { readonly templateName: string; readonly poolId?: undefined; readonly image?: undefined };

/** A sandbox that belongs to no pool. */
export type ImageSandboxOptions = SandboxOptions &
  NoDrawOptions &
  ContainerSpec & { readonly image: string; readonly poolId?: undefined; readonly templateName?: undefined };

/** A sandbox to create: exactly one of `poolId`, `templateName` and `image` says where it comes from. */
export type CreateOptions = PoolSandboxOptions | TemplateSandboxOptions | ImageSandboxOptions;

/** What each sandbox of a batch is; they are alike, so that none has a name. */
export type BatchOptions = CreateOptions & { readonly name?: undefined };

/** A sandbox to create, in the template style. */
export type CreateSandboxOptions = SandboxOptions &
  DrawOptions & {
    /** How long to wait for the sandbox in seconds; the same as `timeoutMs` of the call. */
    readonly timeout?: number | undefined;
  };

/** How to wait for a sandbox. */
export interface WaitOptions {
  /** How long to wait in seconds. Default 120. */
  readonly timeout?: number | undefined;
  /** Taken and not needed: the server tells of the change at once. */
  readonly pollInterval?: number | undefined;
  /** Ends the wait when aborted; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** How to wait for a pool. */
export interface WaitForPoolOptions {
  /** How many ready containers are enough. Default as many as the pool wants. */
  readonly warm?: number | undefined;
  /** How long to wait in seconds. Default 300. */
  readonly timeout?: number | undefined;
  /** Called with the pool as it is and after each change, the pull of its image included. */
  readonly onProgress?: ((pool: Pool) => void) | undefined;
  /** Ends the wait when aborted; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What an update changes; what is left out stays, and `null` goes back to the default. */
export interface UpdateSandboxOptions {
  /** The new name; null takes the name away. */
  readonly newName?: string | null | undefined;
  /** The new labels in place of the old. */
  readonly metadata?: Readonly<Record<string, string>> | null | undefined;
  /** The new lifetime in seconds, counted from the claim; 0 or null for none. */
  readonly timeoutSecs?: number | null | undefined;
  /** Refuse the change with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
}

/** Which sandboxes to list: those that meet all conditions. */
export interface ListSandboxesOptions {
  /** Only sandboxes of this pool, by identifier or name. */
  readonly poolId?: string | undefined;
  /** Only sandboxes of this template, by name or identifier, directly or through a pool. */
  readonly templateName?: string | undefined;
  /** Only sandboxes in these states. Default: all but `terminated`. */
  readonly states?: readonly Exclude<SandboxState, "unknown">[] | undefined;
  /** Only sandboxes that carry all of these labels. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}
