"""Streams by themselves: they end with their source, with the drain, and with their reader, and always let go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sandpool_server.rpc.drain import Drain, ServerStopping


class Source:
    """A generator that says whether it has let go. Kept by the test, so that no garbage collector closes it."""

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


async def test_it_ends_with_its_source() -> None:
    source = Source(1, 2)
    assert [item async for item in Drain().until(source.generator)] == [1, 2]
    assert source.released


async def test_an_error_of_the_source_comes_through() -> None:
    source = Source(1, error=KeyError("x"))
    with pytest.raises(KeyError):
        [item async for item in Drain().until(source.generator)]
    assert source.released


async def test_the_drain_ends_one_that_waits() -> None:
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


async def test_the_drain_ends_one_that_always_has_more() -> None:
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


async def test_a_reader_that_leaves_releases_the_source_there_and_then() -> None:
    source = Source(1, 2, 3)
    async with aclosing(Drain().until(source.generator)) as items:
        assert await anext(items) == 1
    assert source.released


async def test_a_reader_that_is_cancelled_releases_the_source() -> None:
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


async def test_waiting_for_the_drain_has_an_end() -> None:
    drain = Drain()
    await drain.wait(0.001)
    assert not drain.begun
    drain.begin()
    await asyncio.wait_for(drain.wait(60), 5)
