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
  PathNotFoundError,
  PermissionDeniedError,
  PoolEmptyError,
  PoolInUseError,
  PoolNotFoundError,
  PoolPausedError,
  ProcessNotFoundError,
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
  SandboxNotFoundError,
  SandboxNotReadyError,
  SandpoolError,
  SecretInUseError,
  SecretNotFoundError,
  SecretUnavailableError,
  TemplateInUseError,
  TemplateNotFoundError,
  TunnelConnectionRefusedError,
  TunnelPortNotAllowedError,
  ValidationError,
} from "./core/errors.js";
export { type Archive, type Content, Files } from "./files.js";
export type * from "./inside-options.js";
export type * from "./inside-types.js";
export type * from "./options.js";
export { PortConnection, Ports, Tunnel } from "./ports.js";
export { Processes } from "./processes.js";
export { type OnData, type OnExit, Pty, type PtyListeners } from "./pty.js";
export { Sandbox } from "./sandbox.js";
export type * from "./types.js";
export { VERSION } from "./version.js";
