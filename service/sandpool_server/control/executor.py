"""Does what the planner decides: creates, retires, expires and removes members.

Each creation and each removal is a task of its own, named, owned here, and bounded in number. What is being worked on
is known by id, so that a plan made meanwhile leaves it alone.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, assert_never

import structlog

from sandpool_server.control.readiness import wait_until_ready
from sandpool_server.control.settings import ControlSettings
from sandpool_server.domain.actions import (
    AbandonMember,
    Action,
    CancelLaunch,
    CheckImage,
    CreateMembers,
    ExpireSandbox,
    RemoveContainer,
    RetireMember,
    WakeAt,
)
from sandpool_server.domain.errors import FailedPrecondition, FailureReason, LaunchFailed, NotFound, Unavailable
from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, EndReason, Member, MemberEnd, PoolFailure, PullPolicy
from sandpool_server.domain.plan import InFlight
from sandpool_server.ports import Agents, Clock, Runtime, Store
from sandpool_server.usecases.changes import ChangeHub

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_BEING_MADE = frozenset({MemberState.CREATING, MemberState.STARTING})


class Executor:
    """Carries out actions, and launches sandboxes for callers: implements `ports.Launcher`."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        agents: Agents,
        clock: Clock,
        changes: ChangeHub,
        settings: ControlSettings,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._agents = agents
        self._clock = clock
        self._changes = changes
        self._settings = settings
        self._cold_slots = asyncio.Semaphore(settings.cold_parallelism)
        self._removal_slots = asyncio.Semaphore(settings.removal_parallelism)
        self._expected: set[str] = set()
        self._launches: dict[str, asyncio.Task[Any]] = {}
        self._refill_slots = asyncio.Semaphore(settings.refill_parallelism)
        self._refilling: set[str] = set()
        self._proven: dict[str, str] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._removal_failures: dict[str, int] = {}
        self._died: dict[str, int | None] = {}
        self._ending: set[str] = set()
        self._early_deaths: dict[str, tuple[int, datetime]] = {}
        self.engine_ready = asyncio.Event()
        """Set once the engine has what members share; until then nothing is launched."""

    # --- what the loop asks ---------------------------------------------------------------------------------------

    @property
    def free_slots(self) -> int:
        """How many creations for pools may be begun now; those that wait for their image take no slot."""
        return max(0, self._settings.refill_parallelism - len(self._refilling))

    def is_proven(self, pool_id: str, spec_digest: str) -> bool:
        """Whether the pool's latest member to become ready since this process started was of that spec."""
        return self._proven.get(pool_id) == spec_digest

    def in_flight(self) -> InFlight:
        """The members that this process works on."""
        launching = frozenset(self._expected | self._launches.keys())
        return InFlight(launching, frozenset(self._removals), frozenset(self._checks))

    async def execute(self, action: Action) -> None:
        """Carry out an action, or begin to; creations and removals go on behind. Raises `Unavailable` (the store)."""
        match action:
            case CreateMembers():
                await self._create(action)
            case RetireMember(member_id=member_id):
                await self._end(member_id, MemberState.WARM, EndReason.DELETED)
            case ExpireSandbox(member_id=member_id):
                now = self._clock.now()
                end = MemberEnd(EndReason.TIMED_OUT, now, "its lifetime passed")
                await self._store.end_members([member_id], frozenset({MemberState.ACTIVE}), end, expired_at=now)
            case AbandonMember(member_id=member_id):
                end = MemberEnd(EndReason.FAILED, self._clock.now(), "the server stopped while it was being started")
                await self._store.end_members([member_id], _BEING_MADE, end)
            case CancelLaunch(member_id=member_id):
                self._stop_launch(member_id)
            case RemoveContainer(member_id=member_id, pool_id=pool_id):
                self.begin_removal(member_id, pool_id)
            case CheckImage(pool_id=pool_id):
                self._checks[pool_id] = _begin(self._check_image(action), f"check-image-{pool_id}")
            case WakeAt():
                raise ValueError("the loop keeps the times to wake at")
            case _:
                assert_never(action)

    async def _end(self, member_id: str, state: MemberState, reason: EndReason) -> None:
        await self._store.end_members([member_id], frozenset({state}), MemberEnd(reason, self._clock.now()))

    # --- creation -------------------------------------------------------------------------------------------------

    @contextmanager
    def expecting(self, ids: Sequence[str]) -> Iterator[None]:
        """See `ports.Launcher.expecting`."""
        self._expected.update(ids)
        try:
            yield
        finally:
            self._expected.difference_update(ids)

    async def launch(self, member: Member) -> Member:
        """See `ports.Launcher.launch`."""
        task = self._spawn_launch(member, self._launch_cold(member))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Either the caller went away, or the sandbox was deleted and the loop cancelled the task.
            if task.cancelled() and not self._caller_cancelled():
                raise FailedPrecondition(
                    "SANDBOX_ENDED", f"sandbox {member.id!r} was deleted while it started", "sandbox", member.id
                ) from None
            task.cancel()
            raise

    @staticmethod
    def _caller_cancelled() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def _launch_cold(self, member: Member) -> Member:
        return await self._make(member, self._cold_slots)

    async def _create(self, action: CreateMembers) -> None:
        now = self._clock.now()
        ids = [new_id(SANDBOX, now, self._clock.random_bits()) for _ in range(action.count)]
        with self.expecting(ids):
            added = await self._store.add_members(action.pool_id, action.spec_digest, ids, now, action.waiting)
            for member in added:
                self._spawn_launch(member, self._refill(member))

    async def _refill(self, member: Member) -> None:
        try:
            await self._make(member, self._refill_slots)
        except (LaunchFailed, FailedPrecondition, Unavailable) as error:
            _log.warning("member_not_created", member=member.id, pool=member.pool_id, why=str(error))
        except Exception:
            _log.exception("member_not_created", member=member.id, pool=member.pool_id)
        finally:
            self._refilling.discard(member.id)

    def _spawn_launch(self, member: Member, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        task = asyncio.create_task(work, name=f"make-{member.id}")
        self._launches[member.id] = task

        def done(_: "asyncio.Task[_T]") -> None:
            self._launches.pop(member.id, None)
            self._died.pop(member.id, None)
            self._ending.discard(member.id)
            # A slot is free, and if the member is to be removed that can begin now.
            self._changes.publish(frozenset({member.id, member.pool_id}))

        task.add_done_callback(done)
        return task

    async def _make(self, member: Member, slots: asyncio.Semaphore) -> Member:
        """From a row to a member that runs commands. Whatever goes wrong, the row ends up REMOVING."""
        try:
            address = await self._start_container(member, slots)
            now = self._clock.now()
            waited = (now - (member.claim.claim_time if member.claim else member.create_time)).total_seconds()
            ready = await self._store.member_ready(member.id, address, now, waited)
        except LaunchFailed as error:
            self._ending.add(member.id)
            await asyncio.shield(self._failed(member, error))
            raise
        except asyncio.CancelledError:
            self._ending.add(member.id)
            if member.id not in self._died:
                await asyncio.shield(self._give_up(member, "its creation was stopped"))
                raise
            code = self._died[member.id]
            death = LaunchFailed(
                FailureReason.START_FAILED,
                f"the container's first process ended with exit code {code} while it was being started",
            )
            await asyncio.shield(self._failed(member, death))
            raise death from None
        except BaseException:
            await asyncio.shield(self._give_up(member, "an error of the server"))
            raise
        if member.pool_id:
            self._proven[member.pool_id] = member.spec_digest
        if ready is None:
            raise FailedPrecondition(
                "SANDBOX_ENDED", f"sandbox {member.id!r} was deleted while it started", "sandbox", member.id
            )
        return ready

    async def _start_container(self, member: Member, slots: asyncio.Semaphore) -> str:
        try:
            # A server that has just started needs a moment to find out about its engine.
            async with asyncio.timeout(self._settings.engine_wait):
                await self.engine_ready.wait()
        except TimeoutError:
            raise LaunchFailed(
                FailureReason.ENGINE_UNREACHABLE, "the container engine has not answered yet; is it running?"
            ) from None
        # Outside the slots: one pool's slow pull, or slow readiness, holds up no other pool.
        image = await self._runtime.ensure_image(member.spec.image, member.pull_policy)
        if member.claim is None:
            self._refilling.add(member.id)
        async with slots:
            address = await self._runtime.launch(member, self._agents.token_sha256(member.id))
            await self._agents.wait_ready(member.id, address, self._settings.ready_timeout)
            await self._agents.configure(member.id, address, image, member.spec)
        self._refilling.discard(member.id)
        await wait_until_ready(self._agents, member.id, address, member.spec)
        return address

    async def _failed(self, member: Member, error: LaunchFailed) -> None:
        end = MemberEnd(EndReason.FAILED, self._clock.now(), error.message)
        failure = await self._pool_failure(member.namespace, member.pool_id, error)
        await self._store.launch_failed(member.id, end, failure)

    async def _pool_failure(self, namespace: str, pool_id: str, error: LaunchFailed) -> PoolFailure | None:
        """The failure to write down, with the next attempt's time; None without a pool."""
        if not pool_id:
            return None
        try:
            view = await self._store.get_pool(namespace, pool_id)
        except NotFound:
            return None
        now = self._clock.now()
        early_deaths = self._early_deaths.get(pool_id, (0, now))[0] - 1
        consecutive = max(1 + (view.pool.failure.consecutive if view.pool.failure else 0), early_deaths)
        jitter = (self._clock.random_bits() & 0xFFFFFF) / 0x1000000
        next_time = now + self._settings.backoff.delay(consecutive, jitter)
        return PoolFailure(error.reason, error.message, now, next_time, consecutive)

    async def ready_member_died(self, member: Member, why: str) -> None:
        """Slow the pool down when its members die soon after they became ready: it would make them without end."""
        now, window = self._clock.now(), timedelta(seconds=self._settings.backoff.max_secs)
        if now - member.create_time > window:
            return
        count, last = self._early_deaths.get(member.pool_id, (0, now))
        count = count + 1 if now - last <= window else 1
        self._early_deaths[member.pool_id] = (count, now)
        if count == 1:
            return  # anything may die once; it is replaced at once
        error = LaunchFailed(FailureReason.START_FAILED, f"{why} soon after it became ready; does its entrypoint end?")
        failure = await self._pool_failure(member.namespace, member.pool_id, error)
        if failure is not None:
            await self._store.pool_failed(member.pool_id, member.spec_digest, failure)

    async def _check_image(self, action: CheckImage) -> None:
        """Look up what the tag names; a failure matters only where that was never known."""
        try:
            digest = (await self._runtime.ensure_image(action.image, PullPolicy.ALWAYS)).digest
            await self._store.pool_image(action.pool_id, action.image, digest, self._clock.now())
        except (LaunchFailed, Unavailable) as error:
            _log.warning("image_not_checked", pool=action.pool_id, image=action.image, why=str(error))
            await self._image_not_checked(action, error)
        finally:
            self._checks.pop(action.pool_id, None)
            self._changes.publish(frozenset({action.pool_id}))

    async def _image_not_checked(self, action: CheckImage, error: LaunchFailed | Unavailable) -> None:
        await self._store.pool_image(action.pool_id, action.image, None, self._clock.now())
        if isinstance(error, Unavailable):
            error = LaunchFailed(FailureReason.ENGINE_UNREACHABLE, error.message)
        view = await self._store.get_pool(DEFAULT_NAMESPACE, action.pool_id)
        failure = await self._pool_failure(view.pool.namespace, action.pool_id, error)
        if failure is not None and not view.pool.image_digest:
            await self._store.pool_failed(action.pool_id, view.pool.member_digest(), failure)

    async def _give_up(self, member: Member, why: str) -> None:
        await self._store.end_members([member.id], _BEING_MADE, MemberEnd(EndReason.FAILED, self._clock.now(), why))

    def container_died(self, member_id: str, exit_code: int | None) -> bool:
        """Fail the launch of a member whose container ended under it; False when it is not being launched."""
        if member_id not in self._launches:
            return False
        # A launch that is being stopped removes its container: that is no death of the member's own.
        if member_id not in self._ending:
            self._died[member_id] = exit_code
            self._stop_launch(member_id)
        return True

    def _stop_launch(self, member_id: str) -> None:
        """Cancel a launch, once: one that has failed already is writing that down and is not to be disturbed."""
        task = self._launches.get(member_id)
        if task is not None and member_id not in self._ending:
            self._ending.add(member_id)
            task.cancel()

    # --- removal --------------------------------------------------------------------------------------------------

    def begin_removal(self, member_id: str, pool_id: str = "") -> None:
        """Remove a member's container and then its row, behind; nothing happens if that is under way."""
        if member_id not in self._removals:
            self._removals[member_id] = _begin(self._remove(member_id, pool_id), f"remove-{member_id}")

    async def _remove(self, member_id: str, pool_id: str) -> None:
        failures = self._removal_failures.get(member_id, 0)
        try:
            if failures:
                await asyncio.sleep(self._settings.backoff.delay(failures, 0.0).total_seconds())
            async with self._removal_slots:
                self._agents.forget(member_id)
                await self._runtime.remove(member_id)
            await self._store.member_removed(member_id, self._clock.now())
            self._removal_failures.pop(member_id, None)
        except Unavailable as error:
            self._removal_failures[member_id] = failures + 1
            _log.warning("member_not_removed", member=member_id, why=str(error), attempt=failures + 1)
        finally:
            self._removals.pop(member_id, None)
            self._changes.publish(frozenset({member_id, pool_id}))

    # --- end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop all work. Containers that were being made are removed; those that run stay."""
        tasks = [*self._launches.values(), *self._removals.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _begin(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """A task whose unexpected end is logged; nobody waits for it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_unexpected)
    return task


def _log_unexpected(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("work_failed", what=task.get_name(), exc_info=error)
