"""The control loop: snapshot, plan, execute; woken by changes, engine events and times.

One task follows the engine's events, one plans, and one for each watch looks at what nobody tells. All outlive any
failure of engine and database: they wait and begin again with a look at everything.
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
from sandpool_server.domain.actions import CreateMembers, WakeAt
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.ids import POOL
from sandpool_server.domain.plan import PoolSnapshot, missing, plan
from sandpool_server.ports import Clock, Line, Runtime, RuntimeEventKind, Store
from sandpool_server.usecases.changes import ChangeHub, Subscription

_log = structlog.get_logger(__name__)

_NO_POOL = ""

_REST = 3.0
"""How many times the length of a round of planning passes before the next: it takes a quarter of the time at most."""


class Watch(Protocol):
    """Something that is looked at now and then."""

    async def run(self) -> None:
        """Look for ever. Raises `Unavailable` when what it needs does not answer; it is begun again then."""
        ...


class ControlLoop:
    """Keeps every pool as its owner wants it."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        executor: Executor,
        events: EventHandler,
        clock: Clock,
        changes: ChangeHub,
        line: Line,
        watches: Sequence[Watch],
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._executor = executor
        self._events = events
        self._clock = clock
        self._changes = changes
        self._line = line
        self._watches = watches
        self._settings = settings
        self._wakes: dict[str, datetime] = {}
        self._waiting_for_slots: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [
            asyncio.create_task(self._for_ever("events", self._follow_events), name="engine-events"),
            asyncio.create_task(self._for_ever("planning", self._plan_rounds), name="planning"),
        ]
        for watch in self._watches:
            name = type(watch).__name__
            self._tasks.append(asyncio.create_task(self._for_ever(name, watch.run), name=name))

    async def stop(self) -> None:
        """End both tasks and all work in progress. Containers that run stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._executor.close()

    async def _for_ever(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            try:
                await work()
            except Unavailable as error:
                _log.warning("control_interrupted", what=what, why=str(error))
            except Exception:
                # A bug in one round must not end the care for all pools; it is logged with its traceback.
                _log.exception("control_failed", what=what)
            failures = 1 if self._clock.monotonic() - began > self._settings.resync_interval else failures + 1
            await asyncio.sleep(self._settings.backoff.delay(failures, 0.0).total_seconds())

    # --- events ---------------------------------------------------------------------------------------------------

    async def _follow_events(self) -> None:
        async with aclosing(self._runtime.events()) as events:
            async for event in events:
                if event.kind is RuntimeEventKind.RESYNC:
                    # What members share may have gone with whatever interrupted the events.
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
                began = self._clock.monotonic()
                for snapshot in await self._store.snapshot(due):
                    await self._plan(snapshot)
                due = await self._next_due(subscription, self._clock.monotonic() - began)
                if self._clock.monotonic() - last_full >= self._settings.round_interval:
                    due, last_full = None, self._clock.monotonic()
                    await self._purge()

    async def _plan(self, snapshot: PoolSnapshot) -> None:
        """One pool's round. What one pool cannot get is no reason to stop the others."""
        self._wakes.pop(snapshot.id, None)
        waiting = self._line.waiting(snapshot.id)
        unmet = missing(snapshot, waiting)
        slots, proven = self._executor.free_slots, self._executor.is_proven(snapshot.id, snapshot.spec_digest)
        for action in plan(snapshot, self._clock.now(), slots, self._executor.in_flight(), proven, waiting):
            if isinstance(action, WakeAt):
                self._wakes[action.pool_id] = min(action.time, self._wakes.get(action.pool_id, action.time))
                continue
            await self._executor.execute(action)
            if isinstance(action, CreateMembers):
                unmet -= action.count
        if unmet > 0:
            self._waiting_for_slots.add(snapshot.id)

    async def _next_due(self, subscription: Subscription, planned_secs: float) -> frozenset[str]:
        """Wait for something to do; returns the pools to look at. `planned_secs` is how long the last round took."""
        now = self._clock.now()
        next_wake = min([*self._wakes.values(), now + timedelta(seconds=self._settings.round_interval)])
        changed: frozenset[str] = frozenset()
        try:
            async with asyncio.timeout(max(0.0, (next_wake - now).total_seconds())):
                changed = await subscription.next()
        except TimeoutError:
            pass
        # What changed is answered first: the callers' own work is not made to wait for planning. With large pools a
        # round takes as long as a few claims; then what happens meanwhile is planned for together.
        rest = min(_REST * planned_secs, self._settings.max_interval)
        await asyncio.sleep(max(self._settings.min_interval, rest))
        now = self._clock.now()
        due = {pool_id for pool_id, time in self._wakes.items() if time <= now}
        # A change of a member names its pool too; those without a pool are cheap to look at.
        due |= {pool_id for pool_id in changed if pool_id.startswith(f"{POOL}-")} | {_NO_POOL}
        if self._executor.free_slots > 0:
            due |= self._waiting_for_slots
            self._waiting_for_slots.clear()
        return frozenset(due)

    async def _purge(self) -> None:
        now = self._clock.now()
        rows = await self._store.purge(
            now - timedelta(seconds=self._settings.ended_retention),
            now - timedelta(seconds=self._settings.request_retention),
        )
        if rows:
            _log.info("purged", rows=rows)
