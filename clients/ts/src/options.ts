/** What calls take. */
import type { Transport } from "@connectrpc/connect";
import type { SandboxState } from "./types.js";

/** How to reach the server. */
export interface SandboxClientOptions {
  /**
   * `host:port`, `http://host:port`, or `https://host:port` for TLS. Without a port it is 50051, with TLS 443. Default:
   * SANDPOOL_ADDRESS of the environment, else 127.0.0.1:50051.
   */
  readonly address?: string | undefined;
  /** Sent as a bearer token. Default: SANDPOOL_API_KEY of the environment, else none. */
  readonly apiKey?: string | undefined;
  /**
   * How long a call may take in milliseconds, repetitions included. Default 60,000. The creation of a sandbox, which
   * may have to start a container, gets at least 120,000; commands go by their own `timeout`; watches have no limit.
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
  /** A command that runs in each container beside the sandbox's commands. Default none. */
  readonly entrypoint?: readonly string[] | undefined;
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
  /** Create the pool paused. Default false. */
  readonly paused?: boolean | undefined;
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

/** What an update changes; what is left out stays, and `null` goes back to the default. */
export type UpdatePoolOptions = PoolSize & {
  /** The new name; null takes the name away. */
  readonly newName?: string | null | undefined;
  /** The new image. Refused on a pool that follows a template, like the rest of the specification. */
  readonly image?: string | undefined;
  readonly cpus?: number | null | undefined;
  readonly memoryMb?: number | null | undefined;
  readonly ephemeralDiskMb?: number | null | undefined;
  readonly secretNames?: readonly string[] | null | undefined;
  readonly entrypoint?: readonly string[] | null | undefined;
  /** The new limit on containers; null lifts it. */
  readonly maxContainers?: number | null | undefined;
  /** The new lifetime of sandboxes claimed from now on, in seconds; null follows the template again. */
  readonly timeoutSecs?: number | null | undefined;
  /** Whether the pool is paused. */
  readonly paused?: boolean | undefined;
  /** Refuse the change with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
};

/** A template to create. */
export interface CreateTemplateOptions extends ContainerSpec {
  /** The container image, pulled when the engine does not have it. */
  readonly image: string;
  /** The lifetime of a sandbox in seconds from its claim, 0 for none. Default 0. */
  readonly timeoutSecs?: number | undefined;
}

/** What an update changes; what is left out stays, and `null` goes back to the default. */
export interface UpdateTemplateOptions {
  /** The new name; pools follow it. */
  readonly newName?: string | undefined;
  readonly image?: string | undefined;
  readonly cpus?: number | null | undefined;
  readonly memoryMb?: number | null | undefined;
  readonly ephemeralDiskMb?: number | null | undefined;
  readonly timeoutSecs?: number | null | undefined;
  readonly secretNames?: readonly string[] | null | undefined;
  readonly entrypoint?: readonly string[] | null | undefined;
  /** Refuse the change with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
}

/** What a deletion may depend on. */
export interface DeleteOptions extends MutationOptions {
  /** Refuse the deletion with `ResourceChangedError` unless this is the present etag. */
  readonly etag?: string | undefined;
}

/** What any new sandbox may be given. */
export interface SandboxOptions {
  /** Unique among sandboxes that have not ended: lower-case letters, digits and hyphens, at most 63. Default none. */
  readonly name?: string | undefined;
  /** Labels: at most 64, keys of 1 to 63 characters, values of at most 1,024. Default none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Lifetime in seconds from the claim, 0 for none. Default the pool's or the template's, else 0. */
  readonly timeoutSecs?: number | undefined;
}

/** A sandbox from a pool, by the pool's identifier or name. */
export type PoolSandboxOptions = SandboxOptions &
  NoContainerSpec & { readonly poolId: string; readonly templateName?: undefined; readonly image?: undefined };

/** A sandbox of a template: from any pool that follows it, cold where none has a ready one. */
export type TemplateSandboxOptions = SandboxOptions &
  NoContainerSpec & { readonly templateName: string; readonly poolId?: undefined; readonly image?: undefined };

/** A sandbox that belongs to no pool. */
export type ImageSandboxOptions = SandboxOptions &
  ContainerSpec & { readonly image: string; readonly poolId?: undefined; readonly templateName?: undefined };

/** A sandbox to create: exactly one of `poolId`, `templateName` and `image` says where it comes from. */
export type CreateOptions = PoolSandboxOptions | TemplateSandboxOptions | ImageSandboxOptions;

/** A sandbox to create, in the template style. */
export interface CreateSandboxOptions extends SandboxOptions {
  /** How long to wait for the sandbox in seconds; the same as `timeoutMs` of the call. */
  readonly timeout?: number | undefined;
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

/** How to run a command. */
export interface RunOptions {
  /** How long the command may run in seconds, 0.001 to 86,400; then it is killed. Default 60. */
  readonly timeout?: number | undefined;
  /** Environment variables over those of the image. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory, an absolute path that exists. Default the image's. */
  readonly cwd?: string | undefined;
  /** The user to run as: a name that the image knows, or a number with an optional group, `1000:1000`. */
  readonly user?: string | undefined;
  /** Kills the command when aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}
