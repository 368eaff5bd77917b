# Code generated from _async/sandbox.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The handle of one sandbox."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import TracebackType

from typing_extensions import Self, Unpack

from sandpool._core import monitor, sandboxes
from sandpool._core.arguments import UNSET, Timeout, reject
from sandpool._core.monitor import LogReader
from sandpool._core.options import SandboxChanges, expand_options
from sandpool._core.processes import ProcessDraft
from sandpool._models.enums import SandboxState, StartType
from sandpool._models.monitor import LogEntry, SandboxMetrics
from sandpool._models.sandbox import CommandResult, SandboxInfo
from sandpool._sync.connection import Connection
from sandpool._sync.files import Files
from sandpool._sync.logs import read_logs
from sandpool._sync.ports import Ports
from sandpool._sync.process import run_to_exit
from sandpool._sync.processes import Processes
from sandpool._sync.resumption import resumed
from sandpool._sync.terminals import Terminals
from sandpool._transport.threads import OnOutput, Transport
from sandpool.errors import ResourceNotFoundError, SandpoolError

_log = logging.getLogger("sandpool")
_IDLE_TIMEOUT = 300.0
"""How long a command of `run` keeps running without this client, in seconds."""


class Sandbox:
    """A handle of a sandbox, which runs commands in it and manages it.

    As a context manager, the handle deletes the sandbox at the end of the block if this client created it. A sandbox
    from `get_sandbox` or `list_sandboxes` keeps running. The attributes contain the last known state; `refresh` reads
    it again.

    `request_timeout` is the time limit of the call with its retries in seconds; the default is the one of the client,
    and None means no limit.
    """

    def __init__(self, info: SandboxInfo, transport: Transport, *, created: bool) -> None:
        self._info = info
        self._connection = Connection(info.sandbox_id, transport)
        self._created = created

    def __enter__(self) -> Self:
        _ = self._connection.transport  # This raises ClientClosedError if the handle is closed.
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._created or self._connection.closed:
            self.close()
            return
        try:
            self.delete()
        except ResourceNotFoundError:
            self.close()  # The sandbox terminated earlier, and its retention time passed.
        except SandpoolError as failure:
            if error is None:
                raise
            # The error of the block is more important than this one.
            _log.warning("sandbox %s was not deleted: %s", self.sandbox_id, failure)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.sandbox_id}{name} {self.state}>"

    @property
    def sandbox_id(self) -> str:
        """The identifier that the server assigned."""
        return self._info.sandbox_id

    @property
    def name(self) -> str | None:
        """The name that the caller chose, or None."""
        return self._info.name

    @property
    def state(self) -> SandboxState:
        """The last known state."""
        return self._info.state

    @property
    def start_type(self) -> StartType | None:
        """Whether the sandbox started warm or cold, or None while it is starting."""
        return self._info.start_type

    @property
    def info(self) -> SandboxInfo:
        """The last known description."""
        return self._info

    @cached_property
    def files(self) -> Files:
        """The files of the sandbox."""
        return Files(self._connection)

    @cached_property
    def processes(self) -> Processes:
        """The processes and services of the sandbox."""
        return Processes(self._connection)

    @cached_property
    def terminals(self) -> Terminals:
        """The terminals of the sandbox."""
        return Terminals(self._connection)

    @cached_property
    def ports(self) -> Ports:
        """The ports of the sandbox."""
        return Ports(self._connection)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = sandboxes.COMMAND_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: str | bytes | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        resumable: bool = True,
    ) -> CommandResult:
        """Run a command and wait until it has exited.

        The command survives a network failure and a restart of the server: the client resumes its output at the last
        received byte, and never starts it twice. If the caller stops waiting, the command is killed. To start a command
        without waiting, use `processes.start`.

        Args:
            command: A shell command, run by /bin/bash or /bin/sh, or a list of the program and its arguments.
            timeout: Time limit of the command in seconds, 0.001 to 86,400. It is then killed with all its descendants,
                and `CommandResult.timed_out` is True. Default: 60. None: no limit.
            env: Environment variables, which override those of the sandbox.
            cwd: The working directory, an absolute path. Default: that of the image.
            user: The user that runs the command, for example `nobody` or `1000:1000`. Default: that of the image.
            stdin: The standard input. Text is encoded as UTF-8. Default: it is empty.
            on_stdout: Receives standard output as text, as it arrives.
            on_stderr: Receives standard error as text, as it arrives.
            resumable: With False, the client sends one request and receives one response with at most 1 MiB per stream.
                This is slightly faster for a short command. If the connection breaks, the command is killed. `timeout`
                None means 24 hours then.

        Returns:
            The output, at most 64 MiB per stream, and how the command exited. An exit code other than 0 raises no
            error; see `CommandResult.success`.

        Raises:
            TypeError: With `resumable=False`: `stdin`, `on_stdout` or `on_stderr` is given.
            SandboxNotReadyError: The sandbox is not running.
            ResourceStateError: The command cannot be started: the program, the directory or the user does not exist.
            SandboxConnectionError: The server or the sandbox did not respond for 60 s. With `resumable=False`: the
                connection broke, and the command may have run.
            CommandTimeoutError: The result was not received within 70 s after the timeout of the command, with
                `resumable=False` within 10 s.
        """
        if not resumable:
            reject("it requires resumable=True", stdin=stdin, on_stdout=on_stdout, on_stderr=on_stderr)
            return self._connection.transport.call(
                sandboxes.run_command(self.sandbox_id, command, timeout=timeout, env=env, cwd=cwd, user=user)
            )
        draft = ProcessDraft(
            command,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin is not None,
            timeout=timeout,
            idle_timeout=_IDLE_TIMEOUT,
        )
        data = stdin.encode() if isinstance(stdin, str) else stdin
        return run_to_exit(
            self._connection.transport, draft.request(self.sandbox_id), timeout, data, on_stdout, on_stderr
        )

    def logs(
        self,
        *,
        sources: Iterable[str] | None = None,
        tail: int | None = None,
        since: datetime | None = None,
        after_sequence: int = 0,
        follow: bool = False,
        timeout: float | None = None,
    ) -> Generator[LogEntry, None, None]:
        """Iterate over the log lines of the entrypoint and of the services, oldest first.

        The sandbox retains the most recent 1 MiB. `LogEntry.dropped_entries` is the number of missing entries. After a
        broken connection, the iterator continues after the last received entry.

        Args:
            sources: Only lines of these sources: "entrypoint" or names of services. Default: all.
            tail: Only this number of the most recent existing lines. Default: all.
            since: Only lines that were written at or after this time, an aware datetime. Default: all.
            after_sequence: Only entries with a greater `LogEntry.sequence`. Default: all.
            follow: Whether to continue with new lines until the sandbox terminates.
            timeout: Time limit of the iteration in seconds. It then raises ResourceTimeoutError. Default: no limit.
        """
        reader = LogReader(self.sandbox_id, sources, tail, since, after_sequence, follow)
        return read_logs(self._connection.transport, reader, timeout)

    def metrics(self, *, request_timeout: Timeout = UNSET) -> SandboxMetrics:
        """Return the current resource usage of the sandbox.

        Args:
            request_timeout: Time limit of the call in seconds.
        """
        return self._connection.transport.call(monitor.get_metrics(self.sandbox_id, request_timeout))

    def watch_metrics(
        self, *, interval: float | None = None, timeout: float | None = None
    ) -> Generator[SandboxMetrics, None, None]:
        """Iterate over measurements of the resource usage, one per interval. It continues after a broken connection.

        Args:
            interval: Seconds between two measurements, 0.1 to 3,600. Default: 1.
            timeout: Time limit of the iteration in seconds. It then raises ResourceTimeoutError. Default: no limit.
        """
        return resumed(
            self._connection.transport,
            lambda left: monitor.watch_metrics(self.sandbox_id, interval, left),
            timeout,
        )

    def refresh(self, *, request_timeout: Timeout = UNSET) -> SandboxInfo:
        """Read the state of the sandbox from the server, and update the attributes of this handle.

        Args:
            request_timeout: Time limit of the call in seconds.

        Raises:
            SandboxNotFoundError: The sandbox terminated, and its retention time passed.
        """
        self._info = self._connection.transport.call(sandboxes.get_sandbox(self.sandbox_id, request_timeout))
        return self._info

    @expand_options(SandboxChanges)
    def update(self, **changes: Unpack[SandboxChanges]) -> SandboxInfo:
        """Update the sandbox, and the attributes of this handle. Arguments that are not given leave a field unchanged.

        Args:
            name: The new name. None removes the name.
            metadata: The new labels, which replace the previous ones. None removes all.
            timeout_secs: The new lifetime in seconds, counted from the claim. 0 or None: no limit.
            etag: The expected etag. Default: update unconditionally.
            request_id: Identifies the request, so that a retry has no further effect. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: No field is given.
            ResourceStateError: The sandbox is terminated.
            ResourceAlreadyExistsError: The name is in use.
            ConflictError: The etag is not current.
        """
        self._info = self._connection.transport.call(sandboxes.update_sandbox("update", self.sandbox_id, changes))
        return self._info

    def watch(self, *, timeout: float | None = None) -> Generator[SandboxInfo, None, None]:
        """Iterate over the current state of the sandbox and each change, until the sandbox is terminated.

        The iterator continues after a broken connection. The attributes of this handle do not change.

        Args:
            timeout: Time limit of the watch in seconds. It then raises ResourceTimeoutError. Default: no limit.
        """
        return resumed(self._connection.transport, lambda left: sandboxes.watch_sandbox(self.sandbox_id, left), timeout)

    def delete(self, *, request_id: str | None = None, request_timeout: Timeout = UNSET) -> None:
        """Delete the sandbox. Its container is removed and never reused. Deleting a terminated sandbox does nothing.

        Args:
            request_id: Identifies the request, so that a retry has no further effect. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.
        """
        self._info = self._connection.transport.call(
            sandboxes.delete_sandbox(self.sandbox_id, request_id, request_timeout)
        )

    def close(self) -> None:
        """Close the handle. The sandbox keeps running; `delete` deletes it."""
        self._connection.close()
