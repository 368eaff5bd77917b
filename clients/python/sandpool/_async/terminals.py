"""The terminals of a sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType

from sandpool._async.connection import Connection
from sandpool._async.process import AsyncProcess, attach, start
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.processes import ProcessDraft
from sandpool._models.process import TerminalSize
from sandpool._models.sandbox import CommandResult
from sandpool._transport.asyncio import Background, OnData, notify

_SHELL = 'exec "${SHELL:-/bin/sh}" -i'
_SIGNALED = 128
"""Shells add the number of the signal to this value."""


class AsyncTerminal:
    """A program on a terminal in a sandbox.

    The output is passed to `on_data` as it arrives. Without `on_data`, iterate over the terminal. As a context manager,
    it kills the program at the end of the block. After a broken connection, the output is resumed at the last received
    byte.
    """

    def __init__(self, process: AsyncProcess, on_data: OnData | None) -> None:
        self._process = process
        self._on_data = on_data
        self._reader: Background | None = None
        if on_data is not None:
            self._reader = Background(self._read, f"sandpool terminal {process.process_id}")

    async def __aenter__(self) -> AsyncTerminal:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        await self.detach()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.process_id}>"

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        if self._reader is not None:
            raise TypeError("the output is passed to on_data; to iterate over the terminal, do not give on_data")
        async with aclosing(aiter(self._process)) as chunks:
            async for chunk in chunks:
                if chunk.data_bytes:
                    yield chunk.data_bytes

    @property
    def process_id(self) -> str:
        """The identifier of the process. Pass it to `terminals.attach`."""
        return self._process.process_id

    @property
    def pid(self) -> int | None:
        """The process id (PID) inside the sandbox, or None while no run exists."""
        return self._process.pid

    async def write(self, data: str | bytes, *, request_timeout: Timeout = UNSET) -> None:
        """Write to the terminal, as a keyboard does.

        Args:
            data: The bytes to write. Text is encoded as UTF-8.
            request_timeout: Time limit of the call in seconds. Default: the client's, at least 60. None: no limit.

        Raises:
            ResourceStateError: The program exited (STDIN_CLOSED).
        """
        await self._process.write_stdin(data, request_timeout=request_timeout)

    async def resize(self, rows: int, cols: int, *, request_timeout: Timeout = UNSET) -> None:
        """Change the size of the terminal. The program receives the signal SIGWINCH.

        Args:
            rows: The number of rows.
            cols: The number of columns.
            request_timeout: Time limit of the call in seconds. Default: the client's. None: no limit.
        """
        await self._process.resize(rows, cols, request_timeout=request_timeout)

    async def kill(self, *, request_timeout: Timeout = UNSET) -> None:
        """Kill the program with all its descendants, and wait until they have exited.

        Args:
            request_timeout: Time limit of the call in seconds. Default: the client's. None: no limit.
        """
        await self._process.kill(request_timeout=request_timeout)

    async def wait(self) -> int:
        """Wait until the program has exited. Output that no `on_data` receives is dropped.

        Returns:
            The exit code, or 128 plus the number of the signal that terminated the program.
        """
        if self._reader is not None:
            await self._reader.wait()
        return _exit_code(await self._process.wait())

    async def detach(self) -> None:
        """Detach from the program, which keeps running. `terminals.attach` attaches again."""
        self._process.detach()
        if self._reader is not None:
            await self._reader.stop()

    async def _read(self) -> None:
        async with aclosing(aiter(self._process)) as chunks:
            async for chunk in chunks:
                if self._on_data is not None and chunk.data_bytes:
                    await notify(self._on_data, chunk.data_bytes)


def _exit_code(result: CommandResult) -> int:
    if result.exit_code is not None:
        return result.exit_code
    return _SIGNALED + (result.signal or 0)


class AsyncTerminals:
    """The terminals of a sandbox.

    `request_timeout` is the time limit of the call with its retries in seconds; the default is the one of the client,
    and None means no limit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection.sandbox_id}>"

    async def create(
        self,
        command: str | Sequence[str] | None = None,
        *,
        rows: int = 24,
        cols: int = 80,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        idle_timeout: float | None = None,
        on_data: OnData | None = None,
        request_timeout: Timeout = UNSET,
    ) -> AsyncTerminal:
        """Start a program on a terminal.

        Args:
            command: A shell command, or a list of the program and its arguments. Default: an interactive shell.
            rows: The number of rows of the terminal.
            cols: The number of columns of the terminal.
            env: Environment variables, which override those of the sandbox. TERM is xterm-256color by default.
            cwd: The working directory, an absolute path. Default: that of the image.
            user: The user that runs the program. Default: that of the image.
            timeout: Time limit of the program in seconds. It is then killed. Default: no limit.
            idle_timeout: Time limit without an attached client in seconds. Default: no limit.
            on_data: Receives the output as bytes, in a background task or thread.
            request_timeout: Time limit of the call in seconds.

        Raises:
            ResourceStateError: The command cannot be started: the program, the directory or the user does not exist.
        """
        draft = ProcessDraft(
            command if command is not None else _SHELL,
            env={"TERM": "xterm-256color", **(env or {})},
            cwd=cwd,
            user=user,
            terminal=TerminalSize(rows, cols),
            timeout=timeout,
            idle_timeout=idle_timeout,
        )
        connection = self._connection
        process = await start(
            connection.transport, draft.request(connection.sandbox_id), request_timeout, result_bytes=0
        )
        return AsyncTerminal(process, on_data)

    async def attach(
        self,
        process_id: str,
        *,
        offset: int = 0,
        on_data: OnData | None = None,
        request_timeout: Timeout = UNSET,
    ) -> AsyncTerminal:
        """Attach to a program on a terminal, started by this client or another one.

        Args:
            process_id: The process.
            offset: The offset of the first byte of output to read, or -1 for output from now on.
            on_data: Receives the output as bytes, in a background task or thread.
            request_timeout: Time limit of the call in seconds.

        Raises:
            ProcessNotFoundError: The process does not exist.
        """
        connection = self._connection
        process = await attach(
            connection.transport,
            connection.sandbox_id,
            process_id,
            offset,
            0,
            request_timeout,
            result_bytes=0,
        )
        return AsyncTerminal(process, on_data)
