# Code generated from _async/processes.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The processes of a sandbox."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing

from sandpool._core import processes
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.output_stream import OutputReader
from sandpool._core.processes import OutputOverflowValue, ProcessDraft, RestartPolicyValue
from sandpool._models.enums import OutputStream, ProcessState
from sandpool._models.process import HealthCheck, OutputChunk, ProcessInfo, ProcessOutput, TerminalSize
from sandpool._sync.connection import Connection
from sandpool._sync.process import Process, attach, start


class Processes:
    """The processes and services of a sandbox.

    `process_id` accepts the identifier of a process or the name of a service. All methods with a `process_id` raise
    ProcessNotFoundError if the process does not exist. `request_timeout` is the time limit of the call with its retries
    in seconds; the default is the one of the client, and None means no limit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection.sandbox_id}>"

    def start(
        self,
        command: str | Sequence[str],
        *,
        process_id: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bool = False,
        terminal: TerminalSize | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        kill_on_disconnect: bool = False,
        retention: float | None = None,
        output_buffer_bytes: int | None = None,
        output_overflow: OutputOverflowValue | None = None,
        name: str | None = None,
        restart_policy: RestartPolicyValue | None = None,
        health_check: HealthCheck | None = None,
        request_timeout: Timeout = UNSET,
    ) -> Process:
        """Start a process and return its handle when it runs.

        Args:
            command: A shell command, run by /bin/bash or /bin/sh, or a list of the program and its arguments.
            process_id: The identifier of the process. If a process with this identifier was started by an equal
                request, that process is returned. Default: a generated identifier.
            env: Environment variables, which override those of the sandbox.
            cwd: The working directory, an absolute path. Default: that of the image.
            user: The user that runs the process, for example `nobody` or `1000:1000`. Default: that of the image.
            stdin: Whether standard input accepts data. Default: it is empty.
            terminal: Run the process on a terminal of this size. A terminal always accepts input.
            timeout: Time limit of the process in seconds. It is then killed with all its descendants. Default: no
                limit.
            idle_timeout: Time limit without an attached client in seconds. Default: no limit.
            kill_on_disconnect: Whether to kill the process when its last client detaches.
            retention: How long the record and the output are retained after the exit, in seconds. Default: 600.
            output_buffer_bytes: The number of bytes that are buffered for each stream. Default: 1 MiB.
            output_overflow: Behaviour when the buffer is full: "wait_attached" (default), "drop_oldest" or "wait".
            name: Makes the process a service with this name. Its output is part of the sandbox's log.
            restart_policy: When the service is restarted: "never" (default), "on_failure" or "always".
            health_check: The health check of the service.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: `restart_policy` or `health_check` is given without `name`.
            ResourceStateError: The command cannot be started: the program, the directory or the user does not exist.
            ResourceAlreadyExistsError: The `process_id` belongs to a process that was started by another request.
        """
        draft = ProcessDraft(
            command,
            process_id=process_id,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            terminal=terminal,
            timeout=timeout,
            idle_timeout=idle_timeout,
            kill_on_disconnect=kill_on_disconnect,
            retention=retention,
            output_buffer_bytes=output_buffer_bytes,
            output_overflow=output_overflow,
            name=name,
            restart_policy=restart_policy,
            health_check=health_check,
        )
        connection = self._connection
        return start(connection.transport, draft.request(connection.sandbox_id), request_timeout)

    def attach(
        self,
        process_id: str,
        *,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        request_timeout: Timeout = UNSET,
    ) -> Process:
        """Return a handle of a running or exited process, started by this client or another one.

        Args:
            process_id: The process.
            stdout_offset: The offset of the first byte of standard output to read, or -1 for output from now on.
            stderr_offset: The offset of the first byte of standard error to read, or -1 for output from now on.
            request_timeout: Time limit of the call in seconds.
        """
        connection = self._connection
        return attach(
            connection.transport, connection.sandbox_id, process_id, stdout_offset, stderr_offset, request_timeout
        )

    def get(self, process_id: str, *, request_timeout: Timeout = UNSET) -> ProcessInfo:
        """Return the description of a process. Exited processes exist until their retention time passes."""
        connection = self._connection
        return connection.transport.call(processes.get_process(connection.sandbox_id, process_id, request_timeout))

    def list(
        self,
        *,
        states: Iterable[ProcessState | str] | None = None,
        page_size: int | None = None,
        request_timeout: Timeout = UNSET,
    ) -> Generator[ProcessInfo, None, None]:
        """Iterate over the processes of the sandbox, oldest first. Pages are read as they are needed.

        Args:
            states: Only processes in these states. Default: all.
            page_size: The number of processes per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        first = processes.list_request(self._connection.sandbox_id, states, page_size)
        return self._connection.transport.pages(lambda token: processes.list_processes(first, token, request_timeout))

    def kill(self, process_id: str, *, request_timeout: Timeout = UNSET) -> None:
        """Kill a process with all its descendants, and wait until they have exited.

        A killed service is not restarted.
        """
        connection = self._connection
        connection.transport.call(processes.kill_process(connection.sandbox_id, process_id, request_timeout))

    def signal(self, process_id: str, signal: int, *, tree: bool = False, request_timeout: Timeout = UNSET) -> None:
        """Send a signal to a process. The call is not retried.

        Args:
            process_id: The process.
            signal: The number of the signal, 1 to 64.
            tree: Whether to send the signal to all descendants of the process too.
            request_timeout: Time limit of the call in seconds.

        Raises:
            ResourceStateError: The process exited (PROCESS_EXITED).
        """
        connection = self._connection
        connection.transport.call(
            processes.signal_process(connection.sandbox_id, process_id, signal, tree, request_timeout)
        )

    def restart(self, process_id: str, *, request_timeout: Timeout = UNSET) -> ProcessInfo:
        """Kill the current run of a service, if one exists, and start the next one. The call is not retried.

        Raises:
            ResourceStateError: The process is not a service (NOT_A_SERVICE).
        """
        connection = self._connection
        return connection.transport.call(processes.restart_process(connection.sandbox_id, process_id, request_timeout))

    def write_stdin(self, process_id: str, data: str | bytes, *, request_timeout: Timeout = UNSET) -> None:
        """Write to the standard input of a process, and wait until the process has accepted all bytes.

        The call is not retried after a broken connection. `Process.write_stdin` is.

        Args:
            process_id: The process.
            data: The bytes to write. Text is encoded as UTF-8.
            request_timeout: Time limit of each call, which writes at most 1 MiB, in seconds. Default: the client's, at
                least 60. None: no limit.

        Raises:
            ResourceStateError: Standard input is closed (STDIN_CLOSED).
        """
        connection = self._connection
        for part in processes.parts(data.encode() if isinstance(data, str) else data):
            connection.transport.call(
                processes.write_input(connection.sandbox_id, process_id, part, None, False, request_timeout)
            )

    def close_stdin(self, process_id: str, *, request_timeout: Timeout = UNSET) -> None:
        """Close the standard input of a process. The call is not retried."""
        connection = self._connection
        connection.transport.call(
            processes.write_input(connection.sandbox_id, process_id, b"", None, True, request_timeout)
        )

    def output(self, process_id: str, *, request_timeout: Timeout = UNSET) -> ProcessOutput:
        """Return the output of a process that is buffered now. This does not wait for more output."""
        info = self.get(process_id, request_timeout=request_timeout)
        found = {OutputStream.STDOUT: bytearray(), OutputStream.STDERR: bytearray()}
        dropped = {
            OutputStream.STDOUT: info.stdout.start_offset,
            OutputStream.STDERR: info.stderr.start_offset,
        }
        reader = self._reader(info.process_id, info.stdout.start_offset, info.stderr.start_offset)
        out_end, err_end = info.stdout.end_offset, info.stderr.end_offset
        if reader.stdout_offset < out_end or reader.stderr_offset < err_end:
            with closing(iter(Process(self._connection.transport, reader))) as chunks:
                for chunk in chunks:
                    found[chunk.stream] += chunk.data_bytes
                    dropped[chunk.stream] += chunk.dropped_bytes
                    if reader.stdout_offset >= out_end and reader.stderr_offset >= err_end:
                        break
        out, err = bytes(found[OutputStream.STDOUT]), bytes(found[OutputStream.STDERR])
        return ProcessOutput(
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            stdout_bytes=out,
            stderr_bytes=err,
            stdout_offset=reader.stdout_offset,
            stderr_offset=reader.stderr_offset,
            stdout_dropped_bytes=dropped[OutputStream.STDOUT],
            stderr_dropped_bytes=dropped[OutputStream.STDERR],
        )

    def follow(
        self, process_id: str, *, stdout_offset: int = 0, stderr_offset: int = 0
    ) -> Generator[OutputChunk, None, None]:
        """Iterate over the output of a process as it arrives, until the process exits.

        After a broken connection, the iterator resumes the output at the last received byte.

        Args:
            process_id: The process.
            stdout_offset: The offset of the first byte of standard output to read, or -1 for output from now on.
            stderr_offset: The offset of the first byte of standard error to read, or -1 for output from now on.
        """
        reader = self._reader(process_id, stdout_offset, stderr_offset)
        return iter(Process(self._connection.transport, reader))

    def _reader(self, process_id: str, stdout_offset: int, stderr_offset: int) -> OutputReader:
        return OutputReader(
            self._connection.sandbox_id,
            process_id,
            time.monotonic,
            stdout_offset=stdout_offset,
            stderr_offset=stderr_offset,
            result_bytes=0,  # The caller keeps the output that it needs.
        )
