"""Conversion of an agent's errors into errors for the caller of a proxied call.

The server accepts only reasons in these tables. The message is the server's if the reason is sufficient. Otherwise, the
server passes on the agent's message, truncated and without control characters.
"""

from typing import Final

import grpc

from sandpool_server.domain.errors import (
    Aborted,
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    OutOfRange,
    SandpoolError,
    Unavailable,
)
from sandpool_server.runtime.agent_messages import FIELDS, START_REASONS, error_details, invalid_response, printable

_MAX_VIOLATIONS: Final = 8

_NOT_FOUND: Final = {"PROCESS_NOT_FOUND": "process", "FILE_NOT_FOUND": "file", "UPLOAD_NOT_FOUND": "upload"}
_EXISTS: Final = {"PROCESS_ALREADY_EXISTS": "process", "FILE_ALREADY_EXISTS": "file"}
_FORBIDDEN: Final = {
    "PROCESS_EXITED": "process",
    "STDIN_CLOSED": "process",
    "NO_TERMINAL": "process",
    "NOT_A_SERVICE": "process",
    "SERVICE_NAME_TAKEN": "process",
    "IS_A_DIRECTORY": "file",
    "NOT_A_DIRECTORY": "file",
    "NOT_A_FILE": "file",
    "DIRECTORY_NOT_EMPTY": "file",
    "FILE_NOT_PERMITTED": "file",
    "SIZE_MISMATCH": "upload",
    "UPLOAD_CONFLICT": "upload",
    "ARCHIVE_INVALID": "file",
    "PORT_REFUSED": "port",
}
"""Reasons for calls that the current state does not allow, with the type of the resource."""
_EXHAUSTED: Final = frozenset(
    {
        "PROCESS_LIMIT",
        "MEMORY_LIMIT",
        "FILE_LIMIT",
        "COMMAND_LIMIT",
        "DISK_FULL",
        "FILE_TOO_LARGE",
        "UPLOAD_LIMIT",
        "WATCH_LIMIT",
        "TUNNEL_LIMIT",
    }
)
_UNAVAILABLE: Final = frozenset({"PORT_UNREACHABLE", "PORT_RESET"})

REASONS: Final = START_REASONS | _NOT_FOUND.keys() | _EXISTS.keys() | _FORBIDDEN.keys() | _EXHAUSTED | _UNAVAILABLE
"""All reasons of an agent that the server returns to callers."""


def proxy_error(error: grpc.aio.AioRpcError, instance_id: str, method: str) -> SandpoolError:
    """Convert a gRPC error of the agent into an error for the caller of a method."""
    code, text = error.code(), printable(error.details() or "")
    info, bad = error_details(error)
    reason = info.reason if info.domain == "sandpool" else ""
    about = printable(info.metadata.get("resource", "")) or instance_id
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return FailedPrecondition(
            "AGENT_VERSION_UNSUPPORTED",
            f"the sandbox was started by an earlier server and does not support {method.rpartition('/')[2]}; create "
            "another sandbox",
            "sandbox",
            instance_id,
        )
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violations = [
            FieldViolation(FIELDS.get(one.field, printable(one.field)) or "request", printable(one.description))
            for one in bad.field_violations[:_MAX_VIOLATIONS]
        ]
        return InvalidArgument(*(violations or [FieldViolation("request", text or "was rejected by the sandbox")]))
    if reason in _NOT_FOUND:
        return NotFound(_NOT_FOUND[reason], about)
    if reason in _EXISTS:
        return AlreadyExists(_EXISTS[reason], about)
    if reason == "ETAG_MISMATCH":
        return Aborted("file", about)
    if reason == "OFFSET_OUT_OF_RANGE":
        return OutOfRange(text or "the offset is greater than the size")
    if reason in _EXHAUSTED:
        return Exhausted(reason, text or reason.lower(), subject=f"sandbox:{instance_id}", retry_after=1.0)
    if reason in _FORBIDDEN:
        return FailedPrecondition(reason, text or reason.lower(), _FORBIDDEN[reason], about)
    if reason in START_REASONS:
        return FailedPrecondition(reason, text or "cannot start the process", "sandbox", instance_id)
    if reason in _UNAVAILABLE:
        return Unavailable(reason, text or "the port does not respond")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox did not respond in time")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be terminating")
    return invalid_response()
