"""Use cases and control loop together, on a real SQLite file and an engine in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from sandpool_server.clock import SystemClock
from sandpool_server.control.events import EventHandler
from sandpool_server.control.executor import Executor
from sandpool_server.control.loop import ControlLoop
from sandpool_server.control.recovery import Recovery
from sandpool_server.control.settings import ControlSettings
from sandpool_server.control.watches import DiskWatch, Probes
from sandpool_server.domain.backoff import BackoffPolicy
from sandpool_server.domain.model import Member, PoolView
from sandpool_server.store.store import SqlStore
from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.line import WaitingLine
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.values import NewPool, NewSandbox, SpecFields
from sandpool_server.vault import Vault, new_key
from tests.support.fake_agents import FakeAgents, SilentAgents
from tests.support.fake_runtime import IMAGE, FakeRuntime

SETTINGS = ControlSettings(backoff=BackoffPolicy(base_secs=0.05, max_secs=2.0), probe_failures=2)
WAIT_SECS = 20.0


class Plant:
    """A server without its gRPC half."""

    def __init__(self, store: SqlStore, runtime: FakeRuntime, agents: FakeAgents, hub: ChangeHub) -> None:
        clock = SystemClock()
        self.clock, self.store, self.runtime, self.agents = clock, store, runtime, agents
        line = WaitingLine(hub)
        self.executor = Executor(store, runtime, agents, clock, hub, SETTINGS)
        recovery = Recovery(store, runtime, self.executor, clock)
        events = EventHandler(store, self.executor, recovery, clock)
        self.probes = Probes(store, agents, clock, SETTINGS)
        self.disks = DiskWatch(store, runtime, clock, SETTINGS)
        # The watches are run by the tests, round by round.
        self.loop = ControlLoop(store, runtime, self.executor, events, clock, hub, line, (), SETTINGS)
        self.secrets = Secrets(store, Vault([new_key()]), clock)
        self.pools = Pools(store, runtime, clock, hub, line)
        self.sandboxes = Sandboxes(store, agents, self.executor, self.secrets, clock, hub, line)

    async def pool(self, warm: int, image: str = IMAGE, **more: object) -> str:
        """A new pool's id."""
        new = NewPool(spec=SpecFields(image=image), warm_containers=warm, **more)  # type: ignore[arg-type]
        return (await self.pools.create(new, "", "")).pool.id

    async def seen(self, pool_id: str, wanted: Callable[[PoolView], bool]) -> PoolView:
        """The pool's first state that is as wanted."""
        async with asyncio.timeout(WAIT_SECS), aclosing(self.pools.watch((pool_id,))) as states:
            async for _, view in states:
                if view is not None and wanted(view):
                    return view
        raise AssertionError("the watch ended")

    async def full(self, pool_id: str, warm: int) -> PoolView:
        """The pool once it has that many ready members and nothing else is going on."""
        return await self.seen(pool_id, lambda v: (v.counts.warm, v.counts.creating, v.counts.removing) == (warm, 0, 0))

    async def create(self, pool_id: str = "", request_id: str = "", **more: object) -> Member:
        """A sandbox of the pool, or, without one, of the image."""
        new = NewSandbox(pool_id=pool_id, spec=SpecFields(image=None if pool_id else IMAGE), **more)  # type: ignore[arg-type]
        return await self.sandboxes.create(new, request_id, "fingerprint", self.clock.monotonic())

    async def ended(self, sandbox_id: str) -> Member:
        """The sandbox once its container is gone."""
        async with asyncio.timeout(WAIT_SECS), aclosing(self.sandboxes.watch(sandbox_id)) as states:
            async for member in states:
                last = member
        return last


Grow = Callable[..., Awaitable[Plant]]


@pytest.fixture
async def grow(tmp_path: Path) -> AsyncIterator[Grow]:
    """Makes plants on one database; each is stopped at the end, and checked to have left nothing behind."""
    plants: list[Plant] = []

    async def make(runtime: FakeRuntime | None = None, agents: FakeAgents | None = None, start: bool = True) -> Plant:
        hub = ChangeHub()
        store = SqlStore(f"sqlite:///{tmp_path / 'sandpool.db'}", hub.publish, SystemClock())
        await store.open()
        runtime = runtime or FakeRuntime()
        plant = Plant(store, runtime, agents or SilentAgents(runtime, deadline_secs=0.01), hub)
        plants.append(plant)
        if start:
            plant.loop.start()
        return plant

    yield make
    for plant in plants:
        await stop(plant)
        rows = {member.id for member in await plant.store.live_members()}
        await plant.store.close()
        assert plant.runtime.containers.keys() <= rows, "a container that no row stands for"


async def stop(plant: Plant) -> None:
    """End what the plant does; containers stay."""
    await plant.sandboxes.close()
    await plant.loop.stop()


@asynccontextmanager
async def cancelled(work: "asyncio.Task[Member]") -> AsyncIterator[None]:
    """Cancel the task after the block, and see that it ended by that."""
    yield
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
