"""The log of a sandbox."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sandpool._async.resumption import pause_before_resuming
from sandpool._core.monitor import LogReader
from sandpool._core.resumption import Resumption
from sandpool._models.monitor import LogEntry
from sandpool._transport.asyncio import Transport
from sandpool.errors import SandboxConnectionError, SandboxNotReadyError


async def read_logs(transport: Transport, reader: LogReader, timeout: float | None) -> AsyncGenerator[LogEntry, None]:
    """Yield log entries. After a broken connection, continue after the last received entry."""
    resumption = Resumption(timeout, time.monotonic)
    while True:
        try:
            async with aclosing(transport.stream(reader.call(resumption.left()))) as responses:
                async for response in responses:
                    resumption.progress()
                    for entry in reader.take(response):
                        yield entry
            return
        except SandboxNotReadyError:
            if reader.follow and reader.started:
                return  # The sandbox terminated, and its log with it.
            raise
        except SandboxConnectionError as failure:
            await pause_before_resuming(transport, resumption, failure)
