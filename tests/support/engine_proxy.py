"""A proxy in front of an engine that hangs, refuses or breaks connections without changes to the engine."""

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit


class Mode(Enum):
    """How the proxy handles requests."""

    PASS = "pass"
    HANG = "hang"
    """Accepts connections and requests and forwards nothing, like a frozen engine."""
    REFUSE = "refuse"
    """Does not listen, like a stopped engine."""


class EngineProxy:
    """Listens on a unix socket and forwards bytes to the engine at `upstream` (unix:// or tcp://).

    Requests whose first line contains `hang_on` (such as `/start`) hang; other requests pass.
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
        """Number of requests that were held so far."""

    @property
    def base_url(self) -> str:
        """The address for clients."""
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def set_mode(self, mode: Mode) -> None:
        """Change the mode. REFUSE also breaks all connections; PASS also releases held requests."""
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
        """Stop listening and break all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._socket.unlink(missing_ok=True)
        await self.break_connections()

    async def break_connections(self) -> None:
        """Break all connections. New connections are accepted."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def release(self) -> None:
        """Release the requests that `hang_on` holds, and let later requests pass."""
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
            return  # A broken connection is an expected result of this proxy.
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
            asyncio.create_task(self._copy(*down, self._hold_response)),
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

    def _hold_response(self, _response: bytes) -> bool:
        return self._mode is Mode.HANG
