"""Calls about the processes of a sandbox."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from sandpool._core import convert_sandbox_io as convert
from sandpool._core import methods
from sandpool._core.arguments import UNSET, Timeout, choice, duration, present, string_map, strings
from sandpool._core.call import Call, Page, Repeat
from sandpool._core.sandboxes import command_or_argv
from sandpool._models.enums import OutputOverflow, ProcessState, RestartPolicy
from sandpool._models.process import HealthCheck, ProcessInfo, TerminalSize
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb

MAX_INPUT_BYTES: Final = 1024 * 1024
"""The maximum size of the data that one call writes to a standard input."""
INPUT_TIMEOUT: Final = 60.0
"""The least default timeout of a call that writes to a standard input, in seconds."""

RestartPolicyValue: TypeAlias = RestartPolicy | Literal["never", "on_failure", "always"]
OutputOverflowValue: TypeAlias = OutputOverflow | Literal["wait_attached", "drop_oldest", "wait"]


def new_process_id() -> str:
    """Return a unique identifier of a process, so that a repeated start does not start it twice."""
    return f"p-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class ProcessDraft:
    """A process to start. None means the default of the server."""

    command: str | Sequence[str]
    process_id: str | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: str | None = None
    user: str | None = None
    stdin: bool = False
    terminal: TerminalSize | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    kill_on_disconnect: bool = False
    retention: float | None = None
    output_buffer_bytes: int | None = None
    output_overflow: OutputOverflowValue | None = None
    name: str | None = None
    restart_policy: RestartPolicyValue | None = None
    health_check: HealthCheck | None = None

    def request(self, sandbox_id: str) -> pb.StartProcessRequest:
        """Return the request, with a new `process_id` if none is given.

        Raises:
            TypeError: `restart_policy` or `health_check` is given without `name`.
            ValueError: `output_overflow` or `restart_policy` is not an allowed value.
        """
        overflow = None
        if self.output_overflow is not None:
            member = choice("output_overflow", OutputOverflow, self.output_overflow)
            overflow = pb.OutputOverflow.Value(f"OUTPUT_OVERFLOW_{member.upper()}")
        command, argv = command_or_argv(self.command)
        return pb.StartProcessRequest(
            sandbox_id=sandbox_id,
            process_id=self.process_id or new_process_id(),
            command=command,
            argv=argv,
            stdin=self.stdin,
            kill_on_disconnect=self.kill_on_disconnect,
            **present(
                env=string_map("env", self.env),
                working_dir=self.cwd,
                user=self.user,
                terminal=None if self.terminal is None else terminal_size(self.terminal),
                timeout=duration("timeout", self.timeout),
                idle_timeout=duration("idle_timeout", self.idle_timeout),
                retention=duration("retention", self.retention),
                output_buffer_bytes=self.output_buffer_bytes,
                output_overflow=overflow,
                service=self._service(),
            ),
        )

    def _service(self) -> pb.Service | None:
        if self.name is None:
            if self.restart_policy is not None or self.health_check is not None:
                raise TypeError("restart_policy and health_check require name, which makes the process a service")
            return None
        policy = None
        if self.restart_policy is not None:
            member = choice("restart_policy", RestartPolicy, self.restart_policy)
            policy = process_pb2.RestartPolicy.Value(f"RESTART_POLICY_{member.upper()}")
        check = None if self.health_check is None else _health_check(self.health_check)
        return pb.Service(name=self.name, **present(restart_policy=policy, health_check=check))


def _health_check(check: HealthCheck) -> process_pb2.HealthCheck:
    kind: dict[str, Any] = (
        {"tcp": process_pb2.TcpCheck(port=check.port)}
        if check.path is None
        else {"http": process_pb2.HttpCheck(port=check.port, path=check.path)}
    )
    return process_pb2.HealthCheck(
        **kind,
        **present(
            interval=duration("interval", check.interval),
            timeout=duration("timeout", check.timeout),
            failure_threshold=check.failure_threshold,
        ),
    )


def terminal_size(size: TerminalSize) -> process_pb2.TerminalSize:
    """Return the message for the size of a terminal."""
    return process_pb2.TerminalSize(rows=size.rows, cols=size.cols)


def start_process(request: pb.StartProcessRequest, timeout: Timeout) -> Call[pb.StartProcessResponse, ProcessInfo]:
    """Start a process. A retry is safe, because the request contains a `process_id`."""
    return Call(methods.START_PROCESS, request, lambda response: convert.process(response.process), timeout=timeout)


def connect_process(
    request: pb.StartProcessRequest, timeout: float | None, command_timeout: float | None
) -> Call[pb.ConnectProcessResponse, process_pb2.ProcessEvent]:
    """Start a process, unless it exists, and attach to it at the first byte."""
    return Call(
        methods.CONNECT_PROCESS,
        pb.ConnectProcessRequest(start=request),
        lambda response: response.event,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def attach_process(
    request: pb.AttachProcessRequest, timeout: float | None, command_timeout: float | None
) -> Call[pb.AttachProcessResponse, process_pb2.ProcessEvent]:
    """Attach to a process at offsets."""
    return Call(
        methods.ATTACH_PROCESS,
        request,
        lambda response: response.event,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def get_process(sandbox_id: str, process_id: str, timeout: Timeout) -> Call[pb.GetProcessResponse, ProcessInfo]:
    """Read a process."""
    request = pb.GetProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(methods.GET_PROCESS, request, lambda response: convert.process(response.process), timeout=timeout)


def list_request(
    sandbox_id: str, states: Iterable[ProcessState | str] | None, page_size: int | None
) -> pb.ListProcessesRequest:
    """Return the request for the first page of a list. Raise ValueError for a state that does not exist."""
    members = [choice("states", ProcessState, state) for state in strings("states", states) or ()]
    return pb.ListProcessesRequest(
        sandbox_id=sandbox_id,
        page_size=page_size or 0,
        states=[process_pb2.ProcessState.Value(f"PROCESS_STATE_{state.upper()}") for state in members],
    )


def list_processes(
    first: pb.ListProcessesRequest, token: str, timeout: Timeout
) -> Call[pb.ListProcessesResponse, Page[ProcessInfo]]:
    """Read one page of processes."""
    request = pb.ListProcessesRequest()
    request.CopyFrom(first)
    request.page_token = token
    return Call(
        methods.LIST_PROCESSES,
        request,
        lambda response: Page([convert.process(item) for item in response.processes], response.next_page_token),
        timeout=timeout,
    )


def kill_process(
    sandbox_id: str, process_id: str, timeout: Timeout = UNSET
) -> Call[pb.KillProcessResponse, ProcessInfo]:
    """Kill a process with all its descendants. A retry is safe: killing an exited process changes nothing."""
    request = pb.KillProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(methods.KILL_PROCESS, request, lambda response: convert.process(response.process), timeout=timeout)


def restart_process(sandbox_id: str, process_id: str, timeout: Timeout) -> Call[pb.RestartProcessResponse, ProcessInfo]:
    """Restart a service. It is sent once."""
    request = pb.RestartProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(
        methods.RESTART_PROCESS,
        request,
        lambda response: convert.process(response.process),
        repeat=Repeat.NEVER,
        timeout=timeout,
    )


def signal_process(
    sandbox_id: str, process_id: str, signal: int, tree: bool, timeout: Timeout
) -> Call[pb.SignalProcessResponse, None]:
    """Send a signal. It is sent once."""
    request = pb.SignalProcessRequest(sandbox_id=sandbox_id, process_id=process_id, signal=int(signal), tree=tree)
    return Call(methods.SIGNAL_PROCESS, request, lambda _: None, repeat=Repeat.NEVER, timeout=timeout)


def resize_process(
    sandbox_id: str, process_id: str, size: TerminalSize, timeout: Timeout
) -> Call[pb.ResizeProcessResponse, None]:
    """Change the size of a terminal."""
    request = pb.ResizeProcessRequest(sandbox_id=sandbox_id, process_id=process_id, terminal=terminal_size(size))
    return Call(methods.RESIZE_PROCESS, request, lambda _: None, timeout=timeout)


def write_input(
    sandbox_id: str, process_id: str, data: bytes, offset: int | None, close: bool, timeout: Timeout
) -> Call[pb.WriteProcessInputResponse, int]:
    """Write to a standard input and return the next offset. A retry is safe only with an offset."""
    request = pb.WriteProcessInputRequest(
        sandbox_id=sandbox_id,
        process_id=process_id,
        input=pb.ProcessInput(data=data, offset=offset, close=close),
    )
    return Call(
        methods.WRITE_PROCESS_INPUT,
        request,
        lambda response: response.stdin_bytes,
        repeat=Repeat.NEVER if offset is None else Repeat.SAFE,
        timeout=timeout,
        minimum_timeout=INPUT_TIMEOUT,
    )


def parts(data: bytes) -> list[bytes]:
    """Split data into parts that one call can write. The result is one empty part if there is no data."""
    return [data[at : at + MAX_INPUT_BYTES] for at in range(0, len(data), MAX_INPUT_BYTES)] or [b""]
