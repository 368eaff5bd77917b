"""Lanes: bounded threads, deadlines, and no queue behind calls that hang."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import cast

import pytest
import requests
from docker.errors import APIError

from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.failures import EngineDown
from sandpool_server.runtime.lanes import Lane


class FakeClient:
    """What a lane needs of a client."""

    def __init__(self) -> None:
        self.timeout = 0.0
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Engine:
    """Makes clients and remembers them."""

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
    """A blocking call that a test lets go."""

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
async def lane(engine: Engine) -> AsyncIterator[Lane]:
    lane = Lane("test", 2, engine.connect)
    yield lane
    await lane.close()


async def entered(gate: Gate, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(gate.entered.acquire, timeout=5)


async def test_a_call_runs_off_the_loop_with_a_client_that_has_its_deadline(lane: Lane, engine: Engine) -> None:
    def call(client: EngineClient) -> tuple[float, bool]:
        return client.timeout, threading.current_thread() is threading.main_thread()

    assert await lane.run(call, 7.5) == (7.5, False)
    assert await lane.run(call, 2.5) == (2.5, False)
    assert len(engine.clients) == 1


async def test_no_more_threads_than_allowed_and_turns_are_taken_in_order(lane: Lane, engine: Engine) -> None:
    gate, order = Gate(), []
    held = [asyncio.create_task(lane.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    later = [asyncio.create_task(lane.run(lambda _, n=n: order.append(n), 5)) for n in range(5)]
    await asyncio.sleep(0)
    assert order == []
    gate.opened.set()
    assert await asyncio.gather(*held) == ["through", "through"]
    await asyncio.gather(*later)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert len(engine.clients) == 2


async def test_a_call_past_its_deadline_is_given_up_and_a_full_lane_fails_at_once(lane: Lane) -> None:
    gate = Gate()
    waits = asyncio.create_task(lane.run(gate, 0.05))
    with pytest.raises(EngineDown, match="in time"):
        await lane.run(gate, 0.05)
    with pytest.raises(EngineDown, match="in time"):
        await waits
    with pytest.raises(EngineDown, match="still hang"):
        await lane.run(gate, 3600)
    gate.opened.set()
    await entered(gate, 2)
    async with asyncio.timeout(5):  # The threads come back, and the lane with them.
        while True:
            try:
                assert await lane.run(lambda _: "back", 5) == "back"
                break
            except EngineDown:
                await asyncio.sleep(0)


async def test_those_in_line_are_told_when_the_last_thread_is_late(lane: Lane) -> None:
    gate = Gate()
    held = [asyncio.create_task(lane.run(gate, 0.05)) for _ in range(2)]
    await entered(gate, 2)
    waiting = asyncio.create_task(lane.run(gate, 3600))
    with pytest.raises(EngineDown, match="still hang"):
        await waiting
    for task in held:
        with pytest.raises(EngineDown):
            await task
    gate.opened.set()


async def test_patience_for_a_turn_has_an_end(lane: Lane) -> None:
    gate = Gate()
    held = [asyncio.create_task(lane.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    with pytest.raises(EngineDown, match="turn"):
        await lane.run(gate, 5, patience=0.01)
    gate.opened.set()
    await asyncio.gather(*held)


async def test_a_caller_that_leaves_the_line_passes_its_turn_on(lane: Lane) -> None:
    gate = Gate()
    held = [asyncio.create_task(lane.run(gate, 5)) for _ in range(2)]
    await entered(gate, 2)
    ran: list[str] = []
    leaver = asyncio.create_task(lane.run(lambda _: ran.append("leaver"), 5))
    stayer = asyncio.create_task(lane.run(lambda _: ran.append("stayer"), 5))
    await asyncio.sleep(0)
    leaver.cancel()
    gate.opened.set()
    await asyncio.gather(*held, stayer)
    assert leaver.cancelled()
    assert ran == ["stayer"]
    assert await lane.run(lambda _: "free", 5) == "free"


async def test_a_cancelled_caller_leaves_its_call_to_end_and_the_place_is_free_after(lane: Lane) -> None:
    gate = Gate()
    done = await lane.begin(gate, 5)
    caller = asyncio.create_task(lane.wait(done, 5))
    await entered(gate, 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not done.done()
    gate.opened.set()
    assert await done == "through"


async def test_errors_of_the_engine_pass_and_others_are_told_apart(lane: Lane, engine: Engine) -> None:
    def refuse(_client: EngineClient) -> None:
        raise APIError("no")

    def lose(_client: EngineClient) -> None:
        raise requests.exceptions.ReadTimeout("slow")

    def slip(_client: EngineClient) -> None:
        raise ZeroDivisionError

    with pytest.raises(APIError):
        await lane.run(refuse, 5)
    with pytest.raises(EngineDown, match="in time"):
        await lane.run(lose, 5)
    with pytest.raises(ZeroDivisionError):
        await lane.run(slip, 5)


async def test_connecting_is_tried_again_with_the_next_call(lane: Lane, engine: Engine) -> None:
    engine.refuse = True
    with pytest.raises(EngineDown, match="cannot be reached"):
        await lane.run(lambda _: None, 5)
    engine.refuse = False
    assert await lane.run(lambda _: "yes", 5) == "yes"


async def test_closing_closes_the_clients_and_refuses_calls(lane: Lane, engine: Engine) -> None:
    await lane.run(lambda _: None, 5)
    await lane.close()
    assert all(client.closed for client in engine.clients)
    with pytest.raises(EngineDown, match="stopping"):
        await lane.run(lambda _: None, 5)
