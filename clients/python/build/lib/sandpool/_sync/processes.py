# Made from _async/processes.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The handle's methods about processes."""

from __future__ import annotations

import builtins
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from sandpool._core import processes
from sandpool._core.enums import OutputStream, ProcessState, StdinMode
from sandpool._core.following import Following
from sandpool._core.inside import HealthCheck, OutputChunk, ProcessInfo, ProcessOutput, TerminalSize
from sandpool._core.processes import OverflowLike, RestartLike, Start, StdinLike
from sandpool._sync.base import HandleBase
from sandpool._sync.command import CommandHandle
from sandpool.errors import ProcessNotFoundError

ProcessRef = str | int
"""A process's identifier, a service's name, or a process id in the sandbox."""


class ProcessMethods(HandleBase):
    """Processes and services in a sandbox.

    `process` takes a process's identifier or a service's name; a number, there or as `pid`, is the process id in the
    sandbox. All raise ProcessNotFoundError where there is none.
    """

    def start_process(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        *,
        stdin_mode: StdinLike = StdinMode.CLOSED,
        user: str | None = None,
        name: str | None = None,
        restart: RestartLike | None = None,
        health_check: HealthCheck | None = None,
        process_id: str | None = None,
        terminal: TerminalSize | None = None,
        timeout_secs: float | None = None,
        idle_timeout: float | None = None,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = None,
        output_buffer_bytes: int | None = None,
        output_overflow: OverflowLike | None = None,
        timeout: float | None = None,
    ) -> ProcessInfo:
        """Start a process and answer at once. It runs until it ends, whoever is connected.

        Args:
            command: A line for the shell, or a list of the program and its arguments.
            args: With a `command` that is one string: that is the program, and these are its arguments.
            env: Environment variables over those of the sandbox.
            working_dir: An absolute path; the image's by default.
            stdin_mode: "pipe" lets its standard input be written to; "closed" (the default) is an empty one.
            user: Who runs it, such as `nobody` or `1000:1000`; the image's by default.
            name: Makes it a service of this name, whose lines are in the sandbox's log.
            restart: When the service is started again: "never" (the default), "on_failure", "always".
            health_check: How the sandbox finds out whether the service is well.
            process_id: A name of the caller's for this process. With that of one that there is already, nothing is
                started and that one is answered, so the call can be repeated.
            terminal: Run it on a terminal of this size.
            timeout_secs: Seconds it may run; no limit by default.
            idle_timeout: Seconds it may run while no client follows it; no limit by default.
            kill_on_disconnect: Kill it as soon as the last client that followed it has left.
            ttl_seconds: How long its record and its output stay after its end; 600 by default.
            output_buffer_bytes: How much of each stream is kept; 1 MiB by default.
            output_overflow: What happens when more is printed: "wait_attached" (the default), "drop_oldest", "wait".
            timeout: Seconds for this call; the client's by default.

        Raises:
            ResourceStateError: The command cannot be run: no such program, directory or user.
            ResourceAlreadyExistsError: The `process_id` stands for a process that was started differently.
        """
        request = Start(
            command,
            args,
            process_id=process_id,
            env=env,
            working_dir=working_dir,
            user=user,
            stdin=StdinMode(stdin_mode) is StdinMode.PIPE,
            terminal=terminal,
            timeout_secs=timeout_secs,
            idle_timeout_secs=idle_timeout,
            kill_on_disconnect=kill_on_disconnect,
            ttl_secs=ttl_seconds,
            output_buffer_bytes=output_buffer_bytes,
            output_overflow=output_overflow,
            name=name,
            restart=restart,
            health_check=health_check,
        ).request(self.sandbox_id)
        return self._transport.call(processes.start_process(request, timeout))

    def list_processes(
        self,
        *,
        states: Iterable[ProcessState | str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> builtins.list[ProcessInfo]:
        """All processes that were started here, oldest first, those that ended a while ago included.

        With `states` only those; they are read in pages of `page_size`, 100 by default; `timeout` is a page's.
        """
        wanted = None if states is None else builtins.list(states)
        return self._transport.pages(
            lambda token: processes.list_processes(self.sandbox_id, wanted, page_size, token, timeout)
        )

    def get_process(
        self, process: ProcessRef | None = None, *, pid: int | None = None, timeout: float | None = None
    ) -> ProcessInfo:
        """One process, also one that ended a while ago."""
        process_id = self._process_id(process, pid)
        return self._transport.call(processes.get_process(self.sandbox_id, process_id, timeout))

    def kill_process(
        self, process: ProcessRef | None = None, *, pid: int | None = None, timeout: float | None = None
    ) -> None:
        """Kill a process with every process that it started; returns when they are gone."""
        process_id = self._process_id(process, pid)
        self._transport.call(processes.kill_process(self.sandbox_id, process_id, timeout))

    def restart_process(
        self, process: ProcessRef | None = None, *, pid: int | None = None, timeout: float | None = None
    ) -> ProcessInfo:
        """Kill a service's present run, if there is one, and start the next at once. It is sent once."""
        process_id = self._process_id(process, pid)
        return self._transport.call(processes.restart_process(self.sandbox_id, process_id, timeout))

    def send_signal(
        self,
        process: ProcessRef | None = None,
        signal: int = 15,
        *,
        pid: int | None = None,
        tree: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a signal by number to a process, with `tree` also to every process that it started. It is sent once."""
        process_id = self._process_id(process, pid)
        call = processes.signal_process(self.sandbox_id, process_id, int(signal), tree, timeout)
        self._transport.call(call)

    def write_stdin(
        self,
        process: ProcessRef | None = None,
        data: str | bytes = b"",
        *,
        pid: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Write to a process's standard input; waits until it has taken all.

        Raises ResourceStateError (STDIN_CLOSED) where it has no open standard input. It is not repeated when the
        connection breaks: a handle's `send_input` is.
        """
        process_id = self._process_id(process, pid)
        content = data.encode() if isinstance(data, str) else data
        for part in processes.parts(content):
            self._transport.call(processes.write_input(self.sandbox_id, process_id, part, None, False, timeout))

    def close_stdin(
        self, process: ProcessRef | None = None, *, pid: int | None = None, timeout: float | None = None
    ) -> None:
        """Say that a process's standard input ends here."""
        process_id = self._process_id(process, pid)
        self._transport.call(processes.write_input(self.sandbox_id, process_id, b"", None, True, timeout))

    def get_output(self, process: ProcessRef | None = None, *, pid: int | None = None) -> ProcessOutput:
        """What is kept of what a process printed so far. Does not wait for more."""
        process_id = self._process_id(process, pid)
        info = self._transport.call(processes.get_process(self.sandbox_id, process_id))
        kept = {OutputStream.STDOUT: bytearray(), OutputStream.STDERR: bytearray()}
        following = self._following(process_id, info.stdout.begin, info.stderr.begin)
        if info.stdout.end > info.stdout.begin or info.stderr.end > info.stderr.begin:
            with closing(self._chunks(following)) as chunks:
                for chunk in chunks:
                    kept[chunk.stream] += chunk.raw
                    if following.stdout_offset >= info.stdout.end and following.stderr_offset >= info.stderr.end:
                        break
        out, err = bytes(kept[OutputStream.STDOUT]), bytes(kept[OutputStream.STDERR])
        return ProcessOutput(
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            stdout_bytes=out,
            stderr_bytes=err,
            stdout_offset=following.stdout_offset,
            stderr_offset=following.stderr_offset,
            lost_bytes=following.stdout_offset - len(out) + following.stderr_offset - len(err),
        )

    def get_stdout(self, process: ProcessRef | None = None, *, pid: int | None = None) -> ProcessOutput:
        """The same for standard output alone."""
        found = self.get_output(process, pid=pid)
        return replace(found, stderr="", stderr_bytes=b"")

    def get_stderr(self, process: ProcessRef | None = None, *, pid: int | None = None) -> ProcessOutput:
        """The same for standard error alone."""
        found = self.get_output(process, pid=pid)
        return replace(found, stdout="", stdout_bytes=b"")

    def follow_output(
        self,
        process: ProcessRef | None = None,
        *,
        pid: int | None = None,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
    ) -> Generator[OutputChunk, None, None]:
        """What a process printed from these offsets on and prints from now on, until its end; -1: from now on.

        It goes on over a broken connection, as a handle does: see `reconnect`.
        """
        process_id = self._process_id(process, pid)
        following = self._following(process_id, stdout_offset, stderr_offset)
        with closing(self._chunks(following)) as chunks:
            for chunk in chunks:
                yield chunk

    def follow_stdout(
        self, process: ProcessRef | None = None, *, pid: int | None = None, offset: int = 0
    ) -> Generator[OutputChunk, None, None]:
        """What a process prints to its standard output: see `follow_output`."""
        with closing(self.follow_output(process, pid=pid, stdout_offset=offset)) as chunks:
            for chunk in chunks:
                if chunk.stream is OutputStream.STDOUT:
                    yield chunk

    def follow_stderr(
        self, process: ProcessRef | None = None, *, pid: int | None = None, offset: int = 0
    ) -> Generator[OutputChunk, None, None]:
        """What a process prints to its standard error: see `follow_output`."""
        with closing(self.follow_output(process, pid=pid, stderr_offset=offset)) as chunks:
            for chunk in chunks:
                if chunk.stream is OutputStream.STDERR:
                    yield chunk

    def _chunks(self, following: Following) -> Generator[OutputChunk, None, None]:
        return iter(CommandHandle(self._transport, following))

    def _following(self, process_id: str, stdout_offset: int, stderr_offset: int) -> Following:
        return Following(
            self.sandbox_id,
            process_id,
            time.monotonic,
            stdout_offset=stdout_offset,
            stderr_offset=stderr_offset,
            kept_bytes=0,  # whoever iterates keeps what it wants
        )

    def _process_id(self, process: ProcessRef | None, pid: int | None) -> str:
        """The process's identifier. Raises TypeError unless exactly one of the two is given."""
        if (process is None) == (pid is None):
            raise TypeError("give either the process, by identifier or name, or pid")
        if isinstance(process, str):
            return process
        wanted = pid if process is None else process
        for info in self.list_processes(states=[ProcessState.RUNNING]):
            if info.pid == wanted:
                return info.process_id
        raise ProcessNotFoundError(
            f"no running process of sandbox {self.sandbox_id} has the process id {wanted}",
            reason="PROCESS_NOT_FOUND",
            resource_type="process",
            resource_name=str(wanted),
        )
