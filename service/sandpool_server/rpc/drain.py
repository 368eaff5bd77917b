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

    @property
    def begun(self) -> bool:
        """Whether the server is about to stop."""
        return self._begun.is_set()

    def begin(self) -> None:
        """End every stream now and refuse new ones. Idempotent; there is no way back."""
        self._begun.set()

    async def wait(self, timeout_secs: float) -> None:
        """Return when the drain begins, or after `timeout_secs`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_secs):
                await self._begun.wait()

    async def until(self, source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The items of `source` until it ends, or until the drain begins: then raises `ServerStopping`.

        What `source` holds is released before this returns, however it ends.
        """
        async with releasing(source):
            begun = asyncio.create_task(self._begun.wait(), name="rpc-stream-drain")
            step: asyncio.Task[T] | None = None
            try:
                while not begun.done():
                    step = asyncio.create_task(_next(source), name="rpc-stream-next")
                    await asyncio.wait({step, begun}, return_when=asyncio.FIRST_COMPLETED)
                    if not step.done():
                        break
                    try:
                        item = step.result()
                    except StopAsyncIteration:
                        return
                    yield item
                raise ServerStopping
            finally:
                begun.cancel()
                if step is not None:
                    step.cancel()
                    # `wait`, unlike awaiting the task, tells its cancellation from one of ours.
                    await asyncio.wait({step})
                    if not step.cancelled():
                        step.exception()  # seen, so that asyncio does not report what nobody waits for any more


async def _next(source: AsyncIterator[T]) -> T:
    """`anext` as the coroutine that a task wants."""
    return await anext(source)
