"""The error for the status of a failed call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.rpc import error_details_pb2 as rpc  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from sandpool import errors
from sandpool._core.call import Call, Repeat

NO_RESPONSE = "NO_RESPONSE"
"""The reason of an error for which no server sent one."""

_BY_CODE: dict[str, type[errors.SandpoolError]] = {
    "CANCELLED": errors.RequestCancelledError,
    "INVALID_ARGUMENT": errors.ValidationError,
    "OUT_OF_RANGE": errors.ValidationError,
    "DEADLINE_EXCEEDED": errors.ResourceTimeoutError,
    "NOT_FOUND": errors.ResourceNotFoundError,
    "ALREADY_EXISTS": errors.ResourceAlreadyExistsError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "UNAUTHENTICATED": errors.AuthenticationError,
    "RESOURCE_EXHAUSTED": errors.QuotaExceededError,
    "FAILED_PRECONDITION": errors.ResourceStateError,
    "ABORTED": errors.ConflictError,
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
_CREATION_REASONS = {"IMAGE_NOT_FOUND", "PULL_FAILED", "START_FAILED", "LIMIT_UNSUPPORTED"}
"""The reasons why a container cannot be started, which a retry does not change."""
_BY_REASON: dict[str, type[errors.SandpoolError]] = {
    "POOL_IN_USE": errors.PoolInUseError,
    "TEMPLATE_IN_USE": errors.TemplateInUseError,
    "SECRET_IN_USE": errors.SecretInUseError,
    "SECRET_MISSING": errors.SecretUnavailableError,
    "SECRET_UNREADABLE": errors.SecretUnavailableError,
    "POOL_PAUSED": errors.PoolPausedError,
    "POOL_DRAINED": errors.PoolPausedError,
    "SANDBOX_STARTING": errors.SandboxNotReadyError,
    "SANDBOX_TERMINATED": errors.SandboxNotReadyError,
    "PORT_REFUSED": errors.TunnelConnectionRefusedError,
    "PORT_EXPOSURE_DISABLED": errors.PortExposureDisabledError,
}


@dataclass
class _Details:
    """The details that the server sent in addition to the code and the message."""

    reason: str | None = None
    resource_type: str | None = None
    resource_name: str | None = None
    field_violations: tuple[errors.FieldViolation, ...] = ()
    quota_subject: str | None = None
    retry_after: float | None = None


def error(
    call: Call[Any, Any],
    target: str,
    code: str,
    message: str,
    status: Status | None,
    classes: Mapping[type[errors.SandpoolError], type[errors.SandpoolError]] | None = None,
) -> errors.SandpoolError:
    """Return the error for a failed call.

    Args:
        call: The call.
        target: The address that the call was sent to.
        code: The name of the status code.
        message: The message of the status.
        status: The google.rpc.Status with details, or None if the server sent none.
        classes: Subclasses of error classes that are returned in place of them.
    """
    details = _read(status)
    kind = _kind(code, details)
    if kind is errors.ResourceTimeoutError and call.command_timeout is not None:
        kind = errors.CommandTimeoutError
    if details.reason is None and code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        details.reason = NO_RESPONSE
        message = _explain(call, target, code, message)
    found = (classes or {}).get(kind, kind)(
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
    if isinstance(found, (errors.TunnelConnectionRefusedError, errors.PortExposureDisabledError)):
        name = details.resource_name or ""
        if details.resource_type == "port" and name.isdecimal():
            found.port = int(name)
    return found


def may_repeat(call: Call[Any, Any], code: str | None) -> bool:
    """Return whether the call may be sent again after it failed with this code."""
    return call.repeat is Repeat.SAFE and code == "UNAVAILABLE"


def _kind(code: str, details: _Details) -> type[errors.SandpoolError]:
    kind = _BY_CODE.get(code, errors.ServerError)
    reason = details.reason or ""
    if kind is errors.ResourceNotFoundError:
        return _NOT_FOUND.get(details.resource_type or "", kind)
    if kind is errors.QuotaExceededError and reason == "POOL_EMPTY":
        return errors.PoolEmptyError  # No limit is reached: the pool may have room for more containers.
    if kind is errors.ResourceStateError:
        if reason in _CREATION_REASONS:
            return errors.ResourceCreationError
        if reason.endswith("_IN_USE"):
            kind = errors.ResourceInUseError
        return _BY_REASON.get(reason, kind)
    return kind


def _explain(call: Call[Any, Any], target: str, code: str, message: str) -> str:
    method = call.method.path.rpartition("/")[2]
    if code == "DEADLINE_EXCEEDED":
        return f"the server at {target} did not finish {method} within the time limit; increase request_timeout"
    text = f"the sandpool server at {target} did not respond to {method} ({message})"
    if call.repeat is Repeat.NEVER:
        return f"{text}; the call may have taken effect, so the client did not send it again"
    return f"{text}; check that the server is running and that the address (SANDPOOL_ADDRESS) is correct"


def _read(status: Status | None) -> _Details:
    found = _Details()
    for packed in status.details if status is not None else ():
        info, resource, bad = rpc.ErrorInfo(), rpc.ResourceInfo(), rpc.BadRequest()
        quota, retry = rpc.QuotaFailure(), rpc.RetryInfo()
        if packed.Unpack(info):
            found.reason = info.reason or None
        elif packed.Unpack(resource):
            # A full type name, `sandpool.v1.Pool`, means the same as `pool`.
            found.resource_type = resource.resource_type.rpartition(".")[2].lower() or None
            found.resource_name = resource.resource_name or None
        elif packed.Unpack(bad):
            found.field_violations = tuple(errors.FieldViolation(v.field, v.description) for v in bad.field_violations)
        elif packed.Unpack(quota):
            found.quota_subject = next((v.subject for v in quota.violations), None)
        elif packed.Unpack(retry):
            found.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return found
