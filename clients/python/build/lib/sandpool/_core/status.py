"""From the status of a failed call to one of our errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from sandpool import errors
from sandpool._core.call import Call, Repeat

NO_ANSWER = "NO_ANSWER"
"""Our own reason, where no server said one."""

_BY_CODE: dict[str, type[errors.SandpoolError]] = {
    "CANCELLED": errors.RequestCancelledError,
    "INVALID_ARGUMENT": errors.ValidationError,
    "OUT_OF_RANGE": errors.ValidationError,
    "DEADLINE_EXCEEDED": errors.ResourceTimeoutError,
    "NOT_FOUND": errors.ResourceNotFoundError,
    "ALREADY_EXISTS": errors.ResourceAlreadyExistsError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "UNAUTHENTICATED": errors.SandboxAuthenticationError,
    "RESOURCE_EXHAUSTED": errors.QuotaExceededError,
    "FAILED_PRECONDITION": errors.ResourceStateError,
    "ABORTED": errors.ResourceChangedError,
    "UNAVAILABLE": errors.SandboxConnectionError,
}
_NOT_FOUND: dict[str, type[errors.SandpoolError]] = {
    "pool": errors.PoolNotFoundError,
    "template": errors.TemplateNotFoundError,
    "sandbox": errors.SandboxNotFoundError,
    "secret": errors.SecretNotFoundError,
    "process": errors.ProcessNotFoundError,
    "file": errors.PathNotFoundError,
}
_BY_REASON: dict[str, type[errors.SandpoolError]] = {
    "POOL_IN_USE": errors.PoolInUseError,
    "TEMPLATE_IN_USE": errors.TemplateInUseError,
    "SECRET_IN_USE": errors.SecretInUseError,
    "SECRET_MISSING": errors.SecretUnavailableError,
    "SECRET_UNREADABLE": errors.SecretUnavailableError,
    "POOL_PAUSED": errors.PoolPausedError,
    "POOL_DRAINED": errors.PoolPausedError,
    "SANDBOX_STARTING": errors.SandboxNotReadyError,
    "SANDBOX_ENDED": errors.SandboxNotReadyError,
    "PORT_REFUSED": errors.TunnelConnectionRefusedError,
    "WEB_PORT_OFF": errors.TunnelPortNotAllowedError,
}


@dataclass
class _Details:
    """What the server said beside code and message."""

    reason: str = ""
    resource_type: str = ""
    resource_name: str = ""
    field_violations: tuple[errors.FieldViolation, ...] = ()
    quota_subject: str = ""
    retry_after: float | None = None


def error(call: Call[Any, Any], target: str, code: str, message: str, status: Status | None) -> errors.SandpoolError:
    """The error for a failed call.

    `code` is the name of the status code, `message` what came with it, `status` the google.rpc.Status with its details,
    None where none came, `target` where the call went.
    """
    details = _read(status)
    kind = _kind(code, details)
    if kind is errors.ResourceTimeoutError and call.command_timeout is not None:
        kind = errors.CommandTimeoutError
    if not details.reason and code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        details.reason = NO_ANSWER
        message = _explain(call, target, code, message)
    found = kind(
        message or code,
        code=code,
        reason=details.reason,
        resource_type=details.resource_type,
        resource_name=details.resource_name,
        field_violations=details.field_violations,
        quota_subject=details.quota_subject,
        retry_after=details.retry_after,
    )
    if isinstance(found, errors.CommandTimeoutError):
        found.timeout = call.command_timeout
    ports = (errors.TunnelConnectionRefusedError, errors.TunnelPortNotAllowedError)
    if isinstance(found, ports) and details.resource_type == "port" and details.resource_name.isdecimal():
        found.port = int(details.resource_name)
    return found


def may_repeat(call: Call[Any, Any], code: str) -> bool:
    """Whether the call may be sent again after it failed with this code."""
    return call.repeat is Repeat.SAFE and code == "UNAVAILABLE"


def _kind(code: str, details: _Details) -> type[errors.SandpoolError]:
    kind = _BY_CODE.get(code, errors.RemoteAPIError)
    if kind is errors.ResourceNotFoundError:
        return _NOT_FOUND.get(details.resource_type, kind)
    if kind is errors.QuotaExceededError and details.reason == "POOL_EMPTY":
        return errors.PoolEmptyError  # not a limit: the pool may have room for many more
    if kind is errors.ResourceStateError:
        if details.reason in errors.CREATION_ERROR_TYPES:
            return errors.ResourceCreationError
        if details.reason.endswith("_IN_USE"):
            kind = errors.ResourceInUseError
        return _BY_REASON.get(details.reason, kind)
    return kind


def _explain(call: Call[Any, Any], target: str, code: str, message: str) -> str:
    if code == "DEADLINE_EXCEEDED":
        return f"the server at {target} did not finish {call.method.path.rpartition('/')[2]} in time; raise timeout"
    text = f"no answer from a sandpool server at {target} ({message})"
    if call.repeat is Repeat.NEVER:
        return f"{text}; whether the command ran is not known, so it was not sent again"
    return f"{text}; is it running, and is the address (SANDPOOL_ADDRESS) right?"


def _read(status: Status | None) -> _Details:
    found = _Details()
    for packed in status.details if status is not None else ():
        info, resource, bad = rpc.ErrorInfo(), rpc.ResourceInfo(), rpc.BadRequest()
        quota, retry = rpc.QuotaFailure(), rpc.RetryInfo()
        if packed.Unpack(info):
            found.reason = info.reason
        elif packed.Unpack(resource):
            # A full type name, `sandpool.v1.Pool`, says the same as `pool`.
            found.resource_type = resource.resource_type.rpartition(".")[2].lower()
            found.resource_name = resource.resource_name
        elif packed.Unpack(bad):
            found.field_violations = tuple(errors.FieldViolation(v.field, v.description) for v in bad.field_violations)
        elif packed.Unpack(quota):
            found.quota_subject = next((v.subject for v in quota.violations), "")
        elif packed.Unpack(retry):
            found.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return found
