# Made from _async/command.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""A process that is followed: its output as it comes, its input, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress

from sandpool._core import processes
from sandpool._core.enums import OutputStream
from sandpool._core.following import KEPT_BYTES, Following
from sandpool._core.inside import OutputChunk, TerminalSize
from sandpool._core.model import CommandResult
from sandpool._io.blocking import Lock, Transport, notify
from sandpool.errors import (
    ClientClosedError,
    CommandTimeoutError,
    RequestCancelledError,
    ResourceStateError,
    SandboxConnectionError,
    SandpoolError,
)
from sandpool.v1 import process_service_pb2

OnOutput = Callable[[str], object]
_KILL_SECS = 5.0
"""How long giving up may take."""


class CommandHandle:
    """A process in a sandbox that goes on by itself, followed by this client.

    Iterating over it gives its output as it comes, `result` waits for its end; either can be left and taken up again.
    It survives a broken network and a restart of the server: the output is kept in the sandbox, and the handle goes on
    at the byte where it was. Nothing is run twice. One task or thread may follow it at a time; the other methods may be
    used meanwhile.
    """

    def __init__(self, transport: Transport, following: Following, stdin_offset: int | None = 0) -> None:
        self._transport = transport
        self._following = following
        self._stdin_offset = stdin_offset
        self._input = Lock()
        self._detached = False
        self._cancel: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.command_id} in {self._following.sandbox_id}>"

    @property
    def command_id(self) -> str:
        """The process's identifier in its sandbox."""
        return self._following.process_id

    @property
    def pid(self) -> int:
        """The process id inside the sandbox."""
        return self._following.process.pid if self._following.process is not None else 0

    @property
    def stdout_offset(self) -> int:
        """How far standard output was read: where `reconnect` would go on."""
        return self._following.stdout_offset

    @property
    def stderr_offset(self) -> int:
        """How far standard error was read."""
        return self._following.stderr_offset

    @property
    def ended(self) -> bool:
        """Whether its end was seen: `result` then answers at once."""
        return self._following.end is not None

    @property
    def result(self) -> CommandResult:
        """How it ended and what it printed since this handle follows it; waits for the end.

        Raises:
            SandboxConnectionError: Nothing answered for a minute.
            SandboxNotReadyError: The sandbox has ended.
        """
        return self.wait()

    def wait(self, *, on_stdout: OnOutput | None = None, on_stderr: OnOutput | None = None) -> CommandResult:
        """The same as `result`; output is given to these functions as it comes."""
        with closing(iter(self)) as chunks:
            for chunk in chunks:
                listener = on_stderr if chunk.stream is OutputStream.STDERR else on_stdout
                if listener is not None and chunk.data:
                    notify(listener, chunk.data)
        if not self.ended:
            raise ClientClosedError(f"command {self.command_id} is followed no longer; reconnect gives another handle")
        return self._following.result()

    def __iter__(self) -> Generator[OutputChunk, None, None]:
        while not self.ended and not self._detached:
            try:
                with closing(self._transport.stream(self._following.call(), self._opened)) as events:
                    for event in events:
                        for chunk in self._following.take(event):
                            yield chunk
                        if self.ended:
                            return
                raise SandboxConnectionError("the server ended the output before the command had ended")
            except SandboxConnectionError as failure:
                if self._detached:
                    return
                self._pause(failure)
            except RequestCancelledError:
                if self._detached:
                    return
                raise
            except CommandTimeoutError:
                if not self._following.goes_on():
                    raise

    def detach(self) -> None:
        """Follow it no longer: an iteration in another thread ends. The process goes on; `reconnect` takes it up."""
        self._detached = True
        if self._cancel is not None:
            self._cancel()

    def _opened(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        if self._detached:
            cancel()

    def send_input(self, data: str | bytes) -> None:
        """Write to its standard input or its terminal; waits until that has taken it.

        It is repeated when the connection breaks, and nothing is written twice.

        Raises:
            ResourceStateError: It has no open standard input (STDIN_CLOSED).
        """
        self._write(data.encode() if isinstance(data, str) else data, close=False)

    def close_input(self) -> None:
        """Say that its standard input ends here; a second time does nothing.

        On a terminal this types the end-of-file character.
        """
        try:
            self._write(b"", close=True)
        except ResourceStateError as failure:
            if failure.reason not in {"STDIN_CLOSED", "PROCESS_ENDED"}:
                raise  # else it is closed already, perhaps by this very call, whose answer was lost

    def kill(self) -> None:
        """Kill it with every process that it started; returns when they are gone. A second time does nothing."""
        self._transport.call(processes.kill_process(self._following.sandbox_id, self.command_id))

    def send_signal(self, signal: int, *, tree: bool = False) -> None:
        """Send it a signal by number, with `tree` also to every process that it started."""
        following = self._following
        self._transport.call(processes.signal_process(following.sandbox_id, self.command_id, int(signal), tree, None))

    def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal."""
        following = self._following
        size = TerminalSize(rows, cols)
        self._transport.call(processes.resize_process(following.sandbox_id, self.command_id, size, None))

    def reconnect(self) -> CommandHandle:
        """Another handle of it, that goes on where this one is. This one reconnects by itself when it has to."""
        return follow(
            self._transport,
            self._following.sandbox_id,
            self.command_id,
            self._following.stdout_offset,
            self._following.stderr_offset,
        )

    def _write(self, data: bytes, *, close: bool) -> None:
        following = self._following
        parts = processes.parts(data)
        with self._input:
            for number, part in enumerate(parts, 1):
                last = close and number == len(parts)
                self._stdin_offset = self._transport.call(
                    processes.write_input(following.sandbox_id, self.command_id, part, self._stdin_offset, last, None)
                )

    def _pause(self, failure: SandboxConnectionError) -> None:
        pause = self._following.pause(self._transport.retry, failure.retry_after)
        if pause is None:
            raise failure
        self._transport.pause(pause)


def run_to_end(
    transport: Transport,
    request: process_service_pb2.StartProcessRequest,
    on_stdout: OnOutput | None = None,
    on_stderr: OnOutput | None = None,
) -> CommandResult:
    """Start a process and follow it to its end. It is killed where its caller gives up waiting, or a listener fails."""
    handle = CommandHandle(transport, started(request, command_timeout=request.timeout_secs))
    try:
        return handle.wait(on_stdout=on_stdout, on_stderr=on_stderr)
    except SandpoolError:
        raise
    except BaseException:
        with suppress(SandpoolError):
            transport.call(processes.kill_process(request.sandbox_id, request.process_id, _KILL_SECS))
        raise


def start(
    transport: Transport, request: process_service_pb2.StartProcessRequest, kept_bytes: int = KEPT_BYTES
) -> CommandHandle:
    """Start a process and answer when it runs."""
    following = started(request, kept_bytes)
    following.process = transport.call(processes.start_process(request, None))
    return CommandHandle(transport, following)


def started(
    request: process_service_pb2.StartProcessRequest,
    kept_bytes: int = KEPT_BYTES,
    command_timeout: float | None = None,
) -> Following:
    """Following a process that is to be started; with a timeout, its end must come soon after that."""
    return Following(
        request.sandbox_id,
        request.process_id,
        time.monotonic,
        start=request,
        kept_bytes=kept_bytes,
        command_timeout=command_timeout,
    )


def follow(
    transport: Transport,
    sandbox_id: str,
    process_id: str,
    stdout_offset: int = 0,
    stderr_offset: int = 0,
    kept_bytes: int = KEPT_BYTES,
) -> CommandHandle:
    """A handle of a process that there is. Raises ProcessNotFoundError where there is none."""
    info = transport.call(processes.get_process(sandbox_id, process_id))
    following = Following(
        sandbox_id,
        info.process_id,
        time.monotonic,
        stdout_offset=stdout_offset,
        stderr_offset=stderr_offset,
        kept_bytes=kept_bytes,
    )
    following.process = info
    return CommandHandle(transport, following, info.stdin_bytes)
