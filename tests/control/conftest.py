"""Use cases and control loop together, with a real SQLite file and an engine in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from sandpool_server.clock import SystemClock
from sandpool_server.control.events import EventHandler
from sandpool_server.control.executor import Executor
from sandpool_server.control.health_checks import DiskMonitor, HealthChecks
from sandpool_server.control.loop import ControlLoop
from sandpool_server.control.reconciler import Reconciler
from sandpool_server.control.settings import ControlSettings
from sandpool_server.domain.backoff import BackoffPolicy
from sandpool_server.domain.model import Instance, PoolView
from sandpool_server.store.store import SqlStore
from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.values import NewPool, NewSandbox
from sandpool_server.usecases.wait_queue import WaitQueue
from sandpool_server.vault import Vault, new_key
from tests.support.fake_agents import FakeAgents, SilentAgents
from tests.support.fake_runtime import IMAGE, FakeRuntime

SETTINGS = ControlSettings(backoff=BackoffPolicy(base_secs=0.05, max_secs=2.0), probe_failures=2)
WAIT_SECS = 20.0


class InProcessServer:
    """A server without its gRPC layer."""

    def __init__(self, store: SqlStore, runtime: FakeRuntime, agents: FakeAgents, hub: ChangeHub) -> None:
        clock = SystemClock()
        self.clock, self.store, self.runtime, self.agents = clock, store, runtime, agents
        queue = WaitQueue(hub)
        self.executor = Executor(store, runtime, agents, clock, hub, SETTINGS)
        reconciler = Reconciler(store, runtime, self.executor, clock)
        events = EventHandler(store, self.executor, reconciler, clock)
        self.health_checks = HealthChecks(store, agents, clock, SETTINGS)
        self.disks = DiskMonitor(store, runtime, clock, SETTINGS)
        # Tests run the periodic checks themselves, one round at a time.
        self.loop = ControlLoop(store, runtime, self.executor, events, clock, hub, queue, (), SETTINGS)
        self.secrets = Secrets(store, Vault([new_key()]), clock)
        self.pools = Pools(store, runtime, clock, hub, queue)
        self.sandboxes = Sandboxes(store, agents, self.executor, self.secrets, clock, hub, queue)

    async def create_pool(self, warm: int, image: str = IMAGE, **more: object) -> str:
        """Create a pool and return its id."""
        new = NewPool(spec={"image": image}, warm_containers=warm, **more)  # type: ignore[arg-type]
        return (await self.pools.create(new, "", "")).pool.id

    async def wait_for_pool(self, pool_id: str, condition: Callable[[PoolView], bool]) -> PoolView:
        """Return the first state of the pool that satisfies the condition."""
        async with asyncio.timeout(WAIT_SECS), aclosing(self.pools.watch((pool_id,))) as states:
            async for _, view in states:
                if view is not None and condition(view):
                    return view
        raise AssertionError("the watch ended")

    async def wait_until_warm(self, pool_id: str, warm: int) -> PoolView:
        """Return the pool when it has `warm` warm instances and no other instance is being created or removed."""
        return await self.wait_for_pool(
            pool_id, lambda v: (v.counts.warm, v.counts.creating, v.counts.removing) == (warm, 0, 0)
        )

    async def create_sandbox(self, pool_id: str = "", request_id: str = "", **more: object) -> Instance:
        """Create a sandbox of the pool, or without a pool, of the image."""
        new = NewSandbox(pool_id=pool_id, spec={} if pool_id else {"image": IMAGE}, **more)  # type: ignore[arg-type]
        return await self.sandboxes.create(new, request_id, "fingerprint", self.clock.monotonic())

    async def wait_until_removed(self, sandbox_id: str) -> Instance:
        """Return the sandbox when its container is removed."""
        async with asyncio.timeout(WAIT_SECS), aclosing(self.sandboxes.watch(sandbox_id)) as states:
            async for instance in states:
                last = instance
        return last


StartServer = Callable[..., Awaitable[InProcessServer]]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Start servers on one database. At the end, stop each server and check that all containers have a row."""
    servers: list[InProcessServer] = []

    async def make(
        runtime: FakeRuntime | None = None, agents: FakeAgents | None = None, start: bool = True
    ) -> InProcessServer:
        hub = ChangeHub()
        store = SqlStore(f"sqlite:///{tmp_path / 'sandpool.db'}", hub.publish, SystemClock())
        await store.open()
        runtime = runtime or FakeRuntime()
        server = InProcessServer(store, runtime, agents or SilentAgents(runtime, deadline_secs=0.01), hub)
        servers.append(server)
        if start:
            server.loop.start()
        return server

    yield make
    for server in servers:
        await stop(server)
        rows = {instance.id for instance in await server.store.live_instances()}
        await server.store.close()
        assert server.runtime.containers.keys() <= rows, "a container without a row"


async def stop(server: InProcessServer) -> None:
    """Stop the activity of the server. Its containers continue to exist."""
    await server.sandboxes.close()
    await server.loop.stop()


@asynccontextmanager
async def cancelled(work: "asyncio.Task[Instance]") -> AsyncIterator[None]:
    """Cancel the task after the block, and check that the cancellation ended it."""
    yield
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
