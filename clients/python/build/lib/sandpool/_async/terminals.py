"""Terminals in a sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType

from sandpool._async.base import HandleBase
from sandpool._async.command import AsyncCommandHandle, follow, start
from sandpool._core.inside import TerminalSize
from sandpool._core.model import CommandResult
from sandpool._core.processes import Start
from sandpool._io.aio import Background, notify

OnData = Callable[[bytes], object]
OnExit = Callable[[int], object]
_SIGNALED = 128
"""Shells count a signal's number on top of this."""


class AsyncPty:
    """A program on a terminal in a sandbox.

    What it prints goes to `on_data` as it comes; without `on_data`, iterate over the terminal instead. As a context
    manager it is killed at the end of the block. A connection that breaks is taken up at the byte where it was.
    """

    def __init__(self, handle: AsyncCommandHandle, on_data: OnData | None, on_exit: OnExit | None) -> None:
        self._handle = handle
        self._on_data = on_data
        self._on_exit = on_exit
        self._reader: Background | None = None
        if on_data is not None or on_exit is not None:
            self._reader = Background(self._read, f"sandpool terminal {handle.command_id}")

    async def __aenter__(self) -> AsyncPty:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        await self.disconnect()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        if self._reader is not None:
            raise TypeError("on_data gets what the terminal prints; leave on_data and on_exit out to iterate")
        async with aclosing(aiter(self._handle)) as chunks:
            async for chunk in chunks:
                if chunk.raw:
                    yield chunk.raw

    @property
    def session_id(self) -> str:
        """The process's identifier, for `connect_pty`."""
        return self._handle.command_id

    @property
    def pid(self) -> int:
        """The process id inside the sandbox."""
        return self._handle.pid

    @property
    async def result(self) -> CommandResult:
        """How the program ended; waits for that. What it printed is not in there: it went to `on_data`."""
        await self.wait()
        return await self._handle.result

    async def send_input(self, data: str | bytes) -> None:
        """Type something."""
        await self._handle.send_input(data)

    async def resize(self, rows: int, cols: int) -> None:
        """Change the terminal's size; the program is told."""
        await self._handle.resize(rows, cols)

    async def kill(self) -> None:
        """Kill the program with every process that it started."""
        await self._handle.kill()

    async def wait(self) -> int:
        """Wait until the program has ended; gives its exit code, 128 and the signal's number where one ended it.

        What it prints meanwhile and nobody iterates over is dropped.
        """
        if self._reader is not None:
            await self._reader.wait()
        return _code(await self._handle.result)

    async def disconnect(self) -> None:
        """Stop following it; the program goes on, and `connect_pty` takes it up."""
        self._handle.detach()
        if self._reader is not None:
            await self._reader.stop()

    async def _read(self) -> None:
        async with aclosing(aiter(self._handle)) as chunks:
            async for chunk in chunks:
                if self._on_data is not None and chunk.raw:
                    await notify(self._on_data, chunk.raw)
        if self._on_exit is not None and self._handle.ended:
            await notify(self._on_exit, _code(await self._handle.result))


def _code(result: CommandResult) -> int:
    if result.exit_code is not None:
        return result.exit_code
    return _SIGNALED + (result.signal or 0)


class TerminalMethods(HandleBase):
    """Terminals in a sandbox."""

    async def create_pty(
        self,
        command: str | Sequence[str] | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        rows: int = 24,
        cols: int = 80,
        *,
        user: str | None = None,
        on_data: OnData | None = None,
        on_exit: OnExit | None = None,
        timeout_secs: float | None = None,
        idle_timeout: float | None = None,
    ) -> AsyncPty:
        """Start a program on a terminal.

        Args:
            command: A line for the shell, or a list of the program and its arguments; by default an interactive shell.
            args: With a `command` that is one string: that is the program, and these are its arguments.
            env: Environment variables over those of the sandbox; TERM is xterm-256color by default.
            working_dir: An absolute path; the image's by default.
            rows: The terminal's lines.
            cols: The terminal's columns.
            user: Who runs it; the image's by default.
            on_data: Called with the bytes that are printed, in a thread or a task of its own.
            on_exit: Called with the exit code, 128 and the signal's number where one ended it.
            timeout_secs: Seconds it may run; no limit by default.
            idle_timeout: Seconds it may run while no client follows it; no limit by default.
        """
        wanted = Start(
            command if command is not None else 'exec "${SHELL:-/bin/sh}" -i',
            args,
            env={"TERM": "xterm-256color", **(env or {})},
            working_dir=working_dir,
            user=user,
            terminal=TerminalSize(rows, cols),
            timeout_secs=timeout_secs,
            idle_timeout_secs=idle_timeout,
        )
        handle = await start(self._transport, wanted.request(self.sandbox_id), kept_bytes=0)
        return AsyncPty(handle, on_data, on_exit)

    async def connect_pty(
        self,
        session_id: str,
        token: str | None = None,
        *,
        on_data: OnData | None = None,
        on_exit: OnExit | None = None,
        offset: int = 0,
    ) -> AsyncPty:
        """Follow a program on a terminal that was started before, from this byte on; -1: from now on.

        `token` is taken and not needed: the client's API key is what counts.

        Raises ProcessNotFoundError where there is none.
        """
        handle = await follow(self._transport, self.sandbox_id, session_id, offset, kept_bytes=0)
        return AsyncPty(handle, on_data, on_exit)
