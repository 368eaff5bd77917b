"""The errors of calls, one class for each cause.

    SandpoolError
    ├── SandboxConnectionError         The server, the engine or the sandbox      UNAVAILABLE
    │                                  does not respond. Also a ConnectionError.
    ├── ClientClosedError              The client or the handle was closed.
    ├── AuthenticationError            The API key is missing or wrong.           UNAUTHENTICATED
    ├── PermissionDeniedError          The API key does not allow this call.      PERMISSION_DENIED
    ├── ValidationError                A field of the request is invalid.         INVALID_ARGUMENT,
    │                                  Also a ValueError.                         OUT_OF_RANGE
    ├── ResourceNotFoundError          The resource does not exist.               NOT_FOUND
    │   ├── PoolNotFoundError
    │   ├── TemplateNotFoundError
    │   ├── SandboxNotFoundError
    │   ├── SecretNotFoundError
    │   ├── ProcessNotFoundError
    │   └── PathNotFoundError          Also a FileNotFoundError.
    ├── ResourceAlreadyExistsError     The name or the path is in use.            ALREADY_EXISTS
    ├── ResourceStateError             The state of the resource does not allow   FAILED_PRECONDITION
    │   │                              the call.
    │   ├── ResourceInUseError
    │   │   ├── PoolInUseError         The pool has active sandboxes.
    │   │   ├── TemplateInUseError     Pools use the template.
    │   │   └── SecretInUseError       Pools or templates reference the secret.
    │   ├── PoolPausedError            The pool is paused or drained.
    │   ├── SecretUnavailableError     A referenced secret is deleted or
    │   │                              cannot be decrypted.
    │   ├── SandboxNotReadyError       The sandbox is not running.
    │   ├── TunnelConnectionRefusedError  No process listens on the port.
    │   │                              Also a ConnectionRefusedError.
    │   ├── PortExposureDisabledError  The server has no web port.
    │   └── ResourceCreationError      The container could not be started.
    ├── ConflictError                  The resource changed since its etag        ABORTED
    │                                  was read.
    ├── QuotaExceededError             A limit is reached.                        RESOURCE_EXHAUSTED
    ├── PoolEmptyError                 The pool has no warm container, and        RESOURCE_EXHAUSTED
    │                                  the call was to fail.
    ├── ResourceTimeoutError           A time limit passed.                       DEADLINE_EXCEEDED
    │   │                              Also a TimeoutError.
    │   └── CommandTimeoutError        The result of a command was not received
    │                                  in time.
    ├── RequestCancelledError          The call was cancelled.                    CANCELLED
    └── ServerError                    The server failed, or its response was     INTERNAL,
                                       not understood.                            UNKNOWN, …

Wrong combinations of arguments raise TypeError before anything is sent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of a request."""

    field: str
    """The path of the field in the request, for example `spec.cpus`."""
    description: str
    """The allowed values."""


class SandpoolError(Exception):
    """The base class of all errors of calls. The message states the failure and the next action."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str | None = None,
        resource_type: str | None = None,
        resource_name: str | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
        quota_subject: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """The failure and the next action."""
        self.code = code
        """The name of the gRPC status code, for example `NOT_FOUND`, or None for an error of the client itself."""
        self.reason = reason
        """A stable identifier of the cause, for example `POOL_NOT_FOUND`, or None."""
        self.resource_type = resource_type
        """`pool`, `template`, `sandbox`, `secret`, `process`, `file`, `upload`, `port`, or None."""
        self.resource_name = resource_name
        """The identifier or the name of the resource, or None."""
        self.field_violations = field_violations
        """The invalid fields of the request. Empty for other errors than ValidationError."""
        self.quota_subject = quota_subject
        """The resource whose limit is reached, or None for other errors than QuotaExceededError."""
        self.retry_after = retry_after
        """Seconds after which a retry can succeed, or None if the server does not specify one."""


class SandboxConnectionError(SandpoolError, ConnectionError):
    """The server, its container engine or the sandbox does not respond."""


class ClientClosedError(SandpoolError):
    """The client or the handle was closed before or during the call."""


class AuthenticationError(SandpoolError):
    """The API key is missing or wrong."""


class PermissionDeniedError(SandpoolError):
    """The API key does not allow this call."""


class ValidationError(SandpoolError, ValueError):
    """One or more fields of the request are invalid. See `field_violations`."""

    @property
    def field(self) -> str | None:
        """The path of the first invalid field, or None if the server did not name one."""
        return self.field_violations[0].field if self.field_violations else None


class ResourceNotFoundError(SandpoolError):
    """The resource does not exist."""


class PoolNotFoundError(ResourceNotFoundError):
    """The pool does not exist."""


class TemplateNotFoundError(ResourceNotFoundError):
    """The template does not exist."""


class SandboxNotFoundError(ResourceNotFoundError):
    """The sandbox does not exist, or it terminated and its retention time passed."""


class SecretNotFoundError(ResourceNotFoundError):
    """The secret does not exist."""


class ProcessNotFoundError(ResourceNotFoundError):
    """The process does not exist in the sandbox, or it exited and its retention time passed."""


class PathNotFoundError(ResourceNotFoundError, FileNotFoundError):
    """The path does not exist in the sandbox."""


class ResourceAlreadyExistsError(SandpoolError):
    """The name or the path is in use."""


class ResourceStateError(SandpoolError):
    """The current state of the resource does not allow the call. A retry alone does not help."""


class ResourceInUseError(ResourceStateError):
    """The resource cannot be deleted while it is in use."""


class PoolInUseError(ResourceInUseError):
    """The pool has active sandboxes. The message lists them. Delete them first, or use `force=True`."""


class TemplateInUseError(ResourceInUseError):
    """Pools use the template. The message lists them. Delete them first."""


class SecretInUseError(ResourceInUseError):
    """Pools or templates reference the secret. The message lists them. Update them first, or use `force=True`."""


class PoolPausedError(ResourceStateError):
    """The pool is paused or drained. Resume it with `update_pool(pool_id, paused=False, drained=False)`."""


class SecretUnavailableError(ResourceStateError):
    """A referenced secret was deleted, or the server does not have the key that encrypted it."""


class SandboxNotReadyError(ResourceStateError):
    """The sandbox is not running: it is starting, or it is terminated."""


class TunnelConnectionRefusedError(ResourceStateError, ConnectionRefusedError):
    """No process listens on the port inside the sandbox. Start the process first."""

    port: int | None = None
    """The port inside the sandbox, or None if it is not known."""


class PortExposureDisabledError(ResourceStateError):
    """The server cannot expose ports by HTTP, because it has no web port."""

    port: int | None = None
    """The port inside the sandbox, or None if it is not known."""


class ResourceCreationError(ResourceStateError):
    """The container could not be started. `reason` contains the cause."""


class ConflictError(SandpoolError):
    """The resource changed since its etag was read. Read it again and repeat the change."""


class QuotaExceededError(SandpoolError):
    """A limit is reached, for example `max_containers` of a pool. `reason` names the limit."""


class PoolEmptyError(SandpoolError):
    """The pool has no warm container, and the call requested `when_empty="fail"`.

    This is not a quota error: the same call with another `when_empty` can start a container or wait for one.
    """


class ResourceTimeoutError(SandpoolError, TimeoutError):
    """A time limit passed: `timeout`, `request_timeout`, `queue_timeout` or a limit of the server."""


class CommandTimeoutError(ResourceTimeoutError):
    """The server did not return the result of a command in time. It is not known whether the command exited.

    A command that exceeds its own timeout raises no error. See `CommandResult.timed_out`.
    """

    timeout: float | None = None
    """The timeout of the command in seconds, or None if it is not known."""


class RequestCancelledError(SandpoolError):
    """The call was cancelled."""


class ServerError(SandpoolError):
    """The server failed, or it returned a response that this version of the client does not understand."""
