"""The control loop: it reads a snapshot, plans and executes, after changes, engine events and timers.

One task handles the events of the engine, one task plans, and each periodic check has one task. All tasks survive
failures of the engine and the database: they wait and then start again with a complete snapshot.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from sandpool_server.control.events import EventHandler
from sandpool_server.control.executor import Executor
from sandpool_server.control.settings import ControlSettings
from sandpool_server.domain.actions import CreateInstances, WakeAt
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.ids import POOL
from sandpool_server.domain.plan import PoolSnapshot, missing, plan
from sandpool_server.interfaces import Clock, Runtime, RuntimeEventKind, Store, Waiters
from sandpool_server.usecases.changes import ChangeHub, Subscription

_log = structlog.get_logger(__name__)

_NO_POOL = ""

_REST_FACTOR = 3.0
"""The pause between two planning rounds, as a multiple of the last round's duration.

Planning therefore uses at most one quarter of the time.
"""


class PeriodicCheck(Protocol):
    """A check that runs periodically."""

    async def run(self) -> None:
        """Run the check periodically, without end.

        Raises:
            Unavailable: a dependency does not respond. The control loop then calls the method again.
        """
        ...


class ControlLoop:
    """Keeps every pool in its desired state."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        executor: Executor,
        events: EventHandler,
        clock: Clock,
        changes: ChangeHub,
        queue: Waiters,
        checks: Sequence[PeriodicCheck],
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._executor = executor
        self._events = events
        self._clock = clock
        self._changes = changes
        self._queue = queue
        self._checks = checks
        self._settings = settings
        self._wakes: dict[str, datetime] = {}
        self._waiting_for_slots: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all tasks and return immediately."""
        self._tasks = [
            asyncio.create_task(self._run_forever("events", self._follow_events), name="engine-events"),
            asyncio.create_task(self._run_forever("planning", self._plan_rounds), name="planning"),
        ]
        for check in self._checks:
            name = type(check).__name__
            self._tasks.append(asyncio.create_task(self._run_forever(name, check.run), name=name))

    async def stop(self) -> None:
        """Stop all tasks and the executor. Running containers stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._executor.close()

    async def _run_forever(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                await work()
            except Unavailable as error:
                _log.warning("control_interrupted", task=name, error=str(error))
            except Exception:
                # A bug in one round must not stop the management of all pools.
                _log.exception("control_failed", task=name)
            failures = 1 if self._clock.monotonic() - started > self._settings.resync_interval else failures + 1
            await asyncio.sleep(self._settings.backoff.delay(failures, 0.0).total_seconds())

    # --- events ---------------------------------------------------------------------------------------------------

    async def _follow_events(self) -> None:
        async with aclosing(self._runtime.events()) as events:
            async for event in events:
                if event.kind is RuntimeEventKind.RESYNC:
                    # The cause of the interruption may also have removed the shared resources of the instances.
                    await self._runtime.prepare()
                await self._events.handle(event)
                if event.kind is RuntimeEventKind.RESYNC:
                    self._executor.engine_ready.set()

    # --- planning -------------------------------------------------------------------------------------------------

    async def _plan_rounds(self) -> None:
        await self._executor.engine_ready.wait()
        with self._changes.subscribe() as subscription:
            due: frozenset[str] | None = None
            last_full = self._clock.monotonic()
            while True:
                started = self._clock.monotonic()
                for snapshot in await self._store.snapshot(due):
                    await self._plan(snapshot)
                due = await self._next_due(subscription, self._clock.monotonic() - started)
                if self._clock.monotonic() - last_full >= self._settings.round_interval:
                    due, last_full = None, self._clock.monotonic()
                    await self._purge()

    async def _plan(self, snapshot: PoolSnapshot) -> None:
        """Plan one pool and execute the actions."""
        self._wakes.pop(snapshot.id, None)
        waiting = self._queue.waiting(snapshot.id)
        unmet = missing(snapshot, waiting)
        slots, proven = self._executor.free_slots, self._executor.is_proven(snapshot.id, snapshot.spec_digest)
        for action in plan(snapshot, self._clock.now(), slots, self._executor.in_flight(), proven, waiting):
            if isinstance(action, WakeAt):
                self._wakes[action.pool_id] = min(action.time, self._wakes.get(action.pool_id, action.time))
                continue
            await self._executor.execute(action)
            if isinstance(action, CreateInstances):
                unmet -= action.count
        if unmet > 0:
            self._waiting_for_slots.add(snapshot.id)

    async def _next_due(self, subscription: Subscription, planned_secs: float) -> frozenset[str]:
        """Wait for a change or a timer and return the ids of the pools to plan.

        `planned_secs` is the duration of the last planning round in seconds.
        """
        now = self._clock.now()
        next_wake = min([*self._wakes.values(), now + timedelta(seconds=self._settings.round_interval)])
        changed: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(max(0.0, (next_wake - now).total_seconds())):
                changed = await subscription.next()
        except TimeoutError:
            pass
        # The pause lets the responses to callers go first: claims do not wait for planning. With large pools, a round
        # takes as long as several claims; the pause then collects their changes for one round.
        rest = min(_REST_FACTOR * planned_secs, self._settings.max_interval)
        await asyncio.sleep(max(self._settings.min_interval, rest))
        now = self._clock.now()
        due = {pool_id for pool_id, time in self._wakes.items() if time <= now}
        # A change of an instance includes the id of its pool. Instances without a pool are always planned: it is cheap.
        due |= {pool_id for pool_id in changed if pool_id.startswith(f"{POOL}-")} | {_NO_POOL}
        if self._executor.free_slots > 0:
            due |= self._waiting_for_slots
            self._waiting_for_slots.clear()
        return frozenset(due)

    async def _purge(self) -> None:
        now = self._clock.now()
        rows = await self._store.purge(
            now - timedelta(seconds=self._settings.terminated_retention),
            now - timedelta(seconds=self._settings.request_retention),
        )
        if rows:
            _log.info("purged", rows=rows)
