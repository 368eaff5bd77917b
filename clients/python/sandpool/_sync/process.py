# Code generated from _async/process.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""A process that this client is attached to."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from functools import partial

from sandpool._core import processes
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.output_stream import RESULT_BYTES, OutputReader
from sandpool._models.enums import OutputStream
from sandpool._models.process import OutputChunk, TerminalSize
from sandpool._models.sandbox import CommandResult
from sandpool._transport.threads import Background, Lock, OnOutput, Transport, notify
from sandpool.errors import (
    ClientClosedError,
    CommandTimeoutError,
    RequestCancelledError,
    ResourceStateError,
    SandboxConnectionError,
    SandpoolError,
)
from sandpool.v1 import process_service_pb2

_KILL_TIMEOUT = 5.0
_EXITED_REASONS = {"STDIN_CLOSED", "PROCESS_EXITED"}


class Process:
    """A process in a sandbox that this client is attached to.

    Iteration yields the output as it arrives; `wait` returns the result after the exit. The process does not depend on
    the connection: it survives a network failure and a restart of the server, and the client then resumes the output at
    the last received byte. Only one task or thread can read the output at a time. The other methods can be used during
    that.
    """

    def __init__(self, transport: Transport, reader: OutputReader, stdin_offset: int | None = 0) -> None:
        self._transport = transport
        self._reader = reader
        self._stdin_offset = stdin_offset
        self._stdin_lock = Lock()
        self._detached = False
        self._cancel: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.process_id} in {self._reader.sandbox_id}>"

    @property
    def process_id(self) -> str:
        """The identifier of the process in its sandbox."""
        return self._reader.process_id

    @property
    def pid(self) -> int | None:
        """The process id (PID) inside the sandbox, or None while no run exists."""
        return self._reader.process.pid if self._reader.process is not None else None

    @property
    def stdout_offset(self) -> int:
        """The offset of the next byte of standard output. Pass it to `processes.attach` to continue there."""
        return self._reader.stdout_offset

    @property
    def stderr_offset(self) -> int:
        """The offset of the next byte of standard error. Pass it to `processes.attach` to continue there."""
        return self._reader.stderr_offset

    def wait(self, *, on_stdout: OnOutput | None = None, on_stderr: OnOutput | None = None) -> CommandResult:
        """Wait until the process has exited and return its result.

        Args:
            on_stdout: Receives standard output as text, as it arrives.
            on_stderr: Receives standard error as text, as it arrives.

        Returns:
            How the process exited, and its output since this handle is attached, at most 64 MiB per stream.

        Raises:
            SandboxConnectionError: The server or the sandbox did not respond for 60 s.
            SandboxNotReadyError: The sandbox is terminated.
            ClientClosedError: The handle was detached.
        """
        with closing(iter(self)) as chunks:
            for chunk in chunks:
                callback = on_stderr if chunk.stream is OutputStream.STDERR else on_stdout
                if callback is not None and chunk.data:
                    notify(callback, chunk.data)
        if self._reader.exit is None:
            raise ClientClosedError(
                f"the handle of process {self.process_id} is detached; attach again with processes.attach"
            )
        return self._reader.result()

    def __iter__(self) -> Generator[OutputChunk, None, None]:
        while self._reader.exit is None and not self._detached:
            try:
                with closing(self._transport.stream(self._reader.call(), self._opened)) as events:
                    for event in events:
                        for chunk in self._reader.take(event):
                            yield chunk
                        if self._reader.exit is not None:
                            return
                raise SandboxConnectionError("the server ended the output before the process exited")
            except SandboxConnectionError as failure:
                if self._detached:
                    return
                self._pause(failure)
            except RequestCancelledError:
                if self._detached:
                    return
                raise
            except CommandTimeoutError:
                if not self._reader.received_output():
                    raise

    def write_stdin(self, data: str | bytes, *, request_timeout: Timeout = UNSET) -> None:
        """Write to the standard input or to the terminal, and wait until the process has accepted all bytes.

        The call is retried after a broken connection. No byte is written twice.

        Args:
            data: The bytes to write. Text is encoded as UTF-8.
            request_timeout: Time limit of each call, which writes at most 1 MiB, in seconds. Default: the client's, at
                least 60. None: no limit.

        Raises:
            ResourceStateError: Standard input is closed (STDIN_CLOSED).
        """
        self._write(data.encode() if isinstance(data, str) else data, request_timeout, close=False)

    def close_stdin(self, *, request_timeout: Timeout = UNSET) -> None:
        """Close the standard input. A second call does nothing.

        On a terminal, this types the end-of-file character.

        Args:
            request_timeout: Time limit of the call in seconds. Default: the client's, at least 60. None: no limit.
        """
        try:
            self._write(b"", request_timeout, close=True)
        except ResourceStateError as failure:
            if failure.reason not in _EXITED_REASONS:  # These mean that it is closed, perhaps by this call itself.
                raise

    def signal(self, signal: int, *, tree: bool = False, request_timeout: Timeout = UNSET) -> None:
        """Send a signal to the process. The call is not retried.

        Args:
            signal: The number of the signal, 1 to 64.
            tree: Whether to send the signal to all descendants of the process too.
            request_timeout: Time limit of the call in seconds. Default: the client's. None: no limit.

        Raises:
            ResourceStateError: The process exited (PROCESS_EXITED).
        """
        self._transport.call(
            processes.signal_process(self._reader.sandbox_id, self.process_id, signal, tree, request_timeout)
        )

    def kill(self, *, request_timeout: Timeout = UNSET) -> None:
        """Kill the process with all its descendants, and wait until they have exited. A second call does nothing.

        Args:
            request_timeout: Time limit of the call in seconds. Default: the client's. None: no limit.
        """
        self._transport.call(processes.kill_process(self._reader.sandbox_id, self.process_id, request_timeout))

    def resize(self, rows: int, cols: int, *, request_timeout: Timeout = UNSET) -> None:
        """Change the size of the terminal.

        Args:
            rows: The number of rows.
            cols: The number of columns.
            request_timeout: Time limit of the call in seconds. Default: the client's. None: no limit.

        Raises:
            ResourceStateError: The process has no terminal (NO_TERMINAL), or it exited (PROCESS_EXITED).
        """
        size = TerminalSize(rows, cols)
        self._transport.call(processes.resize_process(self._reader.sandbox_id, self.process_id, size, request_timeout))

    def detach(self) -> None:
        """Detach from the process, which keeps running. A loop that iterates over this handle ends."""
        self._detached = True
        if self._cancel is not None:
            self._cancel()

    def _opened(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        if self._detached:
            cancel()

    def _write(self, data: bytes, timeout: Timeout, *, close: bool) -> None:
        reader = self._reader
        parts = processes.parts(data)
        with self._stdin_lock:
            for number, part in enumerate(parts, 1):
                last = close and number == len(parts)
                self._stdin_offset = self._transport.call(
                    processes.write_input(reader.sandbox_id, self.process_id, part, self._stdin_offset, last, timeout)
                )

    def _pause(self, failure: SandboxConnectionError) -> None:
        pause = self._reader.pause(self._transport.retry, failure.retry_after)
        if pause is None:
            raise failure
        self._transport.pause(pause)


def run_to_exit(
    transport: Transport,
    request: process_service_pb2.StartProcessRequest,
    timeout: float | None,
    stdin: bytes | None = None,
    on_stdout: OnOutput | None = None,
    on_stderr: OnOutput | None = None,
) -> CommandResult:
    """Start a process and wait until it has exited. Kill it if the caller stops waiting, or if a callback fails."""
    reader = reader_for(request, command_timeout=timeout)
    process = Process(transport, reader)
    writer: Background | None = None
    try:
        if stdin is not None:
            reader.process = transport.call(processes.start_process(request, UNSET))
            writer = Background(partial(_feed, process, stdin), f"sandpool stdin {process.process_id}")
        result = process.wait(on_stdout=on_stdout, on_stderr=on_stderr)
        if writer is not None:
            writer.wait()
    except ClientClosedError:
        if writer is not None:
            writer.wait()  # An error of the writer detaches the process. Raise that error.
        raise
    except BaseException as failure:
        if writer is not None:
            writer.discard()
        if not isinstance(failure, SandpoolError):
            with suppress(SandpoolError):
                transport.call(processes.kill_process(request.sandbox_id, request.process_id, _KILL_TIMEOUT))
        raise
    return result


def _feed(process: Process, data: bytes) -> None:
    """Write all data to the standard input and close it. Stop if the process exits before it has read all data."""
    try:
        with suppress(ResourceStateError):
            process.write_stdin(data, request_timeout=None)
        process.close_stdin()
    except SandpoolError:
        process.detach()
        raise


def start(
    transport: Transport,
    request: process_service_pb2.StartProcessRequest,
    timeout: Timeout,
    result_bytes: int = RESULT_BYTES,
) -> Process:
    """Start a process and return its handle when it runs."""
    reader = reader_for(request, result_bytes)
    reader.process = transport.call(processes.start_process(request, timeout))
    return Process(transport, reader)


def reader_for(
    request: process_service_pb2.StartProcessRequest,
    result_bytes: int = RESULT_BYTES,
    command_timeout: float | None = None,
) -> OutputReader:
    """Return the reader of a process that is to be started."""
    return OutputReader(
        request.sandbox_id,
        request.process_id,
        time.monotonic,
        start=request,
        result_bytes=result_bytes,
        command_timeout=command_timeout,
    )


def attach(
    transport: Transport,
    sandbox_id: str,
    process_id: str,
    stdout_offset: int,
    stderr_offset: int,
    timeout: Timeout,
    result_bytes: int = RESULT_BYTES,
) -> Process:
    """Return a handle of an existing process. Raise ProcessNotFoundError if it does not exist."""
    info = transport.call(processes.get_process(sandbox_id, process_id, timeout))
    reader = OutputReader(
        sandbox_id,
        info.process_id,
        time.monotonic,
        stdout_offset=stdout_offset,
        stderr_offset=stderr_offset,
        result_bytes=result_bytes,
    )
    reader.process = info
    return Process(transport, reader, info.stdin_bytes)
