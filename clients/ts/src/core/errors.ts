/**
 * What a call can fail with.
 *
 *     SandpoolError
 *     ├── SandboxConnectionError           server, engine or sandbox does not answer         unavailable
 *     ├── ClientClosedError                the client was closed
 *     ├── SandboxAuthenticationError       the API key is missing or wrong                   unauthenticated
 *     ├── PermissionDeniedError            the API key may not do this                       permission_denied
 *     ├── ValidationError                  a value of the request is wrong                   invalid_argument
 *     ├── ResourceNotFoundError            there is no such resource                         not_found
 *     │   ├── PoolNotFoundError
 *     │   ├── TemplateNotFoundError
 *     │   ├── SandboxNotFoundError
 *     │   ├── SecretNotFoundError
 *     │   ├── ProcessNotFoundError
 *     │   └── PathNotFoundError            there is nothing at this path of the sandbox
 *     ├── ResourceAlreadyExistsError       the name is taken                                 already_exists
 *     ├── ResourceStateError               the resource's state forbids it                   failed_precondition
 *     │   ├── ResourceInUseError           sandboxes use the pool, or pools the template or the secret
 *     │   │   ├── PoolInUseError
 *     │   │   ├── TemplateInUseError
 *     │   │   └── SecretInUseError
 *     │   ├── PoolPausedError              the pool is paused or drained
 *     │   ├── SecretUnavailableError       a secret that is named was deleted, or cannot be read
 *     │   ├── SandboxNotReadyError         the sandbox is not running
 *     │   ├── TunnelConnectionRefusedError nothing listens on the port of the sandbox
 *     │   ├── TunnelPortNotAllowedError    the server has no web port
 *     │   └── ResourceCreationError        the container could not be started
 *     ├── ResourceChangedError             somebody else changed it since its etag was read  aborted
 *     ├── QuotaExceededError               a limit is reached                                resource_exhausted
 *     ├── PoolEmptyError                   no container is ready, and the call was to fail   resource_exhausted
 *     ├── ResourceTimeoutError             not done in time                                  deadline_exceeded
 *     └── RemoteAPIError                   anything else: a fault of the server's            internal, unknown, …
 *
 * A call that was given an `AbortSignal` rejects with the signal's reason when that is aborted, as `fetch` does.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "./details.js";
import { milliseconds } from "./time.js";

/** The status of a failed call, by the names that gRPC has for them. */
export type ErrorCode =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/** One wrong value. */
export interface FieldViolation {
  /** The field's path in the request, such as `memory_mb`. */
  readonly field: string;
  /** What would be right. */
  readonly description: string;
}

/** What an error knows beside its message; all of it optional. */
export interface ErrorDetails {
  readonly code?: ErrorCode | undefined;
  readonly reason?: string | undefined;
  readonly resourceType?: string | undefined;
  readonly resourceName?: string | undefined;
  readonly fieldViolations?: readonly FieldViolation[] | undefined;
  readonly quotaSubject?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly cause?: unknown;
}

/** Base of all errors of this package. The message says what to do. */
export class SandpoolError extends Error {
  /** The status of the call. */
  readonly code: ErrorCode;
  /** A stable, machine-readable reason such as `POOL_NOT_FOUND`, or null where there is none. */
  readonly reason: string | null;
  /** `pool`, `template`, `sandbox`, `secret`, `process`, `file` or `port`, or null. */
  readonly resourceType: string | null;
  /** The identifier or name of the resource, or null. */
  readonly resourceName: string | null;
  /** The wrong values of the request, for a {@link ValidationError}. */
  readonly fieldViolations: readonly FieldViolation[];
  /** Whose limit is reached, for a {@link QuotaExceededError}, or null. */
  readonly quotaSubject: string | null;
  /** How long to wait before another attempt in milliseconds, or null where the server gave no hint. */
  readonly retryAfterMs: number | null;
  /** Further values for programs. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? "unknown";
    this.reason = details.reason ?? null;
    this.resourceType = details.resourceType ?? null;
    this.resourceName = details.resourceName ?? null;
    this.fieldViolations = details.fieldViolations ?? [];
    this.quotaSubject = details.quotaSubject ?? null;
    this.retryAfterMs = details.retryAfterMs ?? null;
    this.metadata = details.metadata ?? {};
  }
}

/** The server, its container engine or the sandbox does not answer now. */
export class SandboxConnectionError extends SandpoolError {}
/** The client was closed before the call or during it. */
export class ClientClosedError extends SandpoolError {}
/** The API key is missing or wrong. */
export class SandboxAuthenticationError extends SandpoolError {}
/** The API key may not do this. */
export class PermissionDeniedError extends SandpoolError {}
/** One or more values of the request are wrong; `fieldViolations` says which and why. */
export class ValidationError extends SandpoolError {
  /** The path of the first wrong field, or empty. */
  get field(): string {
    return this.fieldViolations[0]?.field ?? "";
  }
}
/** There is no such resource, or it ended so long ago that it is forgotten. */
export class ResourceNotFoundError extends SandpoolError {}
/** There is no such pool. */
export class PoolNotFoundError extends ResourceNotFoundError {}
/** There is no such template. */
export class TemplateNotFoundError extends ResourceNotFoundError {}
/** There is no such sandbox, or it ended so long ago that it is forgotten. */
export class SandboxNotFoundError extends ResourceNotFoundError {}
/** There is no such secret. */
export class SecretNotFoundError extends ResourceNotFoundError {}
/** There is no such process in the sandbox, or it ended so long ago that it is forgotten. */
export class ProcessNotFoundError extends ResourceNotFoundError {}
/** There is nothing at this path in the sandbox. */
export class PathNotFoundError extends ResourceNotFoundError {}
/** The name is taken by a living resource. */
export class ResourceAlreadyExistsError extends SandpoolError {}
/** The resource's present state forbids the call; repeating it alone does not help. */
export class ResourceStateError extends SandpoolError {}
/** The resource cannot be deleted while something uses it, which the message names. */
export class ResourceInUseError extends ResourceStateError {}
/** Sandboxes of the pool are in use, which the message names; delete them first, or the pool with `force`. */
export class PoolInUseError extends ResourceInUseError {
  /** The pool. */
  get poolId(): string {
    return this.resourceName ?? "";
  }
}
/** Pools follow the template, which the message names; delete them first. */
export class TemplateInUseError extends ResourceInUseError {}
/** Pools or templates name the secret, which the message names; change them first, or delete it with `force`. */
export class SecretInUseError extends ResourceInUseError {}
/** The pool is paused or drained, so that nothing is taken from it; `reason` says which. `resumePool` ends it. */
export class PoolPausedError extends ResourceStateError {}
/** A secret that the pool or the template names was deleted, or encrypted with a key that the server lacks. */
export class SecretUnavailableError extends ResourceStateError {}
/** The sandbox is not running: it is still starting, or it has ended. */
export class SandboxNotReadyError extends ResourceStateError {}
/** Nothing listens on the port inside the sandbox; start what is to listen first. */
export class TunnelConnectionRefusedError extends ResourceStateError {
  #port = 0;

  /** The port inside the sandbox, or 0 where it is not known. */
  get port(): number {
    return this.#port || portOf(this);
  }

  /** @internal Says which port it is about. */
  about(port: number): this {
    this.#port = port;
    return this;
  }
}
/** The port cannot be served by HTTP: the server has no web port. */
export class TunnelPortNotAllowedError extends ResourceStateError {
  /** The port inside the sandbox, or 0 where it is not known. */
  get port(): number {
    return portOf(this);
  }
}
/** The container could not be started; `reason` says why, `IMAGE_NOT_FOUND` for instance. */
export class ResourceCreationError extends ResourceStateError {}
/** Somebody else changed the resource since its etag was read: read it again and repeat the change. */
export class ResourceChangedError extends SandpoolError {}
/** A limit is reached, a pool's `maxContainers` for instance; `retryAfterMs` says when to try again. */
export class QuotaExceededError extends SandpoolError {}
/**
 * No container of the pool is ready, and the call said `whenEmpty: "fail"`; `retryAfterMs` says when to try again. It is
 * no quota that is reached: the pool may have room, and the same call may start a container or wait for one.
 */
export class PoolEmptyError extends SandpoolError {}
/** It was not done within the call's time, `waitSecs` or the server's own limit. */
export class ResourceTimeoutError extends SandpoolError {}
/** A fault of the server's, or an answer that this client does not understand. */
export class RemoteAPIError extends SandpoolError {}

function portOf(error: SandpoolError): number {
  return error.resourceType === "port" ? Number(error.resourceName) : 0;
}

/** An error about one value, found before anything is sent. */
export function invalid(field: string, description: string): ValidationError {
  return new ValidationError(`${field}: ${description}`, {
    code: "invalid_argument",
    reason: "INVALID_FIELD",
    fieldViolations: [{ field, description }],
  });
}

/** Our own reason, where no server said one. */
const NO_ANSWER = "NO_ANSWER";

const CODES: Readonly<Record<Code, ErrorCode>> = {
  [Code.Canceled]: "canceled",
  [Code.Unknown]: "unknown",
  [Code.InvalidArgument]: "invalid_argument",
  [Code.DeadlineExceeded]: "deadline_exceeded",
  [Code.NotFound]: "not_found",
  [Code.AlreadyExists]: "already_exists",
  [Code.PermissionDenied]: "permission_denied",
  [Code.ResourceExhausted]: "resource_exhausted",
  [Code.FailedPrecondition]: "failed_precondition",
  [Code.Aborted]: "aborted",
  [Code.OutOfRange]: "out_of_range",
  [Code.Unimplemented]: "unimplemented",
  [Code.Internal]: "internal",
  [Code.Unavailable]: "unavailable",
  [Code.DataLoss]: "data_loss",
  [Code.Unauthenticated]: "unauthenticated",
};

/** Codes of Node errors that mean: no connection came about, so that nothing was sent. */
const NEVER_CONNECTED: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]);

/** The `code` of the first error with one in the chain of causes: how Node tells its own errors apart. */
function systemCode(error: unknown): string | undefined {
  const seen = new Set<unknown>();
  for (let at = error; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    if ("code" in at && typeof at.code === "string") return at.code;
  }
  return undefined;
}

/** Whether the error says that the request never left this machine, so that repeating it cannot do anything twice. */
export function wasNeverSent(error: SandpoolError): boolean {
  return error instanceof SandboxConnectionError && NEVER_CONNECTED.has(systemCode(error.cause) ?? "");
}

/** Whether a connection broke, rather than that the server answered with an error. */
function isBrokenConnection(error: ConnectError): boolean {
  if (error.details.length > 0) return false;
  // Nobody here cancelled when this is asked: the connection ended under the call, or a server that stops dropped it.
  if (error.code === Code.Canceled) return true;
  return (error.code === Code.Aborted || error.code === Code.Internal) && systemCode(error.cause) !== undefined;
}

function readDetails(error: ConnectError): ErrorDetails {
  const info = error.findDetails(ErrorInfoSchema)[0];
  const resource = error.findDetails(ResourceInfoSchema)[0];
  const retry = error.findDetails(RetryInfoSchema)[0];
  const violations = error.findDetails(BadRequestSchema).flatMap((detail) => detail.fieldViolations);
  const quota = error.findDetails(QuotaFailureSchema)[0]?.violations[0];
  return {
    code: CODES[error.code],
    reason: info?.reason,
    resourceType: resource?.resourceType,
    resourceName: resource?.resourceName,
    fieldViolations: violations.map(({ field, description }) => ({ field, description })),
    quotaSubject: quota?.subject,
    retryAfterMs: milliseconds(retry?.retryDelay) ?? undefined,
    metadata: info?.metadata,
    cause: error,
  };
}

/** Reasons of the server for a container that could not be started. */
const CREATION_REASONS: ReadonlySet<string> = new Set([
  "IMAGE_NOT_FOUND",
  "PULL_FAILED",
  "START_FAILED",
  "LIMIT_UNSUPPORTED",
]);

/** Reasons of the server for a state with a class of its own. */
const STATE_REASONS: ReadonlyMap<string, typeof ResourceStateError> = new Map([
  ["SANDBOX_STARTING", SandboxNotReadyError],
  ["SANDBOX_ENDED", SandboxNotReadyError],
  ["POOL_PAUSED", PoolPausedError],
  ["POOL_DRAINED", PoolPausedError],
  ["SECRET_MISSING", SecretUnavailableError],
  ["SECRET_UNREADABLE", SecretUnavailableError],
  ["POOL_IN_USE", PoolInUseError],
  ["TEMPLATE_IN_USE", TemplateInUseError],
  ["SECRET_IN_USE", SecretInUseError],
  ["PORT_REFUSED", TunnelConnectionRefusedError],
  ["WEB_PORT_OFF", TunnelPortNotAllowedError],
]);

/** What is missing, by its type in the error. */
const NOT_FOUND: ReadonlyMap<string, typeof ResourceNotFoundError> = new Map([
  ["pool", PoolNotFoundError],
  ["template", TemplateNotFoundError],
  ["sandbox", SandboxNotFoundError],
  ["secret", SecretNotFoundError],
  ["process", ProcessNotFoundError],
  ["file", PathNotFoundError],
]);

function stateErrorClass(reason: string): typeof ResourceStateError {
  const known = STATE_REASONS.get(reason);
  if (known !== undefined) return known;
  if (reason.endsWith("_IN_USE")) return ResourceInUseError;
  return CREATION_REASONS.has(reason) ? ResourceCreationError : ResourceStateError;
}

function errorClass(code: Code, reason: string, resourceType = ""): typeof SandpoolError {
  switch (code) {
    case Code.InvalidArgument:
    case Code.OutOfRange:
      return ValidationError;
    case Code.Unauthenticated:
      return SandboxAuthenticationError;
    case Code.PermissionDenied:
      return PermissionDeniedError;
    case Code.NotFound:
      return NOT_FOUND.get(resourceType) ?? ResourceNotFoundError;
    case Code.AlreadyExists:
      return ResourceAlreadyExistsError;
    case Code.FailedPrecondition:
      return stateErrorClass(reason);
    case Code.Aborted:
      return ResourceChangedError;
    case Code.ResourceExhausted:
      return reason === "POOL_EMPTY" ? PoolEmptyError : QuotaExceededError;
    case Code.DeadlineExceeded:
      return ResourceTimeoutError;
    case Code.Unavailable:
      return SandboxConnectionError;
    default:
      return RemoteAPIError;
  }
}

/** The message for a person: what the server said, or what to look at where no server said anything. */
function messageOf(error: ConnectError, target: string, answered: boolean): string {
  if (answered) return error.rawMessage;
  if (error.code === Code.DeadlineExceeded) {
    return `sandpool at ${target} did not answer in time; raise timeoutMs, or the command's timeout`;
  }
  if (error.code === Code.Unavailable) {
    return `no answer from sandpool at ${target} (${error.rawMessage}); is it running, and is SANDPOOL_ADDRESS right?`;
  }
  return error.rawMessage;
}

/**
 * The error of this package for whatever a transport threw. `target` names the server in messages about the connection.
 */
export function toSandpoolError(thrown: unknown, target: string): SandpoolError {
  if (thrown instanceof SandpoolError) return thrown;
  const error = ConnectError.from(thrown);
  if (isBrokenConnection(error)) {
    const message = `the connection to sandpool at ${target} broke: ${error.rawMessage}`;
    return new SandboxConnectionError(message, { code: "unavailable", reason: NO_ANSWER, cause: error });
  }
  const details = readDetails(error);
  const answered = error.details.length > 0;
  const noAnswer = !answered && (error.code === Code.Unavailable || error.code === Code.DeadlineExceeded);
  const reason = noAnswer ? NO_ANSWER : details.reason;
  const kind = errorClass(error.code, reason ?? "", details.resourceType);
  return new kind(messageOf(error, target, answered), { ...details, reason });
}
