"""The bounded executor: a limited number of threads, deadlines, and no queue behind calls that hang."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import pytest
import requests
from docker.errors import APIError

from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.executors import BoundedExecutor
from sandpool_server.runtime.failures import EngineDown


class FakeClient:
    """The part of the client that an executor uses."""

    def __init__(self) -> None:
        self.timeout = 0.0
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Engine:
    """Creates clients and records them."""

    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.refuse = False

    def connect(self, timeout: float) -> EngineClient:
        if self.refuse:
            raise requests.exceptions.ConnectionError("refused")
        client = FakeClient()
        client.timeout = timeout
        self.clients.append(client)
        return cast("EngineClient", client)


class Gate:
    """A call that blocks until a test opens the gate."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, _client: EngineClient) -> str:
        self.entered.release()
        assert self.opened.wait(10)
        return "through"


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def executor(engine: Engine) -> AsyncIterator[BoundedExecutor]:
    executor = BoundedExecutor("test", 2, engine.connect)
    yield executor
    await executor.close()


async def entered(gate: Gate, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=5)


async def test_runs_call_in_thread_with_its_deadline(executor: BoundedExecutor, engine: Engine) -> None:
    def call(client: EngineClient) -> tuple[float, bool]:
        return client.timeout, threading.current_thread() is threading.main_thread()

    assert await executor.run(call, 7.5) == (7.5, False)
    assert await executor.run(call, 2.5) == (2.5, False)
    assert len(engine.clients) == 1


async def test_limits_threads_and_queues_further_calls(executor: BoundedExecutor, engine: Engine) -> None:
    gate, order = Gate(), []
    held = [asyncio.create_task(executor.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    later = [asyncio.create_task(executor.run(lambda _, n=n: order.append(n), 5)) for n in range(5)]
    await asyncio.sleep(0)
    assert order == []
    gate.opened.set()
    assert await asyncio.gather(*held) == ["through", "through"]
    await asyncio.gather(*later)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert len(engine.clients) == 2


async def test_fails_immediately_while_all_threads_hang(executor: BoundedExecutor) -> None:
    gate = Gate()
    waits = asyncio.create_task(executor.run(gate, 0.05))
    with pytest.raises(EngineDown, match="in time"):
        await executor.run(gate, 0.05)
    with pytest.raises(EngineDown, match="in time"):
        await waits
    with pytest.raises(EngineDown, match="still pending"):
        await executor.run(gate, 3600)
    gate.opened.set()
    await entered(gate, 2)
    async with asyncio.timeout(5):  # The threads finish, and the executor accepts calls again.
        while True:
            try:
                assert await executor.run(lambda _: "available", 5) == "available"
                break
            except EngineDown:
                await asyncio.sleep(0)


async def test_queued_calls_fail_when_last_thread_misses_its_deadline(executor: BoundedExecutor) -> None:
    gate = Gate()
    held = [asyncio.create_task(executor.run(gate, 0.05)) for _ in range(2)]
    await entered(gate, 2)
    waiting = asyncio.create_task(executor.run(gate, 3600))
    with pytest.raises(EngineDown, match="still pending"):
        await waiting
    for task in held:
        with pytest.raises(EngineDown):
            await task
    gate.opened.set()


async def test_queued_call_fails_when_its_patience_expires(executor: BoundedExecutor) -> None:
    gate = Gate()
    held = [asyncio.create_task(executor.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    with pytest.raises(EngineDown, match="in the queue"):
        await executor.run(gate, 5, queue_timeout=0.01)
    gate.opened.set()
    await asyncio.gather(*held)


async def test_cancelled_queued_call_is_skipped(executor: BoundedExecutor) -> None:
    gate = Gate()
    held = [asyncio.create_task(executor.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    ran: list[str] = []
    cancelled = asyncio.create_task(executor.run(lambda _: ran.append("cancelled"), 5))
    remaining = asyncio.create_task(executor.run(lambda _: ran.append("remaining"), 5))
    await asyncio.sleep(0)
    cancelled.cancel()
    gate.opened.set()
    await asyncio.gather(*held, remaining)
    assert cancelled.cancelled()
    assert ran == ["remaining"]
    assert await executor.run(lambda _: "free", 5) == "free"


async def test_call_of_cancelled_caller_runs_to_completion(executor: BoundedExecutor) -> None:
    gate = Gate()
    done = await executor.begin(gate, 5)
    caller = asyncio.create_task(executor.wait(done, 5))
    await entered(gate, 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not done.done()
    gate.opened.set()
    assert await done == "through"


async def test_passes_engine_errors_and_converts_connection_errors(executor: BoundedExecutor, engine: Engine) -> None:
    def refuse(_client: EngineClient) -> None:
        raise APIError("no")

    def time_out(_client: EngineClient) -> None:
        raise requests.exceptions.ReadTimeout("slow")

    def fail(_client: EngineClient) -> None:
        raise ZeroDivisionError

    with pytest.raises(APIError):
        await executor.run(refuse, 5)
    with pytest.raises(EngineDown, match="in time"):
        await executor.run(time_out, 5)
    with pytest.raises(ZeroDivisionError):
        await executor.run(fail, 5)


async def test_next_call_connects_again_after_refused_connection(executor: BoundedExecutor, engine: Engine) -> None:
    engine.refuse = True
    with pytest.raises(EngineDown, match="cannot be reached"):
        await executor.run(lambda _: None, 5)
    engine.refuse = False
    assert await executor.run(lambda _: "yes", 5) == "yes"


async def test_close_closes_clients_and_rejects_calls(executor: BoundedExecutor, engine: Engine) -> None:
    await executor.run(lambda _: None, 5)
    await executor.close()
    assert all(client.closed for client in engine.clients)
    with pytest.raises(EngineDown, match="stopping"):
        await executor.run(lambda _: None, 5)
