"""Conversion of domain errors to gRPC statuses with `google.rpc` details.

Every status contains an `ErrorInfo` with a stable reason; docs/reference/errors.md lists all reasons. A status is sent
in HTTP/2 trailers, and clients accept 8 KiB of trailers by default. Messages and violations are therefore truncated.
"""

from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    ResourceInfo,
    RetryInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from sandpool_server.domain.errors import (
    Aborted,
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    FailureReason,
    FieldViolation,
    InvalidArgument,
    LaunchFailed,
    NotFound,
    OutOfRange,
    QueueTimeout,
    SandpoolError,
    Unavailable,
)

DOMAIN = "sandpool"
"""The `domain` of every `ErrorInfo`."""

_MESSAGE_BYTES = 512
_PATH_BYTES = 200
_DESCRIPTION_BYTES = 400
_DETAILS_BYTES = 3000
"""Maximum encoded size of all violations. With base64, and the message twice, the total is below 8 KiB."""

_LAUNCH_CODES = {
    FailureReason.IMAGE_NOT_FOUND: grpc.StatusCode.FAILED_PRECONDITION,
    FailureReason.PULL_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    FailureReason.START_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    FailureReason.LIMIT_UNSUPPORTED: grpc.StatusCode.FAILED_PRECONDITION,
    FailureReason.READINESS_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    FailureReason.ENGINE_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    FailureReason.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_NO_LIMIT = frozenset({"POOL_EMPTY"})
"""Reasons without a `QuotaFailure`: the resource becomes available again, and no quota can be raised."""

_LAUNCH_RETRY_SECS = 5.0
"""Retry delay after an engine error: about the first backoff of a pool."""


def status_of(error: SandpoolError | LaunchFailed) -> Status:
    """Return the status of a domain error."""
    if isinstance(error, LaunchFailed):
        return _launch_failed(error)
    match error:
        case InvalidArgument():
            return _invalid_argument(error)
        case NotFound():
            return _status(grpc.StatusCode.NOT_FOUND, error, _resource(error, error.message))
        case AlreadyExists():
            return _status(grpc.StatusCode.ALREADY_EXISTS, error, _resource(error, error.message))
        case Aborted():
            return _status(grpc.StatusCode.ABORTED, error, _resource(error, error.message))
        case FailedPrecondition():
            subject = f"{error.resource_type}:{error.resource_name}"
            failure = _precondition(error.reason, subject, error.message)
            return _status(grpc.StatusCode.FAILED_PRECONDITION, error, failure, _resource(error, ""))
        case Exhausted():
            limits = () if error.reason in _NO_LIMIT else (_quota(error.subject, error.message),)
            return _status(grpc.StatusCode.RESOURCE_EXHAUSTED, error, *limits, _retry(error.retry_after))
        case OutOfRange():
            return _status(grpc.StatusCode.OUT_OF_RANGE, error)
        case Unavailable():
            return _status(grpc.StatusCode.UNAVAILABLE, error, _retry(error.retry_after))
        case QueueTimeout():
            return _status(grpc.StatusCode.DEADLINE_EXCEEDED, error)
        case _:
            raise TypeError(f"{type(error).__name__} has no status")


def internal_status(incident: str) -> Status:
    """Return the status of an unexpected error. It contains only the incident number of the log message."""
    message = f"internal error; see incident {incident} in the server's log"
    return _assemble(grpc.StatusCode.INTERNAL, "INTERNAL", message, (), {"incident": incident})


def malformed_status(request_name: str) -> Status:
    """Return the status for a request that cannot be decoded."""
    message = f"the request is not a valid {request_name} message; strings must be UTF-8"
    return _assemble(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST", message, ())


def deadline_status() -> Status:
    """Return the status for a call that arrives after its deadline."""
    message = "the deadline was exceeded before the call started; nothing was changed"
    return _assemble(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message, ())


def _invalid_argument(error: InvalidArgument) -> Status:
    """Return a status with as many violations as fit. The message contains the number of omitted ones."""
    bad, size = BadRequest(), 0
    for violation in error.violations:
        entry = BadRequest.FieldViolation(
            field=_cut(violation.field, _PATH_BYTES), description=_cut(violation.description, _DESCRIPTION_BYTES)
        )
        size += entry.ByteSize() + 4
        if size > _DETAILS_BYTES - 300:
            break
        bad.field_violations.append(entry)
    message = _summary(error.violations) or error.message
    return _assemble(grpc.StatusCode.INVALID_ARGUMENT, error.reason, message, (bad,))


def _summary(violations: Sequence[FieldViolation]) -> str:
    """Return a line with the first violations and the number of omitted ones."""
    shown: list[str] = []
    room = _MESSAGE_BYTES - 32
    for violation in violations:
        text = f"{_cut(violation.field, _PATH_BYTES)}: {_cut(violation.description, _DESCRIPTION_BYTES)}"
        room -= len(text.encode(errors="replace")) + 2
        if room < 0 and shown:
            break
        shown.append(text)
    left_out = len(violations) - len(shown)
    return "; ".join(shown) + (f"; and {left_out} more" if left_out else "")


def _launch_failed(error: LaunchFailed) -> Status:
    """Return the status for a container that could not be started for the caller."""
    code, reason = _LAUNCH_CODES[error.reason], error.reason.name
    details: tuple[Message, ...] = ()
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        details = (_precondition(reason, "container", error.message),)
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        details = (_quota("engine:disk", error.message), _retry(_LAUNCH_RETRY_SECS))
    elif code is grpc.StatusCode.UNAVAILABLE:
        details = (_retry(_LAUNCH_RETRY_SECS),)
    return _assemble(code, reason, error.message, details)


def _status(code: grpc.StatusCode, error: SandpoolError, *details: Message) -> Status:
    return _assemble(code, error.reason, error.message, details)


def _assemble(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    details: Sequence[Message],
    metadata: dict[str, str] | None = None,
) -> Status:
    """Return a status. Its first detail is the `ErrorInfo`."""
    number: int = code.value[0]
    status = Status(code=number, message=_cut(message, _MESSAGE_BYTES))
    for detail in (ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata or {}), *details):
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _resource(error: NotFound | AlreadyExists | Aborted | FailedPrecondition, description: str) -> ResourceInfo:
    return ResourceInfo(
        resource_type=error.resource_type,
        resource_name=_cut(error.resource_name, _PATH_BYTES),
        description=_cut(description, _DESCRIPTION_BYTES),
    )


def _precondition(kind: str, subject: str, description: str) -> PreconditionFailure:
    violation = PreconditionFailure.Violation(
        type=kind, subject=_cut(subject, _PATH_BYTES), description=_cut(description, _MESSAGE_BYTES)
    )
    return PreconditionFailure(violations=[violation])


def _quota(subject: str, description: str) -> QuotaFailure:
    violation = QuotaFailure.Violation(
        subject=_cut(subject, _PATH_BYTES), description=_cut(description, _MESSAGE_BYTES)
    )
    return QuotaFailure(violations=[violation])


def _retry(seconds: float) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1_000_000_000)))


def _cut(text: str, limit: int) -> str:
    """Return the text truncated to `limit` bytes of UTF-8. Replaces lone surrogates from file names and engines."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode(errors="ignore") + "…"
