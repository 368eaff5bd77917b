# Made from _async/running.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The handle's methods that run commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, overload

from sandpool._core import sandboxes
from sandpool._core.inside import TerminalSize
from sandpool._core.model import CommandResult
from sandpool._core.processes import Start
from sandpool._sync.base import HandleBase
from sandpool._sync.command import CommandHandle, OnOutput, follow, run_to_end, start

_IDLE_TIMEOUT = 300.0
_TTL_SECONDS = 600.0


class RunMethods(HandleBase):
    """Commands in a sandbox."""

    @overload
    def run(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        user: str | None = None,
        *,
        cwd: str | None = None,
        shell: str | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        wait: Literal[True] = True,
    ) -> CommandResult: ...

    @overload
    def run(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        user: str | None = None,
        *,
        cwd: str | None = None,
        shell: str | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        stdin: bool = True,
        wait: Literal[False],
    ) -> CommandHandle: ...

    def run(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        user: str | None = None,
        *,
        cwd: str | None = None,
        shell: str | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        stdin: bool | None = None,
        wait: bool = True,
    ) -> CommandResult | CommandHandle:
        """Run a command, and wait until it has ended or follow it.

        The command does not hang on the connection: where that breaks, or the server starts anew, the client takes the
        command up at the byte where it was. It is started once, however often that happens.

        Args:
            command: A line for the shell (/bin/bash, or /bin/sh), or a list of the program and its arguments, which
                needs no shell.
            args: With a `command` that is one string: that is the program, and these are its arguments.
            timeout: Seconds it may run, 0.001 to 86,400; None: 60. Then it is killed with every process that it has
                started, and the result says `timed_out`.
            env: Environment variables over those of the image.
            cwd: The working directory, an absolute path; the image's by default.
            working_dir: Another name of `cwd`.
            user: Who runs it, such as `nobody` or `1000:1000`; the image's by default.
            shell: Another shell for a line, such as `/bin/zsh`.
            on_stdout: Called with standard output as it comes, as text.
            on_stderr: The same for standard error.
            idle_timeout: Seconds it may run while no client follows it; then it is killed. None: no limit.
            kill_on_disconnect: Kill it as soon as no client follows it any more.
            ttl_seconds: How long its record and its output stay after its end.
            pty: Run it on a terminal of 24 lines and 80 columns; all that it prints is standard output then.
            stdin: With wait=False: whether its standard input can be written to. It is empty otherwise.
            wait: False gives a handle at once, to follow the command, to write to it and to kill it.

        Returns:
            What it printed and how it ended, up to 64 MiB of each stream. An exit code other than 0 is no error: see
            `CommandResult.success`. With wait=False a handle.

        Raises:
            TypeError: on_stdout or on_stderr with wait=False: iterate over the handle instead.
            SandboxNotReadyError: The sandbox is not running.
            ResourceStateError: The command cannot be run: no such program, directory or user.
            SandboxConnectionError: The server or the sandbox does not answer, for a minute if the command runs.
            CommandTimeoutError: Its end was not told, more than a minute after the command's own timeout.
        """
        if not wait and (on_stdout is not None or on_stderr is not None):
            raise TypeError("on_stdout and on_stderr go with wait=True; with wait=False iterate over the handle")
        if wait and stdin:
            raise TypeError("stdin goes with wait=False: nobody could write to it")
        request = Start(
            command,
            args,
            env=env,
            cwd=cwd,
            working_dir=working_dir,
            user=user,
            shell=shell,
            stdin=not wait and not pty and stdin is not False,
            terminal=TerminalSize() if pty else None,
            timeout_secs=sandboxes.COMMAND_TIMEOUT if timeout is None else timeout,
            idle_timeout_secs=idle_timeout,
            kill_on_disconnect=kill_on_disconnect,
            ttl_secs=ttl_seconds,
        ).request(self.sandbox_id)
        if wait:
            return run_to_end(self._transport, request, on_stdout, on_stderr)
        return start(self._transport, request)

    def run_once(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        user: str | None = None,
        *,
        cwd: str | None = None,
    ) -> CommandResult:
        """Run a short command in one call of one answer, which takes a little less than `run`.

        It hangs on the connection: where that breaks the command is killed, and it is never sent again. At most 1 MiB
        of each stream comes back. Arguments and errors as `run`.

        Raises:
            SandboxConnectionError: The server or the sandbox does not answer. The command may have run.
            CommandTimeoutError: No answer in time, more than ten seconds after the command's own timeout.
        """
        return self._transport.call(
            sandboxes.run_command(
                self.sandbox_id,
                command,
                args,
                timeout=timeout,
                env=env,
                cwd=cwd,
                working_dir=working_dir,
                user=user,
            )
        )

    def reconnect(self, command_id: str, *, stdout_offset: int = 0, stderr_offset: int = 0) -> CommandHandle:
        """A handle of a command that was started before, by this program or another.

        Args:
            command_id: The handle's `command_id`, or a process's identifier.
            stdout_offset: The first byte of standard output to read; -1: what is printed from now on.
            stderr_offset: The same for standard error.

        Raises:
            ResourceNotFoundError: There is no such command, or it ended so long ago that it is forgotten.
        """
        return follow(self._transport, self.sandbox_id, command_id, stdout_offset, stderr_offset)
