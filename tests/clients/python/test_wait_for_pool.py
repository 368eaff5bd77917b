"""Waiting until a pool is full: reported states, time limits and errors."""

import pytest

from sandpool import AsyncSandboxClient, Pool, SandboxClient, errors
from sandpool.v1 import pool_pb2
from tests.clients.python.state import State

READY, FILLING = pool_pb2.POOL_STATE_READY, pool_pb2.POOL_STATE_FILLING


def status(warm: int, state: pool_pb2.PoolState = FILLING, **fields: object) -> pool_pb2.PoolStatus:
    return pool_pb2.PoolStatus(state=state, warm=warm, desired=2, **fields)  # type: ignore[arg-type]


STEPS = [
    status(0, image_pull=pool_pb2.ImagePull(image="i", current_bytes=25, total_bytes=100)),
    status(1, last_error=pool_pb2.PoolError(reason=pool_pb2.POOL_ERROR_REASON_START_FAILED, message="no luck")),
    status(2, READY),
]


@pytest.fixture
def pool(client: SandboxClient, state: State) -> Pool:
    made = client.create_pool("p", image="i", warm_containers=2)
    state.pool_steps.extend(STEPS)
    return made


def test_reports_every_state_until_the_pool_is_full(client: SandboxClient, pool: Pool):
    seen: list[Pool] = []
    found = client.wait_for_pool("p", on_progress=seen.append, timeout=10)
    assert found == seen[-1]
    assert [one.status.warm for one in seen] == [0, 0, 1, 2]


async def test_awaits_the_callback_with_asyncio(address: str, pool: Pool):
    seen: list[int] = []

    async def note(found: Pool) -> None:
        seen.append(found.status.warm)

    async with AsyncSandboxClient(address) as client:
        assert (await client.wait_for_pool("p", warm=1, on_progress=note, timeout=10)).status.warm == 1
    assert seen == [0, 0, 1]


def test_raises_with_the_last_error_after_the_timeout(client: SandboxClient, pool: Pool, state: State):
    del state.pool_steps[2:]
    with pytest.raises(errors.ResourceTimeoutError, match="1 of 2 containers are warm; last error: no luck") as caught:
        client.wait_for_pool("p", timeout=0.5)
    assert (caught.value.resource_type, caught.value.resource_name) == ("pool", "p")


def test_raises_for_a_paused_pool(client: SandboxClient):
    client.create_pool("p", image="i", warm_containers=2, paused=True)
    with pytest.raises(errors.PoolPausedError, match=r"update_pool\(paused=False") as caught:
        client.wait_for_pool("p")
    assert caught.value.reason == "POOL_PAUSED"


def test_waits_without_a_limit(client: SandboxClient, pool: Pool):
    assert client.wait_for_pool("p", timeout=None).status.warm == 2
