"""Errors of the domain.

The server reports every subclass of `SandpoolError` to the caller. The RPC layer converts it to a status with details;
each class has one status code. A message states what failed, the value that caused it, and the next action, in this
order.

    SandpoolError
    ├── InvalidArgument     a field of the request is invalid          INVALID_ARGUMENT
    ├── NotFound            the named resource does not exist          NOT_FOUND
    ├── AlreadyExists       the name is in use                         ALREADY_EXISTS
    ├── FailedPrecondition  the resource's state does not allow it     FAILED_PRECONDITION
    ├── Aborted             another caller changed the resource        ABORTED
    ├── OutOfRange          an offset is past the end of the data      OUT_OF_RANGE
    ├── Exhausted           a limit is reached                         RESOURCE_EXHAUSTED
    ├── Unavailable         the engine or a sandbox does not respond   UNAVAILABLE
    └── QueueTimeout        no sandbox was ready in time               DEADLINE_EXCEEDED

    IllegalTransition       a bug: an invalid change of state          INTERNAL
    LaunchFailed            a container could not be created; has a `FailureReason`
"""

from dataclasses import dataclass
from enum import StrEnum


class IllegalTransition(Exception):
    """A change of state that is not in `lifecycle.TRANSITIONS`. This is a bug in the server."""


class SandpoolError(Exception):
    """Base class of the errors that the server reports to callers.

    `reason` is a stable, machine-readable identifier in upper case with underscores.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field: its path in the request, such as `sandbox.metadata["a"]`, and the rule that it violates."""

    field: str
    description: str


class InvalidArgument(SandpoolError):
    """One or more fields of the request are invalid."""

    def __init__(self, *violations: FieldViolation, reason: str = "INVALID_FIELD") -> None:
        super().__init__(reason, "; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


_NEXT_ACTIONS = {
    "pool": "list the pools to find the right name, or create it",
    "template": "list the templates to find the right name, or create it",
    "secret": "list the secrets to find the right name, or create it",
    "sandbox": "list the sandboxes to find the right name; terminated sandboxes are deleted after the retention period",
    "process": "list the sandbox's processes; exited processes are removed after the retention period",
    "file": "check the path",
    "upload": "start the upload again; finished and inactive uploads are removed",
}


class NotFound(SandpoolError):
    """The resource does not exist.

    `resource_type` is `pool`, `template`, `sandbox` or `secret`, or for resources in a sandbox `process`, `file` or
    `upload`. `hint` is the next action for the caller; the default depends on the type.
    """

    def __init__(self, resource_type: str, resource_name: str, hint: str = "") -> None:
        super().__init__(
            f"{resource_type.upper()}_NOT_FOUND",
            f"{resource_type} {resource_name!r} does not exist; {hint or _NEXT_ACTIONS[resource_type]}",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class AlreadyExists(SandpoolError):
    """Another resource has the name."""

    def __init__(self, resource_type: str, resource_name: str) -> None:
        super().__init__(
            f"{resource_type.upper()}_ALREADY_EXISTS",
            f"{resource_type} {resource_name!r} already exists; choose another name, or use the existing one",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class FailedPrecondition(SandpoolError):
    """The current state of the resource does not allow the call. The caller must change the state before a retry."""

    def __init__(self, reason: str, message: str, resource_type: str, resource_name: str) -> None:
        super().__init__(reason, message)
        self.resource_type = resource_type
        self.resource_name = resource_name


class Aborted(SandpoolError):
    """The resource changed since the caller read it."""

    def __init__(self, resource_type: str, resource_name: str) -> None:
        super().__init__(
            "ETAG_MISMATCH",
            f"{resource_type} {resource_name!r} was changed after its etag was read; "
            f"read the {resource_type} again and repeat the change",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class OutOfRange(SandpoolError):
    """An offset in the output, the input or a file is past the end of the data."""

    def __init__(self, message: str) -> None:
        super().__init__("OFFSET_OUT_OF_RANGE", message)


class Exhausted(SandpoolError):
    """A limit is reached. `retry_after` is in seconds."""

    def __init__(self, reason: str, message: str, subject: str, retry_after: float) -> None:
        super().__init__(reason, message)
        self.subject = subject
        self.retry_after = retry_after


class Unavailable(SandpoolError):
    """The engine, the database or a sandbox does not respond now. `retry_after` is in seconds."""

    def __init__(self, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class QueueTimeout(SandpoolError):
    """No sandbox became ready before the time limit. The server has released everything that it had claimed."""

    def __init__(self, message: str) -> None:
        super().__init__("QUEUE_TIMEOUT", message)


class FailureReason(StrEnum):
    """The reason why a container could not be created."""

    IMAGE_NOT_FOUND = "image_not_found"
    PULL_FAILED = "pull_failed"
    START_FAILED = "start_failed"
    READINESS_TIMEOUT = "readiness_timeout"
    ENGINE_UNREACHABLE = "engine_unreachable"
    DISK_FULL = "disk_full"
    LIMIT_UNSUPPORTED = "limit_unsupported"


class LaunchFailed(Exception):
    """A container could not be created. `message` is for users: it contains the next action, and no secrets."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
