"""What can go wrong with a call, one class for each cause.

    SandpoolError
    ├── SandboxConnectionError         server, engine or sandbox does not answer         UNAVAILABLE
    ├── ClientClosedError              the client was closed
    ├── SandboxAuthenticationError     the API key is missing or wrong                   UNAUTHENTICATED
    ├── PermissionDeniedError          the API key may not do this                       PERMISSION_DENIED
    ├── ValidationError                a field of the request is wrong (a ValueError)    INVALID_ARGUMENT
    ├── ResourceNotFoundError          there is no such resource                         NOT_FOUND
    │   ├── PoolNotFoundError
    │   ├── TemplateNotFoundError
    │   ├── SandboxNotFoundError
    │   ├── SecretNotFoundError
    │   ├── ProcessNotFoundError       no such process in the sandbox
    │   └── PathNotFoundError          no such file in the sandbox (a FileNotFoundError)
    ├── ResourceAlreadyExistsError     the name is taken                                 ALREADY_EXISTS
    ├── ResourceStateError             the resource's state forbids it                   FAILED_PRECONDITION
    │   ├── ResourceInUseError
    │   │   ├── PoolInUseError         the pool has active sandboxes
    │   │   ├── TemplateInUseError     pools follow the template
    │   │   └── SecretInUseError       pools or templates name the secret
    │   ├── PoolPausedError            the pool is paused or drained
    │   ├── SecretUnavailableError     a secret that is named was deleted, or cannot be read
    │   ├── SandboxNotReadyError       the sandbox is not running
    │   ├── TunnelConnectionRefusedError  nothing listens on the port
    │   ├── TunnelPortNotAllowedError  the server serves no ports by HTTP
    │   └── ResourceCreationError      the container could not be started
    ├── ResourceChangedError           somebody else changed it since its etag was read  ABORTED
    ├── QuotaExceededError             a limit is reached                                RESOURCE_EXHAUSTED
    ├── PoolEmptyError                 no container is ready, and the call was to fail   RESOURCE_EXHAUSTED
    ├── ResourceTimeoutError           not done in time (a TimeoutError)                 DEADLINE_EXCEEDED
    │   └── CommandTimeoutError        the answer about a command did not come in time
    ├── RequestCancelledError          the call was cancelled                            CANCELLED
    └── RemoteAPIError                 anything else: a fault of the server's            INTERNAL, UNKNOWN, …

Wrong combinations of arguments are a TypeError before anything is sent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of a request: its path, such as `sandbox.cpus`, and what would be right."""

    field: str
    description: str


class SandpoolError(Exception):
    """Base of all errors of calls. The text says what happened and what to do."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        resource_type: str = "",
        resource_name: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        quota_subject: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """The status code's name, such as `NOT_FOUND`; empty for what this client found itself."""
        self.reason = reason
        """The cause in a stable word in upper case, such as `POOL_NOT_FOUND`; may be empty."""
        self.resource_type = resource_type
        """`pool`, `template`, `sandbox`, `secret`; in a sandbox `process`, `file`, `upload`, `port`; empty for none."""
        self.resource_name = resource_name
        """The identifier or name of the resource; empty where the error is about none."""
        self.field_violations = field_violations
        """The wrong fields of the request, for a ValidationError."""
        self.quota_subject = quota_subject
        """Whose limit is reached, for a QuotaExceededError."""
        self.retry_after = retry_after
        """In how many seconds another try makes sense; None where the server does not say."""


class SandboxConnectionError(SandpoolError):
    """The server, its container engine or the sandbox does not answer now."""


class ClientClosedError(SandpoolError):
    """The client was closed before the call or during it."""


class SandboxAuthenticationError(SandpoolError):
    """The API key is missing or wrong."""


class PermissionDeniedError(SandpoolError):
    """The API key may not do this."""


class ValidationError(SandpoolError, ValueError):
    """One or more fields of the request are wrong; `field_violations` says which and why."""

    @property
    def field(self) -> str:
        """The path of the first wrong field, or empty."""
        return self.field_violations[0].field if self.field_violations else ""

    @property
    def details(self) -> tuple[FieldViolation, ...]:
        """The same as `field_violations`."""
        return self.field_violations


class ResourceNotFoundError(SandpoolError):
    """There is no such resource."""


class PoolNotFoundError(ResourceNotFoundError):
    """There is no such pool."""


class TemplateNotFoundError(ResourceNotFoundError):
    """There is no such template."""


class SandboxNotFoundError(ResourceNotFoundError):
    """There is no such sandbox, or it ended so long ago that it is forgotten."""


class SecretNotFoundError(ResourceNotFoundError):
    """There is no such secret."""


class ProcessNotFoundError(ResourceNotFoundError):
    """There is no such process in the sandbox, or it ended so long ago that it is forgotten."""


class PathNotFoundError(ResourceNotFoundError, FileNotFoundError):
    """There is nothing at this path in the sandbox."""


class ResourceAlreadyExistsError(SandpoolError):
    """The name is taken by a living resource."""


ResourceNameConflictError = ResourceAlreadyExistsError
"""Another name of it, for those who look for this one."""


class ResourceStateError(SandpoolError):
    """The resource's present state forbids the call; repeating it alone does not help."""


class ResourceInUseError(ResourceStateError):
    """The resource cannot be deleted while something uses it."""


class PoolInUseError(ResourceInUseError):
    """The pool has active sandboxes; delete them first, or the pool with `force`. The message names them."""

    @property
    def pool_id(self) -> str:
        """The pool."""
        return self.resource_name


class TemplateInUseError(ResourceInUseError):
    """Pools follow the template; delete them first. The message names them."""


class SecretInUseError(ResourceInUseError):
    """Pools or templates name the secret; change them first, or delete it with `force`. The message names them."""


class PoolPausedError(ResourceStateError):
    """The pool is paused or drained, so that nothing is taken from it; `reason` says which. `resume_pool` ends it."""


class SecretUnavailableError(ResourceStateError):
    """A secret that the pool or the template names was deleted, or was encrypted with a key that the server lacks."""


class SandboxNotReadyError(ResourceStateError):
    """The sandbox is not running: it is still starting, or it has ended."""


SandboxPending = SandboxNotReadyError
"""Another name of it, for those who look for this one."""


class TunnelConnectionRefusedError(ResourceStateError):
    """Nothing listens on the port inside the sandbox; start what is to listen first."""

    port: int = 0
    """The port inside the sandbox; 0 where it is not known."""


class TunnelPortNotAllowedError(ResourceStateError):
    """The port cannot be served by HTTP: the server has no web port."""

    port: int = 0
    """The port inside the sandbox; 0 where it is not known."""


class ResourceCreationError(ResourceStateError):
    """The container could not be started; `reason` says why."""

    @property
    def error_type(self) -> str:
        """The cause in a word of the template style: `ImagePull`, `CrashLoop` or `SandboxConfig`."""
        return CREATION_ERROR_TYPES.get(self.reason, "SandboxConfig")


CREATION_ERROR_TYPES = {
    "IMAGE_NOT_FOUND": "ImagePull",
    "PULL_FAILED": "ImagePull",
    "START_FAILED": "CrashLoop",
    "LIMIT_UNSUPPORTED": "SandboxConfig",
}
"""Reasons of the server why trying again does not start the container, and what the template style calls them."""


class ResourceChangedError(SandpoolError):
    """Somebody else changed the resource since its etag was read; read it again and repeat the change."""


class QuotaExceededError(SandpoolError):
    """A limit is reached, `max_containers` of a pool for instance. `retry_after` says when to try again."""

    @property
    def quota_type(self) -> str:
        """Which limit, in a stable word: the same as `reason`."""
        return self.reason


class PoolEmptyError(SandpoolError):
    """No container of the pool is ready, and the call said `when_empty="fail"`. `retry_after` says when to try again.

    It is no quota that is reached: the pool may have room, and the same call may start one or wait for one.
    """


class ResourceTimeoutError(SandpoolError, TimeoutError):
    """It was not done in time: within the call's timeout, `wait_secs` or the server's own limit."""

    last_status: str = ""
    """The last known state of what was waited for, where that is known."""


class CommandTimeoutError(ResourceTimeoutError):
    """The server did not say in time how a command ended. Whether it ended is not known.

    A command that passes its timeout while the server answers is no error: see `CommandResult.timed_out`.
    """

    timeout: float | None = None
    """The command's timeout in seconds."""


class RequestCancelledError(SandpoolError):
    """The call was cancelled."""


class RemoteAPIError(SandpoolError):
    """A fault of the server's, or an answer that this client does not understand."""
