/**
 * The client of sandpool: container sandboxes in milliseconds from pools of warm containers.
 *
 * @packageDocumentation
 */
export { SandboxClient } from "./client.js";
export {
  AuthenticationError,
  ClientClosedError,
  CommandTimeoutError,
  ConflictError,
  type ErrorCode,
  type ErrorDetails,
  type FieldViolation,
  PathNotFoundError,
  PermissionDeniedError,
  PoolEmptyError,
  PoolInUseError,
  PoolNotFoundError,
  PoolPausedError,
  PortExposureDisabledError,
  ProcessNotFoundError,
  QuotaExceededError,
  ResourceAlreadyExistsError,
  ResourceCreationError,
  ResourceInUseError,
  ResourceNotFoundError,
  ResourceStateError,
  ResourceTimeoutError,
  SandboxConnectionError,
  SandboxNotFoundError,
  SandboxNotReadyError,
  SandpoolError,
  SecretInUseError,
  SecretNotFoundError,
  SecretUnavailableError,
  ServerError,
  TemplateInUseError,
  TemplateNotFoundError,
  TunnelConnectionRefusedError,
  ValidationError,
} from "./core/errors.js";
export { PagedList } from "./core/pages.js";
export { type Archive, type Content, Files } from "./files.js";
export type * from "./options.js";
export { PortConnection, Ports, Tunnel } from "./ports.js";
export { Process } from "./process.js";
export { Processes } from "./processes.js";
export { Sandbox } from "./sandbox.js";
export type * from "./sandbox-options.js";
export type * from "./sandbox-types.js";
export { Terminal, Terminals } from "./terminals.js";
export type * from "./types.js";
export { VERSION } from "./version.js";
