"""The end of a server's life, as its long calls see it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sandpool_server.domain.errors import Unavailable

T = TypeVar("T")


@asynccontextmanager
async def releasing(source: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The iterator, which is closed at the end of the block: a generator lets go of what it holds there and then."""
    try:
        yield source
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


class ServerStopping(Unavailable):
    """The server ends while the call was under way; another server, or this one soon, will take it."""

    def __init__(self) -> None:
        super().__init__("SERVER_STOPPING", "the server is shutting down; call again in a moment")


class Drain:
    """Says once that the server is about to stop. Streams, which have no end of their own, end by it."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()

    @property
    def begun(self) -> bool:
        """Whether the server is about to stop."""
        return self._begun.is_set()

    def begin(self) -> None:
        """End every stream now and refuse new ones. Idempotent; there is no way back."""
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
        """The items of `source` until it ends, or until the drain begins: then raises `ServerStopping`.

        Only the wait for the next item is cut short, never what is done with one. What `source` holds is released
        before this returns, however it ends.
        """
        async with releasing(source):
            while not self.begun:
                try:
                    # The clock is not what ends it: the drain moves the deadline from never to now.
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
