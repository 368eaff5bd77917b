/** What calls take. */
import type { Transport } from "@connectrpc/connect";
import type { PtyListeners } from "./pty.js";
import type { Pool, PullPolicy, RestartPolicy, SandboxState, TerminalSize } from "./types.js";

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

/** Where the output of a command goes while it comes. */
export interface OutputListeners {
  /** Called with each piece of standard output; with a terminal, with all that it shows. */
  readonly onStdout?: ((text: string) => void) | undefined;
  /** Called with each piece of standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

/** Where the output of a command goes while it comes, and what else only a command with a stream of its own has. */
export interface StreamOptions extends OutputListeners {
  /** For how many seconds the command may run with no client attached; then it is killed. Default 300. */
  readonly idleTimeout?: number | undefined;
  /** Whether it is killed as soon as no client is attached any more. Default false. */
  readonly killOnDisconnect?: boolean | undefined;
  /** For how many seconds its output is kept after its end. Default 600. */
  readonly ttlSeconds?: number | undefined;
  /** Whether it takes input; see `CommandHandle.sendInput`. Default with `wait: false`; a terminal always does. */
  readonly stdin?: boolean | undefined;
  /** Run it on a terminal: of 24 lines and 80 columns, or of this size. Default false. */
  readonly pty?: boolean | TerminalSize | undefined;
  /** The command's identifier; choose one to find it again. Default: a random one. */
  readonly commandId?: string | undefined;
}

/** How to start a command without waiting for its end. */
export type StartOptions = RunOptions & StreamOptions & { readonly wait: false };

/** How a command that is given as one string is read. */
export interface CommandOptions {
  /** The arguments: the string is the program then, and no shell is needed. */
  readonly args?: readonly string[] | undefined;
  /** Another shell for the line, such as `/bin/zsh`. Default /bin/bash, or /bin/sh. */
  readonly shell?: string | undefined;
}

/** How to start a process. */
export interface ProcessOptions extends CommandOptions {
  /** The identifier; the same one again starts nothing. Default: a random one. */
  readonly processId?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory, an absolute path that exists. Default the image's. */
  readonly cwd?: string | undefined;
  /** The same as `cwd`. */
  readonly workingDir?: string | undefined;
  readonly user?: string | undefined;
  /** Whether its standard input can be written to. Default false: it is empty. */
  readonly stdin?: boolean | undefined;
  /** The same as `stdin`: `pipe` is true, `closed` false. */
  readonly stdinMode?: "closed" | "pipe" | undefined;
  readonly terminal?: TerminalSize | undefined;
  /** Limits in seconds. */
  readonly timeout?: number | undefined;
  readonly idleTimeout?: number | undefined;
  readonly ttlSeconds?: number | undefined;
  readonly killOnDisconnect?: boolean | undefined;
  /** How many of the last bytes of each stream are kept. Default 1 MiB. */
  readonly outputBufferBytes?: number | undefined;
  /**
   * What happens when it prints more than is kept: it waits for clients that are attached, else the oldest bytes go
   * (`wait_attached`, the default); the oldest bytes go (`drop_oldest`); it waits until somebody has read them (`wait`).
   */
  readonly outputOverflow?: "wait_attached" | "drop_oldest" | "wait" | undefined;
  /** Makes it a service of this name. */
  readonly name?: string | undefined;
  /** When a service is started again. Default `never`. */
  readonly restart?: RestartPolicy | undefined;
  /** How it is found out whether a service is well. */
  readonly healthCheck?: HealthCheck | undefined;
}

/** How to start a program on a terminal. */
export interface PtyOptions extends PtyListeners, Partial<TerminalSize> {
  /** A line for the shell, or a program with its arguments. Default: an interactive shell. */
  readonly command?: string | readonly string[] | undefined;
  /** With a `command` that is one string: that is the program, and these are its arguments. */
  readonly args?: readonly string[] | undefined;
  /** Environment variables over those of the sandbox; TERM is xterm-256color by default. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** The same as `cwd`. */
  readonly workingDir?: string | undefined;
  readonly user?: string | undefined;
  /** Limits in seconds; none by default. */
  readonly timeout?: number | undefined;
  readonly idleTimeout?: number | undefined;
}

/** From where on a process's output is wanted, in bytes; -1: from now on. Default all that is kept. */
export interface OutputOffsets {
  readonly stdoutOffset?: number | undefined;
  readonly stderrOffset?: number | undefined;
}

/** A health check by HTTP (a `path`) or by connecting. */
export interface HealthCheck {
  readonly port: number;
  /** The path to GET; without one a connection is enough. */
  readonly path?: string | undefined;
  readonly intervalSecs?: number | undefined;
  readonly timeoutSecs?: number | undefined;
  readonly retries?: number | undefined;
}

/** How to write a file. */
export interface WriteOptions {
  /** The permission bits, such as 0o755. Default those of the file that is replaced, else 0o644. */
  readonly mode?: number | undefined;
  /** The owner, a name or number with an optional group. */
  readonly owner?: string | undefined;
  /** What to do with a file that is there. Default `replace`. */
  readonly writeMode?: "replace" | "create" | "append" | undefined;
  /** Called with how many bytes have gone, of how many; undefined where the content comes in parts. */
  readonly onProgress?: ((bytes: number, total: number | undefined) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to copy a file between this machine and a sandbox. */
export interface TransferOptions {
  /** Called with how many bytes have gone or come, of how many. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to copy a file of this machine into a sandbox. */
export interface UploadOptions extends TransferOptions {
  /** The permission bits, such as 0o755. Default those of the file that is replaced, else 0o644. */
  readonly mode?: number | undefined;
  /** The owner, a name or number with an optional group. */
  readonly owner?: string | undefined;
}

/** Which part of a file to read. */
export interface RangeOptions {
  /** Where to begin, in bytes. Default 0. */
  readonly offset?: number | undefined;
  /** How many bytes. Default all. */
  readonly length?: number | undefined;
}

/** How to read a file. */
export interface ReadOptions extends RangeOptions {
  /** Called with how many bytes have come, of how many the file has. */
  readonly onProgress?: ((bytes: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Which log lines to read. */
export interface LogOptions {
  readonly sources?: readonly string[] | undefined;
  /** Only the last so many of those that are there. */
  readonly tail?: number | undefined;
  readonly since?: Date | undefined;
  /** Only entries after this sequence. */
  readonly afterSequence?: number | undefined;
  /** Go on with what is printed from now on. Default false. */
  readonly follow?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How to run a command. */
export interface RunOptions extends CommandOptions {
  /** How long the command may run in seconds, 0.001 to 86,400; then it is killed. Default 60. */
  readonly timeout?: number | undefined;
  /** Environment variables over those of the image. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The working directory, an absolute path that exists. Default the image's. */
  readonly cwd?: string | undefined;
  /** The same as `cwd`. */
  readonly workingDir?: string | undefined;
  /** The user to run as: a name that the image knows, or a number with an optional group, `1000:1000`. */
  readonly user?: string | undefined;
  /** Kills the command when aborted; the call then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}
