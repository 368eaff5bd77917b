"""A proxy before an engine, to make it hang, refuse or break off without touching the engine itself."""

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit


class Mode(Enum):
    """What the proxy does with what a client sends."""

    PASS = "pass"
    HANG = "hang"
    """Takes connections and requests and passes nothing on: a frozen engine."""
    REFUSE = "refuse"
    """Does not listen at all: a stopped engine."""


class EngineProxy:
    """Listens on a unix socket and passes bytes to the engine at `upstream` (unix:// or tcp://).

    `hang_on` names a part of a request's first line (such as `/start`); requests that have it hang while others pass.
    """

    def __init__(self, upstream: str, socket: Path) -> None:
        self._upstream = urlsplit(upstream)
        self._socket = socket
        self._mode = Mode.PASS
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.hang_on = ""
        self.hung = 0
        """Requests that were held up so far."""

    @property
    def base_url(self) -> str:
        """The address for clients."""
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def set_mode(self, mode: Mode) -> None:
        """Change what happens from now on. REFUSE breaks off all connections; PASS lets go what hangs."""
        self._mode = mode
        if mode is Mode.REFUSE:
            await self.stop()
            return
        if self._server is None:
            await self.start()
        if mode is Mode.PASS:
            self._resumed.set()
        else:
            self._resumed.clear()

    async def stop(self) -> None:
        """Stop listening and break off all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._socket.unlink(missing_ok=True)
        await self.break_off()

    async def break_off(self) -> None:
        """Break off all connections; new ones are welcome."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def let_go(self) -> None:
        """Let requests that `hang_on` holds up pass, and later ones too."""
        self.hang_on = ""
        self._resumed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._upstream.scheme == "unix":
                up_reader, up_writer = await asyncio.open_unix_connection(self._upstream.path)
            else:
                up_reader, up_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
            try:
                await self._both_ways((reader, up_writer), (up_reader, writer))
            finally:
                up_writer.close()
        except (OSError, asyncio.CancelledError):
            return  # A broken connection is what this proxy is for; its task ends with it.
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _both_ways(
        self,
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        copies = {
            asyncio.create_task(self._copy(*up, self._hold)),
            asyncio.create_task(self._copy(*down, self._hold_answer)),
        }
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hold: Callable[[bytes], bool]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if hold(data):
                    self.hung += 1
                    self._resumed.clear()
                    await self._resumed.wait()
                writer.write(data)
                await writer.drain()

    def _hold(self, request: bytes) -> bool:
        first_line = request.split(b"\r\n", 1)[0].decode("latin-1")
        return self._mode is Mode.HANG or bool(self.hang_on and self.hang_on in first_line)

    def _hold_answer(self, _answer: bytes) -> bool:
        return self._mode is Mode.HANG
