"""The engine behind a proxy that runs beside the test, and can be told to fail, hang or refuse."""

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
    """An engine that answers some requests with an error, without ever seeing them."""

    def __init__(self, upstream: str, socket: Path) -> None:
        super().__init__(upstream, socket)
        self.faults: dict[str, tuple[int, str]] = {}
        """By a part of a request's first line: the status and the message to answer with."""

    def fault_for(self, request: bytes) -> tuple[int, str] | None:
        """The error that a request gets, if any."""
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
    """What a client sends, up to a request that is to fail: that is answered here, and the connection ends."""

    def __init__(self, engine: FaultyEngine, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._reader = reader
        self._client = client

    async def read(self, size: int) -> bytes:
        """The next bytes to pass on; none at the end."""
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
        answer = json.dumps({"message": message}).encode()
        lines = [
            f"HTTP/1.1 {status} Refused",
            "Content-Type: application/json",
            f"Content-Length: {len(answer)}",
            "Connection: close",
        ]
        self._client.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer)
        await self._client.drain()
        return b""


class ProxiedEngine:
    """A `FaultyEngine` in a thread of its own, for tests that block. A context manager."""

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
        """What a server is to be told."""
        return self._engine.base_url

    def hang(self) -> None:
        """Answer nothing any more."""
        self._do(self._engine.set_mode(Mode.HANG))

    def refuse(self) -> None:
        """Be away: no connection is taken, those that were open break."""
        self._do(self._engine.set_mode(Mode.REFUSE))

    def hang_on(self, part: str) -> None:
        """Answer no request with this in its first line."""
        self._engine.hang_on = part

    def fail(self, part: str, status: int, message: str) -> None:
        """Answer each request with this in its first line with an error."""
        self._engine.faults[part] = (status, message)

    def heal(self) -> None:
        """Be an engine like any other again; what hung goes on."""
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
