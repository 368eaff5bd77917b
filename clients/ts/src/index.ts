/**
 * The client of sandpool: container sandboxes in milliseconds, from pools of warm containers.
 *
 * @packageDocumentation
 */
export { SandboxClient } from "./client.js";
export { CommandHandle } from "./command.js";
export {
  ClientClosedError,
  type ErrorCode,
  type ErrorDetails,
  type FieldViolation,
  PermissionDeniedError,
  PoolEmptyError,
  PoolPausedError,
  QuotaExceededError,
  RemoteAPIError,
  ResourceAlreadyExistsError,
  ResourceChangedError,
  ResourceCreationError,
  ResourceInUseError,
  ResourceNotFoundError,
  ResourceStateError,
  ResourceTimeoutError,
  SandboxAuthenticationError,
  SandboxConnectionError,
  SandboxNotReadyError,
  SandpoolError,
  SecretUnavailableError,
  ValidationError,
} from "./core/errors.js";
export { type Content, Files } from "./files.js";
export type * from "./options.js";
export { Ports, Tunnel } from "./ports.js";
export { Processes } from "./processes.js";
export { Sandbox } from "./sandbox.js";
export type * from "./types.js";
export { VERSION } from "./version.js";
