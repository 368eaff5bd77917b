"""Calls about processes in a sandbox."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from sandpool._core import convert_inside as convert
from sandpool._core import methods
from sandpool._core.arguments import given, one_of, pairs, text, words
from sandpool._core.call import Call, Page, Repeat
from sandpool._core.enums import OutputOverflow, ProcessState, RestartPolicy, StdinMode
from sandpool._core.inside import HealthCheck, ProcessInfo, TerminalSize
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb

MAX_INPUT_BYTES: Final = 1024 * 1024
"""The most that one call writes to a standard input."""
KEEP_ALIVE_SECS: Final = 15.0

RestartLike: TypeAlias = RestartPolicy | Literal["never", "on_failure", "always"]
OverflowLike: TypeAlias = OutputOverflow | Literal["wait_attached", "drop_oldest", "wait"]
StdinLike: TypeAlias = StdinMode | Literal["closed", "pipe"]


def fresh_process_id() -> str:
    """A name for one process, so that a repeated start runs nothing twice."""
    return f"p-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class Start:
    """What to start and how; None where the caller says nothing."""

    command: str | Sequence[str]
    args: Sequence[str] | None = None
    process_id: str | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: str | None = None
    working_dir: str | None = None
    user: str | None = None
    shell: str | None = None
    stdin: bool = False
    terminal: TerminalSize | None = None
    timeout_secs: float | None = None
    idle_timeout_secs: float | None = None
    kill_on_disconnect: bool = False
    ttl_secs: float | None = None
    output_buffer_bytes: int | None = None
    output_overflow: OverflowLike | None = None
    name: str | None = None
    restart: RestartLike | None = None
    health_check: HealthCheck | None = None

    def request(self, sandbox_id: str) -> pb.StartProcessRequest:
        """The request, with a fresh `process_id` where none is given. Raises TypeError for arguments that clash."""
        overflow = self.output_overflow and f"OUTPUT_OVERFLOW_{OutputOverflow(self.output_overflow).upper()}"
        command, argv = self._words()
        return pb.StartProcessRequest(
            sandbox_id=sandbox_id,
            process_id=self.process_id or fresh_process_id(),
            command=command,
            argv=argv,
            stdin=self.stdin,
            kill_on_disconnect=self.kill_on_disconnect,
            **given(
                env=pairs("env", self.env),
                working_dir=one_of(None, cwd=self.cwd, working_dir=self.working_dir),
                user=self.user,
                terminal=None if self.terminal is None else terminal_size(self.terminal),
                timeout_secs=self.timeout_secs,
                idle_timeout_secs=self.idle_timeout_secs,
                ttl_secs=self.ttl_secs,
                output_buffer_bytes=self.output_buffer_bytes,
                output_overflow=overflow and pb.OutputOverflow.Value(overflow),
                service=self._service(),
            ),
        )

    def _words(self) -> tuple[str, list[str]]:
        """The line for the shell, or the program with its arguments."""
        if not isinstance(self.command, str):
            if self.args is not None:
                raise TypeError("args go with a command that is one string; add them to the list instead")
            return "", words("command", self.command) or []
        if self.args is not None:
            if self.shell is not None:
                raise TypeError("a program with args needs no shell; leave shell out")
            return "", [self.command, *(words("args", self.args) or ())]
        command = text("command", self.command)
        return ("", [self.shell, "-c", command]) if self.shell is not None else (command, [])

    def _service(self) -> pb.Service | None:
        if self.name is None:
            if self.restart is not None or self.health_check is not None:
                raise TypeError("restart and health_check are for services; give it a name")
            return None
        restart = self.restart and process_pb2.RestartPolicy.Value(
            f"RESTART_POLICY_{RestartPolicy(self.restart).upper()}"
        )
        check = None if self.health_check is None else _health_check(self.health_check)
        return pb.Service(name=self.name, **given(restart_policy=restart, health_check=check))


def _health_check(check: HealthCheck) -> process_pb2.HealthCheck:
    kind: dict[str, Any] = (
        {"tcp": process_pb2.TcpCheck(port=check.port)}
        if check.path is None
        else {"http": process_pb2.HttpCheck(port=check.port, path=check.path)}
    )
    return process_pb2.HealthCheck(
        **kind,
        **given(interval_secs=check.interval_secs, timeout_secs=check.timeout_secs, retries=check.retries),
    )


def terminal_size(size: TerminalSize) -> process_pb2.TerminalSize:
    """The message for a terminal's size."""
    return process_pb2.TerminalSize(rows=size.rows, cols=size.cols)


def start_process(request: pb.StartProcessRequest, timeout: float | None) -> Call[pb.StartProcessResponse, ProcessInfo]:
    """Start a process. Repeating it is safe: it has an identifier."""
    return Call(methods.START_PROCESS, request, lambda answer: convert.process(answer.process), timeout=timeout)


def connect_process(
    request: pb.StartProcessRequest, timeout: float | None, command_timeout: float | None
) -> Call[pb.ConnectProcessResponse, process_pb2.ProcessEvent]:
    """Start a process, unless there is one of its identifier, and follow it from its first byte."""
    return Call(
        methods.CONNECT_PROCESS,
        pb.ConnectProcessRequest(start=request),
        lambda answer: answer.event,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def attach_process(
    request: pb.AttachProcessRequest, timeout: float | None, command_timeout: float | None
) -> Call[pb.AttachProcessResponse, process_pb2.ProcessEvent]:
    """Follow a process from these offsets on."""
    return Call(
        methods.ATTACH_PROCESS,
        request,
        lambda answer: answer.event,
        timeout=timeout,
        command_timeout=command_timeout,
    )


def get_process(
    sandbox_id: str, process_id: str, timeout: float | None = None
) -> Call[pb.GetProcessResponse, ProcessInfo]:
    """Read a process."""
    request = pb.GetProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(methods.GET_PROCESS, request, lambda answer: convert.process(answer.process), timeout=timeout)


def list_processes(
    sandbox_id: str, states: Iterable[ProcessState | str] | None, page_size: int, token: str, timeout: float | None
) -> Call[pb.ListProcessesResponse, Page[ProcessInfo]]:
    """Read one page of processes. Raises ValueError for a state that there is not."""
    request = pb.ListProcessesRequest(
        sandbox_id=sandbox_id,
        page_size=page_size,
        page_token=token,
        states=[
            process_pb2.ProcessState.Value(f"PROCESS_STATE_{str(state).upper()}")
            for state in words("states", states) or ()
        ],
    )
    return Call(
        methods.LIST_PROCESSES,
        request,
        lambda answer: Page([convert.process(item) for item in answer.processes], answer.next_page_token),
        timeout=timeout,
    )


def kill_process(
    sandbox_id: str, process_id: str, timeout: float | None = None
) -> Call[pb.KillProcessResponse, ProcessInfo]:
    """Kill a process with all that it started. Killing what has ended changes nothing, so it may be repeated."""
    request = pb.KillProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(methods.KILL_PROCESS, request, lambda answer: convert.process(answer.process), timeout=timeout)


def restart_process(
    sandbox_id: str, process_id: str, timeout: float | None
) -> Call[pb.RestartProcessResponse, ProcessInfo]:
    """Start a service again."""
    request = pb.RestartProcessRequest(sandbox_id=sandbox_id, process_id=process_id)
    return Call(
        methods.RESTART_PROCESS,
        request,
        lambda answer: convert.process(answer.process),
        repeat=Repeat.NEVER,
        timeout=timeout,
    )


def signal_process(
    sandbox_id: str, process_id: str, signal: int, tree: bool, timeout: float | None
) -> Call[pb.SignalProcessResponse, None]:
    """Send a signal. It is sent once."""
    request = pb.SignalProcessRequest(sandbox_id=sandbox_id, process_id=process_id, signal=signal, tree=tree)
    return Call(methods.SIGNAL_PROCESS, request, lambda _: None, repeat=Repeat.NEVER, timeout=timeout)


def resize_process(
    sandbox_id: str, process_id: str, size: TerminalSize, timeout: float | None
) -> Call[pb.ResizeProcessResponse, None]:
    """Change the size of a terminal."""
    request = pb.ResizeProcessRequest(sandbox_id=sandbox_id, process_id=process_id, terminal=terminal_size(size))
    return Call(methods.RESIZE_PROCESS, request, lambda _: None, timeout=timeout)


def write_input(
    sandbox_id: str, process_id: str, data: bytes, offset: int | None, close: bool, timeout: float | None
) -> Call[pb.WriteProcessInputResponse, int]:
    """Write to a standard input at an offset; gives the next offset. It may be repeated only where there is one."""
    request = pb.WriteProcessInputRequest(
        sandbox_id=sandbox_id,
        process_id=process_id,
        input=pb.ProcessInput(data=data, offset=offset, close=close),
    )
    return Call(
        methods.WRITE_PROCESS_INPUT,
        request,
        lambda answer: answer.stdin_bytes,
        repeat=Repeat.NEVER if offset is None else Repeat.SAFE,
        timeout=timeout,
        least_timeout=60.0,
    )


def parts(data: bytes) -> list[bytes]:
    """Data in parts that one call may write; one empty part for none."""
    return [data[at : at + MAX_INPUT_BYTES] for at in range(0, len(data), MAX_INPUT_BYTES)] or [b""]
