"""Conversion between domain values and the agent's messages.

Messages of an agent are untrusted input, because code in the sandbox may have replaced the agent.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FailureReason,
    FieldViolation,
    InvalidArgument,
    LaunchFailed,
    SandpoolError,
    Unavailable,
)
from sandpool_server.domain.model import Command, CommandResult, ExitReason
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import process_pb2
from sandpool_server.interfaces import ImageConfig

MAX_OUTPUT_BYTES: Final = 1024 * 1024
_MAX_COUNT: Final = 2**62
_MAX_TEXT: Final = 500
_MAX_DETAILS_BYTES: Final = 16 * 1024
_MAX_ACTIVATION_BYTES: Final = 4 * 1024 * 1024
_MIB: Final = 1024 * 1024

_EXIT_REASONS: Final = {
    process_pb2.EXIT_REASON_EXITED: ExitReason.EXITED,
    process_pb2.EXIT_REASON_SIGNALED: ExitReason.SIGNALED,
    process_pb2.EXIT_REASON_OOM_KILLED: ExitReason.OOM_KILLED,
    process_pb2.EXIT_REASON_TIMED_OUT: ExitReason.TIMED_OUT,
}
START_REASONS: Final = frozenset(
    {
        "INVALID_FIELD",
        "USER_UNKNOWN",
        "USER_NOT_PERMITTED",
        "WORKING_DIRECTORY_INVALID",
        "WORKING_DIRECTORY_NOT_PERMITTED",
        "EXECUTABLE_NOT_FOUND",
        "EXECUTABLE_NOT_PERMITTED",
        "EXECUTABLE_FORMAT",
        "INTERPRETER_NOT_FOUND",
        "SHELL_NOT_FOUND",
        "PROCESS_LIMIT",
        "MEMORY_LIMIT",
        "FILE_LIMIT",
        "COMMAND_LIMIT",
        "ENTRYPOINT_CONFLICT",
        "START_FAILED",
    }
)
"""Reasons of a failed start that the server returns to callers. Any other value is replaced."""
_NO_RESPONSE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    }
)
"""Status codes with which an agent rejects a start."""
FIELDS: Final = {
    "argv": "argv",
    "shell": "command",
    "environment": "env",
    "working_directory": "working_dir",
    "user": "user",
    "timeout": "timeout",
}
"""Field names of the agent's contract, with the corresponding names in the public contract."""


def configure_request(image: ImageConfig, spec: ContainerSpec) -> agent_pb.ConfigureRequest:
    """Return the request that passes the configuration of the image and the spec to the agent.

    The request contains the entrypoint unless the spec has secrets, which the agent receives at the activation.
    Variables of the image with invalid names are omitted.
    """
    environment = {
        name: value for name, value in image.env.items() if name and "\0" not in name + value and "=" not in name
    }
    starts_now = bool(spec.entrypoint) and not spec.secret_names
    return agent_pb.ConfigureRequest(
        defaults=agent_pb.Defaults(
            environment=environment,
            working_directory=image.working_dir,
            user=image.user,
            max_output_bytes=MAX_OUTPUT_BYTES,
        ),
        environment=dict(spec.env),
        entrypoint=agent_pb.Entrypoint(argv=spec.entrypoint) if starts_now else None,
        max_file_bytes=spec.ephemeral_disk_mb * _MIB,
    )


def activate_request(env: Mapping[str, str], entrypoint: tuple[str, ...]) -> agent_pb.ConfigureRequest:
    """Return the request that passes environment and entrypoint to the agent at the activation.

    Raises `LaunchFailed` if the request is larger than the agent accepts.
    """
    request = agent_pb.ConfigureRequest(
        environment=env, entrypoint=agent_pb.Entrypoint(argv=entrypoint) if entrypoint else None
    )
    if request.ByteSize() > _MAX_ACTIVATION_BYTES:
        raise LaunchFailed(
            FailureReason.START_FAILED,
            f"the environment and the entrypoint have {request.ByteSize()} bytes; the maximum is "
            f"{_MAX_ACTIVATION_BYTES} bytes",
        )
    return request


def configure_response(content: bytes) -> agent_pb.ConfigureResponse:
    """Decode a response that was not received over gRPC. Raises `Unavailable` if it is invalid."""
    try:
        return agent_pb.ConfigureResponse.FromString(content)
    except DecodeError:
        raise invalid_response() from None


def check_configured(response: agent_pb.ConfigureResponse, *, started: bool) -> None:
    """Check the agent's response to `configure_request` or `activate_request`.

    `started` is whether the request contained an entrypoint. It is no error if that entrypoint has already exited,
    because its exit is reported separately. If an entrypoint from an earlier request has exited, the sandbox is
    terminated. Raises `Unavailable`.
    """
    state = response.entrypoint.state
    good = (
        (process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_EXITED)
        if started
        else (process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_NONE)
    )
    if state in good:
        return
    if state == process_pb2.ENTRYPOINT_STATE_EXITED:
        raise Unavailable("SANDBOX_TERMINATED", "the sandbox's entrypoint has exited")
    raise invalid_response()


def run_request(command: Command) -> agent_pb.RunCommandRequest:
    """Return the agent's request for a command."""
    request = agent_pb.RunCommandRequest(
        argv=command.argv,
        shell=command.shell,
        environment=command.env,
        working_directory=command.working_dir,
        user=command.user,
        max_output_bytes=MAX_OUTPUT_BYTES,
    )
    request.timeout.FromNanoseconds(round(command.timeout_secs * 1e9))
    return request


def command_result(response: agent_pb.RunCommandResponse, longest_secs: float) -> CommandResult:
    """Check and convert the result of a command.

    `longest_secs` is the maximum duration of the command according to the server's clock. Raises `Unavailable` if the
    response is invalid or the sandbox was terminated.
    """
    reason = _EXIT_REASONS.get(response.exit.reason)
    if response.exit.reason == process_pb2.EXIT_REASON_SHUT_DOWN:
        raise Unavailable("SANDBOX_TERMINATED", "the sandbox was terminated while the command was running")
    which = response.exit.WhichOneof("status")
    exit_code = response.exit.exit_code if which == "exit_code" else None
    signal = response.exit.signal if which == "signal" else None
    valid = (
        reason is not None
        and which is not None
        and (exit_code is None or 0 <= exit_code <= 255)
        and (signal is None or 1 <= signal <= 64)
        and (reason is not ExitReason.EXITED or exit_code is not None)
        and (reason is not ExitReason.SIGNALED or signal is not None)
    )
    if not valid or reason is None:
        raise invalid_response()
    stdout, stdout_dropped = _output(response.stdout, response.stdout_truncated_bytes)
    stderr, stderr_dropped = _output(response.stderr, response.stderr_truncated_bytes)
    return CommandResult(
        stdout=stdout,
        stderr=stderr,
        exit_code=exit_code,
        signal=signal,
        reason=reason,
        duration_secs=_duration(response, longest_secs),
        stdout_dropped_bytes=stdout_dropped,
        stderr_dropped_bytes=stderr_dropped,
    )


def _output(data: bytes, dropped: int) -> tuple[bytes, int]:
    if not 0 <= dropped <= _MAX_COUNT:
        raise invalid_response()
    return data[:MAX_OUTPUT_BYTES], dropped + max(0, len(data) - MAX_OUTPUT_BYTES)


def _duration(response: agent_pb.RunCommandResponse, longest_secs: float) -> float:
    """Return the duration of the command in seconds: the agent's value, limited by the server's clock."""
    reported = response.duration.seconds + response.duration.nanos / 1e9
    return min(max(0.0, reported), longest_secs)


def invalid_response() -> Unavailable:
    """Return the error for a response of an agent that violates the contract."""
    return Unavailable(
        "SANDBOX_UNREACHABLE", "the sandbox sent an invalid response; delete the sandbox and create another one"
    )


def printable(text: str) -> str:
    """Return text of a sandbox as one short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _MAX_TEXT]).split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"


def command_error(error: grpc.aio.AioRpcError, instance_id: str, command: Command) -> SandpoolError:
    """Convert a gRPC error of the agent into an error for the caller of a command."""
    code, text = error.code(), printable(error.details() or "")
    info, bad = error_details(error)
    reason = info.reason if info.domain == "sandpool" and info.reason in START_REASONS else ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        default = "command" if command.shell else "argv"
        violations = [
            FieldViolation(FIELDS.get(one.field, default), printable(one.description))
            for one in bad.field_violations[:8]
        ]
        return InvalidArgument(
            *(violations or [FieldViolation(default, text or "was rejected by the sandbox")]),
            reason=reason or "INVALID_FIELD",
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason:
        return Exhausted(reason, text, subject=f"sandbox:{instance_id}", retry_after=1.0)
    refused = code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
    if refused or (code is grpc.StatusCode.INTERNAL and reason == "START_FAILED"):
        return FailedPrecondition(reason or "START_FAILED", text or "cannot start the command", "sandbox", instance_id)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox did not respond in time")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be terminating")
    return invalid_response()


def activate_error(error: grpc.aio.AioRpcError, entrypoint: tuple[str, ...]) -> LaunchFailed | Unavailable:
    """Convert a gRPC error of the agent into an error of the activation.

    The result contains no text of the agent, because it may contain values of secrets.
    """
    code = error.code()
    info, bad = error_details(error)
    if code in _NO_RESPONSE:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox does not respond")
    if code not in _REFUSALS or info.domain != "sandpool" or info.reason not in START_REASONS:
        return invalid_response()
    cause = info.reason.replace("_", " ").lower()
    if entrypoint and not any(one.field == "environment" for one in bad.field_violations[:8]):
        message = f"cannot start the entrypoint {printable(entrypoint[0])!r}: {cause}"
    else:
        message = f"the sandbox rejected the environment: {cause}"
    return LaunchFailed(FailureReason.START_FAILED, message)


def refusal(error: grpc.aio.AioRpcError) -> str:
    """Return the message of a gRPC error of the agent, for calls other than commands."""
    if error.code() in _NO_RESPONSE:
        return "it does not respond"
    return printable(error.details() or "") or error.code().name.lower()


def error_details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """Return the details of the error. Details that cannot be decoded are empty."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if not isinstance(raw, bytes) or len(raw) > _MAX_DETAILS_BYTES:
        return info, bad
    try:
        for detail in status_pb2.Status.FromString(raw).details[:8]:
            for kind in (info, bad):
                if detail.Is(kind.DESCRIPTOR):
                    detail.Unpack(kind)
    except DecodeError:
        return error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    return info, bad


def unless_cancelled(error: Exception) -> BaseException:
    """Return `error` if the channel was closed during a call (`forget`), `CancelledError` if the caller was cancelled.

    gRPC raises `CancelledError` in both cases, but only the second one marks the task as cancelled.
    """
    task = asyncio.current_task()
    return asyncio.CancelledError() if task is None or task.cancelling() else error
