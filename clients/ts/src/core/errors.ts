/**
 * The errors of calls, one class for each cause.
 *
 *     SandpoolError
 *     ├── SandboxConnectionError           server, engine or sandbox does not respond        UNAVAILABLE
 *     ├── ClientClosedError                the client or the handle is closed
 *     ├── AuthenticationError              the API key is missing or wrong                   UNAUTHENTICATED
 *     ├── PermissionDeniedError            the API key does not allow the call               PERMISSION_DENIED
 *     ├── ValidationError                  a field of the request is wrong                   INVALID_ARGUMENT
 *     ├── ResourceNotFoundError            the resource does not exist                       NOT_FOUND
 *     │   ├── PoolNotFoundError
 *     │   ├── TemplateNotFoundError
 *     │   ├── SandboxNotFoundError
 *     │   ├── SecretNotFoundError
 *     │   ├── ProcessNotFoundError
 *     │   └── PathNotFoundError            the path does not exist in the sandbox
 *     ├── ResourceAlreadyExistsError       the name is in use                                ALREADY_EXISTS
 *     ├── ResourceStateError               the state of the resource does not allow the call FAILED_PRECONDITION
 *     │   ├── ResourceInUseError           other resources use the resource
 *     │   │   ├── PoolInUseError           sandboxes of the pool are active
 *     │   │   ├── TemplateInUseError       pools use the template
 *     │   │   └── SecretInUseError         pools or templates reference the secret
 *     │   ├── PoolPausedError              the pool is paused or drained
 *     │   ├── SecretUnavailableError       a referenced secret does not exist or cannot be decrypted
 *     │   ├── SandboxNotReadyError         the sandbox is not running
 *     │   ├── TunnelConnectionRefusedError no process listens on the port of the sandbox
 *     │   ├── PortExposureDisabledError    the server has no web port
 *     │   └── ResourceCreationError        the container could not be started
 *     ├── ConflictError                    the resource changed since its etag was read      ABORTED
 *     ├── QuotaExceededError               a limit is reached                                RESOURCE_EXHAUSTED
 *     ├── PoolEmptyError                   no warm container, and `whenEmpty` is `fail`      RESOURCE_EXHAUSTED
 *     ├── ResourceTimeoutError             a time limit passed                               DEADLINE_EXCEEDED
 *     │   └── CommandTimeoutError          the exit of a command was not reported in time
 *     └── ServerError                      any other failure of the server                   INTERNAL, UNKNOWN, …
 *
 * A wrong combination of arguments is a `TypeError`, thrown before a request is sent. A call with an `AbortSignal`
 * rejects with the signal's reason when the signal is aborted, as `fetch` does.
 */
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.js";
import { milliseconds } from "./time.js";

/** The gRPC status code of a failed call. */
export type ErrorCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** A wrong field of a request. */
export interface FieldViolation {
  /** The path of the field in the request, for example `spec.memory_mb`. */
  readonly field: string;
  /** The rule that the value violates. */
  readonly description: string;
}

/** The attributes of an error, all optional. */
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

/** The base class of all errors of this package. The message states what failed and the next action. */
export class SandpoolError extends Error {
  /** The status code, or null when the client itself detected the failure. */
  readonly code: ErrorCode | null;
  /** A stable reason in upper case for programs, for example `POOL_NOT_FOUND`, or null. */
  readonly reason: string | null;
  /** The type of the resource: `pool`, `template`, `sandbox`, `secret`, `process`, `file`, `upload`, `port`, or null. */
  readonly resourceType: string | null;
  /** The identifier or name of the resource, or null. */
  readonly resourceName: string | null;
  /** The wrong fields of the request, for a {@link ValidationError}. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The subject whose limit is reached, for a {@link QuotaExceededError}, or null. */
  readonly quotaSubject: string | null;
  /** The time in milliseconds after which a retry makes sense, or null when the server gives none. */
  readonly retryAfterMs: number | null;
  /** More values for programs. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? null;
    this.reason = details.reason || null;
    this.resourceType = details.resourceType || null;
    this.resourceName = details.resourceName || null;
    this.fieldViolations = details.fieldViolations ?? [];
    this.quotaSubject = details.quotaSubject || null;
    this.retryAfterMs = details.retryAfterMs ?? null;
    this.metadata = details.metadata ?? {};
  }
}

/** The server, its container engine or the sandbox does not respond. */
export class SandboxConnectionError extends SandpoolError {}
/** The client or the sandbox handle was closed before the call or during it. */
export class ClientClosedError extends SandpoolError {}
/** The API key is missing or wrong. */
export class AuthenticationError extends SandpoolError {}
/** The API key does not allow the call. */
export class PermissionDeniedError extends SandpoolError {}
/** One or more fields of the request are wrong; see `fieldViolations`. */
export class ValidationError extends SandpoolError {
  /** The path of the first wrong field, or null. */
  get field(): string | null {
    return this.fieldViolations[0]?.field ?? null;
  }
}
/** The resource does not exist, or its retention time has passed. */
export class ResourceNotFoundError extends SandpoolError {}
/** The pool does not exist. */
export class PoolNotFoundError extends ResourceNotFoundError {}
/** The template does not exist. */
export class TemplateNotFoundError extends ResourceNotFoundError {}
/** The sandbox does not exist, or its retention time has passed. */
export class SandboxNotFoundError extends ResourceNotFoundError {}
/** The secret does not exist. */
export class SecretNotFoundError extends ResourceNotFoundError {}
/** The process does not exist in the sandbox, or its retention time has passed. */
export class ProcessNotFoundError extends ResourceNotFoundError {}
/** The path does not exist in the sandbox. */
export class PathNotFoundError extends ResourceNotFoundError {}
/** The name is in use by an existing resource. */
export class ResourceAlreadyExistsError extends SandpoolError {}
/** The current state of the resource does not allow the call. A retry alone does not help. */
export class ResourceStateError extends SandpoolError {}
/** The resource cannot be deleted while other resources use it. The message contains their names. */
export class ResourceInUseError extends ResourceStateError {}
/** Sandboxes of the pool are active. Delete them first, or delete the pool with `force`. */
export class PoolInUseError extends ResourceInUseError {}
/** Pools use the template. Delete them first. */
export class TemplateInUseError extends ResourceInUseError {}
/** Pools or templates reference the secret. Change them first, or delete the secret with `force`. */
export class SecretInUseError extends ResourceInUseError {}
/** The pool is paused or drained, see `reason`. To resume it, update it with `paused: false` and `drained: false`. */
export class PoolPausedError extends ResourceStateError {}
/** A secret that the pool or the template references does not exist, or the server has no key to decrypt it. */
export class SecretUnavailableError extends ResourceStateError {}
/** The sandbox is not running: it is starting, terminating or terminated. */
export class SandboxNotReadyError extends ResourceStateError {}
/** No process listens on the port of the sandbox. Start the process that listens on it first. */
export class TunnelConnectionRefusedError extends ResourceStateError {
  #port: number | null = null;

  /** The port of the sandbox, or null when it is not known. */
  get port(): number | null {
    return this.#port ?? portOf(this);
  }

  /** @internal Sets the port. */
  about(port: number): this {
    this.#port = port;
    return this;
  }
}
/** The port cannot be exposed by HTTP, because the server has no web port. */
export class PortExposureDisabledError extends ResourceStateError {
  /** The port of the sandbox, or null when it is not known. */
  get port(): number | null {
    return portOf(this);
  }
}
/** The container could not be started; `reason` contains the cause, for example `IMAGE_NOT_FOUND`. */
export class ResourceCreationError extends ResourceStateError {}
/** Another caller changed the resource since its etag was read. Read it again and repeat the change. */
export class ConflictError extends SandpoolError {}
/** A limit is reached, for example a pool's `maxContainers`; see `retryAfterMs`. */
export class QuotaExceededError extends SandpoolError {}
/**
 * The pool has no warm container, and the call was made with `whenEmpty: "fail"`; see `retryAfterMs`. No limit is
 * reached: the same call with another `whenEmpty` can start a container or wait for one.
 */
export class PoolEmptyError extends SandpoolError {}
/** A time limit passed: that of the request, that of a wait, or a limit of the server. */
export class ResourceTimeoutError extends SandpoolError {}
/**
 * The server did not report the exit of a command in time. It is not known whether the command exited.
 *
 * A command that exceeds its own `timeoutMs` is killed and is not an error; see `CommandResult.timedOut`.
 */
export class CommandTimeoutError extends ResourceTimeoutError {
  /** The time limit of the command in milliseconds, or null. */
  readonly timeoutMs: number | null;

  constructor(message: string, details: ErrorDetails & { readonly timeoutMs?: number | undefined } = {}) {
    super(message, details);
    this.timeoutMs = details.timeoutMs ?? null;
  }
}
/** The server failed, or its response is not valid. */
export class ServerError extends SandpoolError {}

function portOf(error: SandpoolError): number | null {
  return error.resourceType === "port" ? Number(error.resourceName) : null;
}

/** Returns an error about one value, detected before a request is sent. */
export function invalid(field: string, description: string): ValidationError {
  return new ValidationError(`${field}: ${description}`, {
    code: "INVALID_ARGUMENT",
    reason: "INVALID_FIELD",
    fieldViolations: [{ field, description }],
  });
}

/** The client's own reason for a call without a response. */
const NO_RESPONSE = "NO_RESPONSE";

const CODES: Readonly<Record<Code, ErrorCode>> = {
  [Code.Canceled]: "CANCELLED",
  [Code.Unknown]: "UNKNOWN",
  [Code.InvalidArgument]: "INVALID_ARGUMENT",
  [Code.DeadlineExceeded]: "DEADLINE_EXCEEDED",
  [Code.NotFound]: "NOT_FOUND",
  [Code.AlreadyExists]: "ALREADY_EXISTS",
  [Code.PermissionDenied]: "PERMISSION_DENIED",
  [Code.ResourceExhausted]: "RESOURCE_EXHAUSTED",
  [Code.FailedPrecondition]: "FAILED_PRECONDITION",
  [Code.Aborted]: "ABORTED",
  [Code.OutOfRange]: "OUT_OF_RANGE",
  [Code.Unimplemented]: "UNIMPLEMENTED",
  [Code.Internal]: "INTERNAL",
  [Code.Unavailable]: "UNAVAILABLE",
  [Code.DataLoss]: "DATA_LOSS",
  [Code.Unauthenticated]: "UNAUTHENTICATED",
};

/** Codes of Node errors after which no connection was open, so that no request was sent. */
const NEVER_CONNECTED: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]);

/** Returns the `code` of the first error in the chain of causes that has one, which identifies errors of Node. */
function systemCode(error: unknown): string | undefined {
  const seen = new Set<unknown>();
  for (let at = error; at instanceof Error && !seen.has(at); at = at.cause) {
    seen.add(at);
    if ("code" in at && typeof at.code === "string") return at.code;
  }
  return undefined;
}

/** Returns whether the request was never sent, so that a retry cannot repeat its effect. */
export function wasNeverSent(error: SandpoolError): boolean {
  return error instanceof SandboxConnectionError && NEVER_CONNECTED.has(systemCode(error.cause) ?? "");
}

/** Returns whether the connection broke; otherwise the server returned the error. */
function isBrokenConnection(error: ConnectError): boolean {
  if (error.details.length > 0) return false;
  // The caller did not cancel the call: a caller's signal is checked earlier. The connection or the server ended it.
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

/** The server's reasons for a container that could not be started. */
const CREATION_REASONS: ReadonlySet<string> = new Set([
  "IMAGE_NOT_FOUND",
  "PULL_FAILED",
  "START_FAILED",
  "LIMIT_UNSUPPORTED",
]);

/** The server's reasons that have an error class. */
const STATE_REASONS: ReadonlyMap<string, typeof ResourceStateError> = new Map([
  ["SANDBOX_STARTING", SandboxNotReadyError],
  ["SANDBOX_TERMINATED", SandboxNotReadyError],
  ["POOL_PAUSED", PoolPausedError],
  ["POOL_DRAINED", PoolPausedError],
  ["SECRET_MISSING", SecretUnavailableError],
  ["SECRET_UNREADABLE", SecretUnavailableError],
  ["POOL_IN_USE", PoolInUseError],
  ["TEMPLATE_IN_USE", TemplateInUseError],
  ["SECRET_IN_USE", SecretInUseError],
  ["PORT_REFUSED", TunnelConnectionRefusedError],
  ["PORT_EXPOSURE_DISABLED", PortExposureDisabledError],
]);

/** The error class of a missing resource, by the type of the resource. */
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
      return AuthenticationError;
    case Code.PermissionDenied:
      return PermissionDeniedError;
    case Code.NotFound:
      return NOT_FOUND.get(resourceType) ?? ResourceNotFoundError;
    case Code.AlreadyExists:
      return ResourceAlreadyExistsError;
    case Code.FailedPrecondition:
      return stateErrorClass(reason);
    case Code.Aborted:
      return ConflictError;
    case Code.ResourceExhausted:
      return reason === "POOL_EMPTY" ? PoolEmptyError : QuotaExceededError;
    case Code.DeadlineExceeded:
      return ResourceTimeoutError;
    case Code.Unavailable:
      return SandboxConnectionError;
    default:
      return ServerError;
  }
}

/** The names of the methods whose calls failed, by the error. */
const METHODS = new WeakMap<object, string>();

/** Returns a transport that notes the method of a failed call, for the message of the error. */
export function withMethodNames(transport: Transport): Transport {
  const note = (method: DescMethod) => (error: unknown) => {
    if (typeof error === "object" && error !== null) METHODS.set(error, method.name);
    throw error;
  };
  return {
    unary: (method, ...rest) => transport.unary(method, ...rest).catch(note(method)),
    stream: (method, ...rest) => transport.stream(method, ...rest).catch(note(method)),
  };
}

/** A failed call. */
interface Failure {
  /** The server. */
  readonly target: string;
  /** Whether the call must not run twice. */
  readonly once: boolean;
}

/** Returns the message for a call without a response of the server. */
function messageOf(error: ConnectError, { target, once }: Failure): string {
  const method = METHODS.get(error) ?? "the call";
  if (error.code === Code.DeadlineExceeded) {
    return `the sandpool server at ${target} did not finish ${method} within the time limit; increase requestTimeoutMs`;
  }
  const text = `the sandpool server at ${target} did not respond to ${method} (${error.rawMessage})`;
  return once && !NEVER_CONNECTED.has(systemCode(error) ?? "")
    ? `${text}; the call may have taken effect, so the client did not send it again`
    : `${text}; check that the server is running and that the address (SANDPOOL_ADDRESS) is correct`;
}

/** Converts the error of a transport. */
export function toSandpoolError(thrown: unknown, failure: Failure): SandpoolError {
  if (thrown instanceof SandpoolError) return thrown;
  const error = ConnectError.from(thrown);
  if (isBrokenConnection(error)) {
    const details = { code: "UNAVAILABLE", reason: NO_RESPONSE, cause: error } as const;
    return new SandboxConnectionError(messageOf(error, failure), details);
  }
  const details = readDetails(error);
  const responded = error.details.length > 0;
  const silent = !responded && (error.code === Code.Unavailable || error.code === Code.DeadlineExceeded);
  const reason = silent ? NO_RESPONSE : details.reason;
  const kind = errorClass(error.code, reason ?? "", details.resourceType);
  return new kind(silent ? messageOf(error, failure) : error.rawMessage, { ...details, reason });
}
