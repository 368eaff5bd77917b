"""Between the domain and the agent's messages. What an agent says is hostile input: a sandbox may have replaced it."""

import asyncio
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import process_pb2
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
from sandpool_server.domain.model import Command, CommandEndReason, CommandResult, ContainerSpec
from sandpool_server.ports import ImageConfig

MAX_OUTPUT_BYTES: Final = 1024 * 1024
_MAX_COUNT: Final = 2**62
_MAX_TEXT: Final = 500
_MAX_DETAILS_BYTES: Final = 16 * 1024
_MAX_ADMIT_BYTES: Final = 4 * 1024 * 1024
_MIB: Final = 1024 * 1024

_END_REASONS: Final = {
    process_pb2.END_REASON_EXITED: CommandEndReason.EXITED,
    process_pb2.END_REASON_SIGNALED: CommandEndReason.SIGNALED,
    process_pb2.END_REASON_OOM_KILLED: CommandEndReason.OOM_KILLED,
    process_pb2.END_REASON_TIMED_OUT: CommandEndReason.TIMED_OUT,
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
"""The reasons why nothing was started that a caller may see; any other word is not passed on."""
_NO_ANSWER: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    }
)
"""The codes by which an agent refuses to start something."""
FIELDS: Final = {
    "argv": "argv",
    "shell": "command",
    "environment": "env",
    "working_directory": "working_dir",
    "user": "user",
    "timeout": "timeout_secs",
}
"""The agent's fields by the names that callers know."""


def configure_request(image: ImageConfig, spec: ContainerSpec) -> agent_pb.ConfigureRequest:
    """Tell the agent what the image and the spec say, entrypoint included unless it is to see secrets first.

    Names of an image's variables that no process could have are left out.
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


def admit_request(env: Mapping[str, str], entrypoint: tuple[str, ...]) -> agent_pb.ConfigureRequest:
    """Tell the agent what an owner brings. Raises `LaunchFailed` for more than an agent takes."""
    request = agent_pb.ConfigureRequest(
        environment=env, entrypoint=agent_pb.Entrypoint(argv=entrypoint) if entrypoint else None
    )
    if request.ByteSize() > _MAX_ADMIT_BYTES:
        raise LaunchFailed(FailureReason.START_FAILED, "the environment is larger than a sandbox takes")
    return request


def configure_response(content: bytes) -> agent_pb.ConfigureResponse:
    """Read an answer that came without gRPC. Raises `Unavailable`."""
    try:
        return agent_pb.ConfigureResponse.FromString(content)
    except DecodeError:
        raise nonsense() from None


def check_configured(response: agent_pb.ConfigureResponse, *, started: bool) -> None:
    """Check the agent's answer to `configure_request` or `admit_request`. Raises `Unavailable`.

    `started` says whether the request had an entrypoint; that this has ended already is no error, for it is known then
    how. One that was started earlier and has ended takes the sandbox with it.
    """
    state = response.entrypoint.state
    good = (
        (process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_ENDED)
        if started
        else (process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_NONE)
    )
    if state in good:
        return
    if state == process_pb2.ENTRYPOINT_STATE_ENDED:
        raise Unavailable("SANDBOX_STOPPED", "the sandbox's entrypoint has ended")
    raise nonsense()


def run_request(command: Command) -> agent_pb.RunCommandRequest:
    """Tell the agent what to run."""
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
    """Check and convert how a command went. Raises `Unavailable` for what no honest agent says.

    `longest_secs` is as long as the command can have run by the server's clock.
    """
    reason = _END_REASONS.get(response.end.reason)
    if response.end.reason == process_pb2.END_REASON_SHUT_DOWN:
        raise Unavailable("SANDBOX_STOPPED", "the sandbox was stopped while the command ran")
    which = response.end.WhichOneof("status")
    exit_code = response.end.exit_code if which == "exit_code" else None
    signal = response.end.signal if which == "signal" else None
    sound = (
        reason is not None
        and which is not None
        and (exit_code is None or 0 <= exit_code <= 255)
        and (signal is None or 1 <= signal <= 64)
        and (reason is not CommandEndReason.EXITED or exit_code is not None)
        and (reason is not CommandEndReason.SIGNALED or signal is not None)
    )
    if not sound or reason is None:
        raise nonsense()
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
        raise nonsense()
    return data[:MAX_OUTPUT_BYTES], dropped + max(0, len(data) - MAX_OUTPUT_BYTES)


def _duration(response: agent_pb.RunCommandResponse, longest_secs: float) -> float:
    """The time that the command ran, as the agent says, within what the server's own clock allows."""
    said = response.duration.seconds + response.duration.nanos / 1e9
    return min(max(0.0, said), longest_secs)


def nonsense() -> Unavailable:
    """What to tell a caller whose sandbox's agent does not keep to the contract."""
    return Unavailable("SANDBOX_UNREACHABLE", "the sandbox gave no sensible answer; delete it and create another")


def printable(text: str) -> str:
    """Text of a sandbox for a person: one line, no control characters, not long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _MAX_TEXT]).split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"


def command_error(error: grpc.aio.AioRpcError, member_id: str, command: Command) -> SandpoolError:
    """Convert the agent's refusal, or its silence, into an error for the caller."""
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
            *(violations or [FieldViolation(default, text or "was refused by the sandbox")]),
            reason=reason or "INVALID_FIELD",
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason:
        return Exhausted(reason, text, subject=f"sandbox:{member_id}", retry_after=1.0)
    refused = code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
    if refused or (code is grpc.StatusCode.INTERNAL and reason == "START_FAILED"):
        return FailedPrecondition(
            reason or "START_FAILED", text or "the command could not be started", "sandbox", member_id
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox did not answer in time")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox cannot be reached; it may be ending")
    return nonsense()


def admit_error(error: grpc.aio.AioRpcError, entrypoint: tuple[str, ...]) -> LaunchFailed | Unavailable:
    """Convert the agent's refusal of an owner's environment or entrypoint, or its silence.

    Of the agent's own words none is passed on: there may be values of secrets in them.
    """
    code = error.code()
    info, bad = error_details(error)
    if code in _NO_ANSWER:
        return Unavailable("SANDBOX_UNREACHABLE", "the sandbox does not answer")
    if code not in _REFUSALS or info.domain != "sandpool" or info.reason not in START_REASONS:
        return nonsense()
    words = info.reason.replace("_", " ").lower()
    if entrypoint and not any(one.field == "environment" for one in bad.field_violations[:8]):
        what = f"the entrypoint {printable(entrypoint[0])!r} could not be started: {words}"
    else:
        what = f"the environment was not accepted by the sandbox: {words}"
    return LaunchFailed(FailureReason.START_FAILED, what)


def refusal(error: grpc.aio.AioRpcError) -> str:
    """What the agent said when it refused something else than a command, for a person."""
    if error.code() in _NO_ANSWER:
        return "it does not answer"
    return printable(error.details() or "") or error.code().name.lower()


def error_details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    """The error's details as far as they can be read."""
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
    """Tell a channel that was closed under a call (`forget`) from our caller's own cancellation.

    gRPC raises CancelledError for both; only the second counts in the task.
    """
    task = asyncio.current_task()
    return asyncio.CancelledError() if task is None or task.cancelling() else error
