"""Shutdown of the server: ends streaming calls."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sandpool_server.domain.errors import Unavailable

T = TypeVar("T")


@asynccontextmanager
async def releasing(source: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Return a context manager that closes the iterator, so that a generator releases its resources immediately."""
    try:
        yield source
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


class ServerStopping(Unavailable):
    """The server is shutting down during the call. The caller can retry."""

    def __init__(self) -> None:
        super().__init__("SERVER_STOPPING", "the server is shutting down; retry the call")


class Drain:
    """Signals that the server is shutting down, which ends all streaming calls."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()

    @property
    def begun(self) -> bool:
        """Whether the server is shutting down."""
        return self._begun.is_set()

    def begin(self) -> None:
        """End all streams and reject new ones. Idempotent and irreversible."""
        if self.begun:
            return
        self._begun.set()
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def wait(self, timeout_secs: float) -> None:
        """Return when the drain begins, or after `timeout_secs`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                await self._begun.wait()

    async def until(self, source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Yield the items of `source`. Raises `ServerStopping` when the drain begins.

        The drain interrupts only the wait for the next item, never the processing of an item. `source` is closed
        before this generator ends.
        """
        async with releasing(source):
            while not self.begun:
                try:
                    # The timeout has no deadline until the drain sets it to the current time.
                    async with asyncio.timeout(None) as wait:
                        self._waits.add(wait)
                        try:
                            item = await anext(source)
                        finally:
                            self._waits.discard(wait)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if wait.expired():
                        break
                    raise
                yield item
            raise ServerStopping
