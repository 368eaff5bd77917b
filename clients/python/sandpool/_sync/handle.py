# Made from _async/handle.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The handle of one sandbox."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from types import TracebackType

from sandpool._core import sandboxes
from sandpool._core.arguments import UNSET, Maybe, one_of
from sandpool._core.model import CommandResult, SandboxInfo
from sandpool._core.view import SandboxView
from sandpool._io.blocking import Transport
from sandpool.errors import ClientClosedError, ResourceNotFoundError, SandpoolError

_log = logging.getLogger("sandpool")


class Sandbox(SandboxView):
    """A sandbox: run commands in it, and end it.

    As a context manager it is deleted at the end of the block when this client created it; one that was looked up
    (`get_sandbox`, `list_sandboxes`) keeps running. The attributes say what the handle heard last; `refresh()` asks.
    """

    def __init__(self, info: SandboxInfo, transport: Transport, *, created: bool) -> None:
        super().__init__(info)
        self._transport = transport
        self._created = created
        self._closed = False

    def __enter__(self) -> Sandbox:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._created or self._closed:
            self.close()
            return
        try:
            self.delete()
        except ResourceNotFoundError:
            self.close()  # it ended long ago: what was to be reached
        except SandpoolError as failure:
            if error is None:
                raise
            # The block's own error matters more than this one.
            _log.warning("sandbox %s was not deleted: %s", self.sandbox_id, failure)

    def run(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        *,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        working_dir: str | None = None,
        user: str | None = None,
    ) -> CommandResult:
        """Run a command and wait until it has ended.

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

        Returns:
            What it printed and how it ended. An exit code other than 0 is no error: see `CommandResult.success`.

        Raises:
            SandboxNotReadyError: The sandbox is not running.
            ResourceStateError: The command cannot be run: no such program, directory or user.
            SandboxConnectionError: The server or the sandbox does not answer. The command may have run; it is never
                sent again by itself.
            CommandTimeoutError: No answer in time, more than ten seconds after the command's own timeout.
        """
        self._check_open()
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

    def refresh(self, *, timeout: float | None = None) -> SandboxInfo:
        """Ask the server how the sandbox is; the attributes say it from then on."""
        self._check_open()
        self._info = self._transport.call(sandboxes.get_sandbox(self.sandbox_id, timeout))
        return self._info

    def update(
        self,
        name: Maybe[str | None] = UNSET,
        *,
        new_name: Maybe[str | None] = UNSET,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> SandboxInfo:
        """Change name, metadata or lifetime: what is given, as in `SandboxClient.update_sandbox`."""
        self._check_open()
        fields = {
            "name": one_of(UNSET, name=name, new_name=new_name),
            "metadata": metadata,
            "timeout_secs": timeout_secs,
        }
        self._info = self._transport.call(sandboxes.update_sandbox(self.sandbox_id, fields, etag, timeout))
        return self._info

    def watch(self, *, timeout: float | None = None) -> Generator[SandboxInfo, None, None]:
        """The sandbox as it is and then after each change, until it has terminated."""
        self._check_open()
        return self._transport.stream(sandboxes.watch_sandbox(self.sandbox_id, timeout))

    def delete(self, *, timeout: float | None = None) -> None:
        """End the sandbox. Its container is removed and never used again; a second time does nothing more."""
        self._check_open()
        self._info = self._transport.call(sandboxes.delete_sandbox(self.sandbox_id, timeout))

    def terminate(self, *, timeout: float | None = None) -> None:
        """The same as `delete`."""
        self.delete(timeout=timeout)

    def close(self) -> None:
        """Let go of the handle. The sandbox keeps running; `delete` ends it."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError(f"the handle of sandbox {self.sandbox_id} is closed; get_sandbox makes another")
