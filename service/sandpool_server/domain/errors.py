"""What can go wrong, in the domain's own words.

Everything below `SandpoolError` is for a caller; the RPC layer turns it into a status with details, one class to one
status code. Messages say what to do.

    SandpoolError
    ├── InvalidArgument     a field of the request is wrong            INVALID_ARGUMENT
    ├── NotFound            the named resource does not exist          NOT_FOUND
    ├── AlreadyExists       the name is taken                          ALREADY_EXISTS
    ├── FailedPrecondition  the resource's state forbids it            FAILED_PRECONDITION
    ├── Aborted             somebody else changed the resource         ABORTED
    ├── OutOfRange          a position lies past the end               OUT_OF_RANGE
    ├── Exhausted           a limit is reached                         RESOURCE_EXHAUSTED
    ├── Unavailable         the engine or a sandbox does not answer    UNAVAILABLE
    └── NotReadyInTime      the sandbox was not ready in time          DEADLINE_EXCEEDED

    IllegalTransition       a bug: an impossible step in a life        INTERNAL
    LaunchFailed            a container could not be made; carries a `FailureReason`
"""

from dataclasses import dataclass
from enum import StrEnum


class IllegalTransition(Exception):
    """A step that `lifecycle.TRANSITIONS` does not have: a bug of ours."""


class SandpoolError(Exception):
    """Base of what a caller is told. `reason` is stable and machine-readable, in upper case with underscores."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field: its path in the request, such as `sandbox.metadata["a"]`, and what would be right."""

    field: str
    description: str


class InvalidArgument(SandpoolError):
    """One or more fields of the request are wrong."""

    def __init__(self, *violations: FieldViolation, reason: str = "INVALID_FIELD") -> None:
        super().__init__(reason, "; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


_WHERE_TO_LOOK = {
    "pool": "list the pools for those that there are, or create it",
    "template": "list the templates for those that there are, or create it",
    "secret": "list the secrets for those that there are, or create it",
    "sandbox": "list the sandboxes for those that there are; one that ended a while ago is forgotten",
    "process": "list the sandbox's processes for those that there are; one that ended a while ago is forgotten",
    "file": "see that the path is right",
    "upload": "begin it anew; one that is finished, or was left for long, is forgotten",
}


class NotFound(SandpoolError):
    """There is no such resource.

    `resource_type` is `pool`, `template`, `sandbox` or `secret`, and inside a sandbox `process`, `file` or `upload`.
    """

    def __init__(self, resource_type: str, resource_name: str, hint: str = "") -> None:
        super().__init__(
            f"{resource_type.upper()}_NOT_FOUND",
            f"there is no {resource_type} {resource_name!r}; {hint or _WHERE_TO_LOOK[resource_type]}",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class AlreadyExists(SandpoolError):
    """The name is taken by a living resource."""

    def __init__(self, resource_type: str, resource_name: str) -> None:
        super().__init__(
            f"{resource_type.upper()}_ALREADY_EXISTS",
            f"there is a {resource_type} named {resource_name!r} already; choose another name or use that one",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class FailedPrecondition(SandpoolError):
    """The resource's present state forbids the call; repeating it alone does not help."""

    def __init__(self, reason: str, message: str, resource_type: str, resource_name: str) -> None:
        super().__init__(reason, message)
        self.resource_type = resource_type
        self.resource_name = resource_name


class Aborted(SandpoolError):
    """The resource changed since the caller read it."""

    def __init__(self, resource_type: str, resource_name: str) -> None:
        super().__init__(
            "ETAG_MISMATCH",
            f"{resource_type} {resource_name!r} was changed since the etag was read; read it again, repeat the change",
        )
        self.resource_type = resource_type
        self.resource_name = resource_name


class OutOfRange(SandpoolError):
    """A position in output, input or a file lies where nothing is yet."""

    def __init__(self, message: str) -> None:
        super().__init__("OFFSET_OUT_OF_RANGE", message)


class Exhausted(SandpoolError):
    """A limit is reached. `retry_after` is in seconds."""

    def __init__(self, reason: str, message: str, subject: str, retry_after: float) -> None:
        super().__init__(reason, message)
        self.subject = subject
        self.retry_after = retry_after


class Unavailable(SandpoolError):
    """The engine, the database or a sandbox does not answer now. `retry_after` is in seconds."""

    def __init__(self, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class NotReadyInTime(SandpoolError):
    """What was asked for did not become ready within the time given; nothing of it is left."""

    def __init__(self, message: str) -> None:
        super().__init__("NOT_READY_IN_TIME", message)


class FailureReason(StrEnum):
    """Why a container could not be made."""

    IMAGE_NOT_FOUND = "image_not_found"
    PULL_FAILED = "pull_failed"
    START_FAILED = "start_failed"
    NOT_READY = "not_ready"
    ENGINE_UNREACHABLE = "engine_unreachable"
    DISK_FULL = "disk_full"
    LIMIT_UNSUPPORTED = "limit_unsupported"


class LaunchFailed(Exception):
    """A container could not be made. `message` is for a person, says what to do, and holds no secrets."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
