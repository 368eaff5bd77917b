"""The engine behind a proxy that runs in a thread of the test and can fail, hang or refuse on demand."""

import asyncio
import json
import re
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, cast

from tests.support.engine_proxy import EngineProxy, Mode

_CALL_SECS = 10.0


class FaultyEngine(EngineProxy):
    """An engine proxy that responds to some requests with an error and does not forward them."""

    def __init__(self, upstream: str, socket: Path) -> None:
        super().__init__(upstream, socket)
        self.faults: dict[str, tuple[int, str]] = {}
        """Status and message of the error response, by a part of the first line of the request."""

    def fault_for(self, request: bytes) -> tuple[int, str] | None:
        """Return the error for a request, or None."""
        first_line = request.split(b"\r\n", 1)[0].decode("latin-1")
        return next((fault for part, fault in self.faults.items() if part in first_line), None)

    async def _both_ways(
        self,
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        screened = cast(asyncio.StreamReader, _Screen(self, up[0], down[1]))
        await super()._both_ways((screened, up[1]), down)


class _Screen:
    """Reads requests of a client. It responds to a request that must fail with an error and ends the connection."""

    def __init__(self, engine: FaultyEngine, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._reader = reader
        self._client = client

    async def read(self, size: int) -> bytes:
        """Return the next bytes to forward, or no bytes at the end."""
        data = await self._reader.read(size)
        fault = self._engine.fault_for(data)
        if fault is None:
            return data
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        missing = int(length[1]) - len(body) if length else 0
        if missing > 0:
            await self._reader.readexactly(missing)
        status, message = fault
        body_out = json.dumps({"message": message}).encode()
        lines = [
            f"HTTP/1.1 {status} Refused",
            "Content-Type: application/json",
            f"Content-Length: {len(body_out)}",
            "Connection: close",
        ]
        self._client.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body_out)
        await self._client.drain()
        return b""


class ProxiedEngine:
    """A `FaultyEngine` in a separate thread, for synchronous tests. A context manager."""

    def __init__(self, upstream: str, socket: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine = self._do(self._make(upstream, socket))

    @staticmethod
    async def _make(upstream: str, socket: Path) -> FaultyEngine:
        return FaultyEngine(upstream, socket)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECS)

    @property
    def url(self) -> str:
        """The address of the engine for a server."""
        return self._engine.base_url

    def hang(self) -> None:
        """Stop responding."""
        self._do(self._engine.set_mode(Mode.HANG))

    def refuse(self) -> None:
        """Refuse new connections and break open ones."""
        self._do(self._engine.set_mode(Mode.REFUSE))

    def hang_on(self, part: str) -> None:
        """Do not respond to requests whose first line contains `part`."""
        self._engine.hang_on = part

    def fail(self, part: str, status: int, message: str) -> None:
        """Respond with an error to each request whose first line contains `part`."""
        self._engine.faults[part] = (status, message)

    def heal(self) -> None:
        """Forward all requests again, and release held requests."""
        self._engine.faults.clear()
        self._engine.hang_on = ""
        self._do(self._engine.set_mode(Mode.PASS))

    def __enter__(self) -> Self:
        self._do(self._engine.start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECS)
        self._loop.close()
