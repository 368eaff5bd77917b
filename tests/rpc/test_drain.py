"""Streams end with their source, at the drain, or with their reader, and always release the source."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sandpool_server.rpc.drain import Drain, ServerStopping


class Source:
    """A generator that records its release. The test holds it, so that the garbage collector does not close it."""

    def __init__(self, *items: int, error: Exception | None = None, endless: bool = False) -> None:
        self.released = False
        self.waiting = asyncio.Event()
        self.generator = self._run(items, error, endless)

    async def _run(self, items: tuple[int, ...], error: Exception | None, endless: bool) -> AsyncIterator[int]:
        try:
            for item in items:
                yield item
            if error is not None:
                raise error
            if endless:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            self.released = True


async def test_stream_ends_with_its_source() -> None:
    source = Source(1, 2)
    assert [item async for item in Drain().until(source.generator)] == [1, 2]
    assert source.released


async def test_propagates_error_of_source() -> None:
    source = Source(1, error=KeyError("x"))
    with pytest.raises(KeyError):
        [item async for item in Drain().until(source.generator)]
    assert source.released


async def test_drain_ends_waiting_stream() -> None:
    source, drain, seen = Source(1, endless=True), Drain(), []

    async def read() -> None:
        async for item in drain.until(source.generator):
            seen.append(item)

    reader = asyncio.create_task(read())
    await source.waiting.wait()
    drain.begin()
    with pytest.raises(ServerStopping):
        await asyncio.wait_for(reader, 5)
    assert seen == [1]
    assert source.released


async def test_drain_ends_busy_stream() -> None:
    source, drain, seen = Source(*range(1000)), Drain(), []

    async def read() -> None:
        async for item in drain.until(source.generator):
            seen.append(item)
            if item == 2:
                drain.begin()

    with pytest.raises(ServerStopping):
        await read()
    assert len(seen) < 6
    assert source.released


async def test_closed_reader_releases_source_immediately() -> None:
    source = Source(1, 2, 3)
    async with aclosing(Drain().until(source.generator)) as items:
        assert await anext(items) == 1
    assert source.released


async def test_cancelled_reader_releases_source() -> None:
    source = Source(endless=True)

    async def read() -> None:
        async with aclosing(Drain().until(source.generator)) as items:
            await anext(items)

    reader = asyncio.create_task(read())
    await source.waiting.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert source.released
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"rpc-stream-next", "rpc-stream-drain"})


async def test_wait_returns_at_timeout_or_drain() -> None:
    drain = Drain()
    await drain.wait(0.001)
    assert not drain.begun
    drain.begin()
    await asyncio.wait_for(drain.wait(60), 5)
