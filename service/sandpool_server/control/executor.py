"""The executor of the planner's actions: it creates, terminates and removes instances.

Each creation and each removal runs in its own named task. The executor owns the tasks and limits their number.
`in_flight` returns the ids of the instances in progress, so that the next plan does not repeat their actions.
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
    AbandonInstance,
    Action,
    CancelLaunch,
    CheckImage,
    CreateInstances,
    ExpireSandbox,
    RemoveContainer,
    RetireInstance,
    WakeAt,
)
from sandpool_server.domain.errors import FailedPrecondition, FailureReason, LaunchFailed, NotFound, Unavailable
from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Instance, PoolFailure, Termination, TerminationReason
from sandpool_server.domain.plan import InFlight
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import Agents, Clock, Runtime, Store
from sandpool_server.usecases.changes import ChangeHub

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_CREATING_OR_STARTING = frozenset({InstanceState.CREATING, InstanceState.STARTING})


class Executor:
    """Executes actions and starts sandboxes for callers. Implements `interfaces.Launcher`."""

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
        # By pool id: the digest of the last instance that became ready.
        self._proven: dict[str, str] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._removal_failures: dict[str, int] = {}
        # Exit codes of containers that exited during their launch, by instance id.
        self._launch_exits: dict[str, int | None] = {}
        # Launches that have failed or were cancelled, and that are cleaning up.
        self._stopping: set[str] = set()
        # By pool id: the number of instances that exited soon after they became ready, and the time of the last one.
        self._early_exits: dict[str, tuple[int, datetime]] = {}
        self.engine_ready = asyncio.Event()
        """Set when the engine has the shared resources of the instances. Launches wait for it."""

    # --- queries of the control loop ------------------------------------------------------------------------------

    @property
    def free_slots(self) -> int:
        """The number of creations for pools that can start now. A creation that waits for its image uses no slot."""
        return max(0, self._settings.refill_parallelism - len(self._refilling))

    def is_proven(self, pool_id: str, spec_digest: str) -> bool:
        """Return whether the pool's last instance that became ready in this process has the digest `spec_digest`."""
        return self._proven.get(pool_id) == spec_digest

    def in_flight(self) -> InFlight:
        """Return the work in progress in this process."""
        launching = frozenset(self._expected | self._launches.keys())
        return InFlight(launching, frozenset(self._removals), frozenset(self._checks))

    async def execute(self, action: Action) -> None:
        """Execute an action. Creations, removals and image checks only start here and continue in the background.

        Raises:
            Unavailable: the store does not respond.
        """
        match action:
            case CreateInstances():
                await self._create_instances(action)
            case RetireInstance(instance_id=instance_id):
                await self._terminate(instance_id, InstanceState.WARM, TerminationReason.DELETED)
            case ExpireSandbox(instance_id=instance_id):
                now = self._clock.now()
                end = Termination(TerminationReason.TIMED_OUT, now, "its lifetime has expired")
                await self._store.end_instances([instance_id], frozenset({InstanceState.ACTIVE}), end, expired_at=now)
            case AbandonInstance(instance_id=instance_id):
                message = "the server stopped while the sandbox was starting"
                end = Termination(TerminationReason.FAILED, self._clock.now(), message)
                await self._store.end_instances([instance_id], _CREATING_OR_STARTING, end)
            case CancelLaunch(instance_id=instance_id):
                self._cancel_launch(instance_id)
            case RemoveContainer(instance_id=instance_id, pool_id=pool_id):
                self.begin_removal(instance_id, pool_id)
            case CheckImage(pool_id=pool_id):
                self._checks[pool_id] = _start_task(self._check_image(action), f"check-image-{pool_id}")
            case WakeAt():
                raise ValueError("the control loop handles WakeAt; the executor does not accept it")
            case _:
                assert_never(action)

    async def _terminate(self, instance_id: str, state: InstanceState, reason: TerminationReason) -> None:
        await self._store.end_instances([instance_id], frozenset({state}), Termination(reason, self._clock.now()))

    # --- creation -------------------------------------------------------------------------------------------------

    @contextmanager
    def expecting(self, ids: Sequence[str]) -> Iterator[None]:
        """See `interfaces.Launcher.expecting`."""
        self._expected.update(ids)
        try:
            yield
        finally:
            self._expected.difference_update(ids)

    async def launch(self, instance: Instance) -> Instance:
        """See `interfaces.Launcher.launch`."""
        task = self._spawn_launch(instance, self._launch_cold(instance))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Either the caller is cancelled, or the sandbox was deleted and the control loop cancelled the task.
            if task.cancelled() and not self._caller_cancelled():
                raise FailedPrecondition(
                    "SANDBOX_TERMINATED",
                    f"sandbox {instance.id!r} was deleted while it started; create a new one",
                    "sandbox",
                    instance.id,
                ) from None
            task.cancel()
            raise

    @staticmethod
    def _caller_cancelled() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def _launch_cold(self, instance: Instance) -> Instance:
        return await self._create_instance(instance, self._cold_slots)

    async def _create_instances(self, action: CreateInstances) -> None:
        now = self._clock.now()
        ids = [new_id(SANDBOX, now, self._clock.random_bits()) for _ in range(action.count)]
        with self.expecting(ids):
            added = await self._store.add_instances(action.pool_id, action.spec_digest, ids, now, action.waiting)
            for instance in added:
                self._spawn_launch(instance, self._refill(instance))

    async def _refill(self, instance: Instance) -> None:
        try:
            await self._create_instance(instance, self._refill_slots)
        except (LaunchFailed, FailedPrecondition, Unavailable) as error:
            _log.warning("instance_not_created", instance=instance.id, pool=instance.pool_id, error=str(error))
        except Exception:
            _log.exception("instance_not_created", instance=instance.id, pool=instance.pool_id)
        finally:
            self._refilling.discard(instance.id)

    def _spawn_launch(self, instance: Instance, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        task = asyncio.create_task(work, name=f"create-{instance.id}")
        self._launches[instance.id] = task

        def done(_: "asyncio.Task[_T]") -> None:
            self._launches.pop(instance.id, None)
            self._launch_exits.pop(instance.id, None)
            self._stopping.discard(instance.id)
            # Wake the control loop: a slot is free, and the removal of a failed instance can start.
            self._changes.publish(frozenset({instance.id, instance.pool_id}))

        task.add_done_callback(done)
        return task

    async def _create_instance(self, instance: Instance, slots: asyncio.Semaphore) -> Instance:
        """Create the container of an instance and return the instance when it is ready.

        After any error the state of the instance is REMOVING.
        """
        try:
            address = await self._start_container(instance, slots)
            now = self._clock.now()
            waited = (now - (instance.claim.claim_time if instance.claim else instance.create_time)).total_seconds()
            ready = await self._store.instance_ready(instance.id, address, now, waited)
        except LaunchFailed as error:
            self._stopping.add(instance.id)
            await asyncio.shield(self._record_failure(instance, error))
            raise
        except asyncio.CancelledError:
            self._stopping.add(instance.id)
            if instance.id not in self._launch_exits:
                await asyncio.shield(self._abandon(instance, "its creation was cancelled"))
                raise
            code = self._launch_exits[instance.id]
            failure = LaunchFailed(
                FailureReason.START_FAILED,
                f"the first process exited with exit code {code} during the start; check the entrypoint",
            )
            await asyncio.shield(self._record_failure(instance, failure))
            raise failure from None
        except BaseException:
            await asyncio.shield(self._abandon(instance, "an internal error of the server"))
            raise
        if instance.pool_id:
            self._proven[instance.pool_id] = instance.spec_digest
        if ready is None:
            raise FailedPrecondition(
                "SANDBOX_TERMINATED",
                f"sandbox {instance.id!r} was deleted while it started; create a new one",
                "sandbox",
                instance.id,
            )
        return ready

    async def _start_container(self, instance: Instance, slots: asyncio.Semaphore) -> str:
        try:
            # Directly after the start of the server, the engine may not be ready yet.
            async with asyncio.timeout(self._settings.engine_wait):
                await self.engine_ready.wait()
        except TimeoutError:
            raise LaunchFailed(
                FailureReason.ENGINE_UNREACHABLE,
                f"the engine did not respond within {self._settings.engine_wait:g} s; check that it is running",
            ) from None
        # The pull and the readiness probe use no slot, so a slow one in one pool does not delay the other pools.
        image = await self._runtime.ensure_image(instance.spec.image, instance.spec.pull_policy)
        if instance.claim is None:
            self._refilling.add(instance.id)
        async with slots:
            address = await self._runtime.launch(instance, self._agents.token_sha256(instance.id))
            await self._agents.wait_ready(instance.id, address, self._settings.ready_timeout)
            await self._agents.configure(instance.id, address, image, instance.spec)
        self._refilling.discard(instance.id)
        await wait_until_ready(self._agents, instance.id, address, instance.spec)
        return address

    async def _record_failure(self, instance: Instance, error: LaunchFailed) -> None:
        end = Termination(TerminationReason.FAILED, self._clock.now(), error.message)
        failure = await self._pool_failure(instance.namespace, instance.pool_id, error)
        await self._store.launch_failed(instance.id, end, failure)

    async def _pool_failure(self, namespace: str, pool_id: str, error: LaunchFailed) -> PoolFailure | None:
        """Return the failure of the pool with the time of the next attempt; None if there is no pool."""
        if not pool_id:
            return None
        try:
            view = await self._store.get_pool(namespace, pool_id)
        except NotFound:
            return None
        now = self._clock.now()
        early_exits = self._early_exits.get(pool_id, (0, now))[0] - 1
        consecutive = max(1 + (view.pool.failure.consecutive if view.pool.failure else 0), early_exits)
        jitter = (self._clock.random_bits() & 0xFFFFFF) / 0x1000000
        next_time = now + self._settings.backoff.delay(consecutive, jitter)
        return PoolFailure(error.reason, error.message, now, next_time, consecutive)

    async def warm_instance_exited(self, instance: Instance, cause: str) -> None:
        """Record a failure of the pool if its instances exit soon after they became ready.

        Without the backoff after a failure, the pool would create such instances in an endless loop. `cause` is the
        beginning of the failure's message.
        """
        now, window = self._clock.now(), timedelta(seconds=self._settings.backoff.max_secs)
        if now - instance.create_time > window:
            return
        count, last = self._early_exits.get(instance.pool_id, (0, now))
        count = count + 1 if now - last <= window else 1
        self._early_exits[instance.pool_id] = (count, now)
        if count == 1:
            return  # A single exit is no failure of the pool: the instance is replaced immediately.
        error = LaunchFailed(
            FailureReason.START_FAILED, f"{cause} soon after it became ready; check that its entrypoint keeps running"
        )
        failure = await self._pool_failure(instance.namespace, instance.pool_id, error)
        if failure is not None:
            await self._store.pool_failed(instance.pool_id, instance.spec_digest, failure)

    async def _check_image(self, action: CheckImage) -> None:
        """Resolve the tag of the image. A failure affects the pool only if the digest has never been known."""
        try:
            digest = (await self._runtime.ensure_image(action.image, PullPolicy.ALWAYS)).digest
            await self._store.pool_image(action.pool_id, action.image, digest, self._clock.now())
        except (LaunchFailed, Unavailable) as error:
            _log.warning("image_not_checked", pool=action.pool_id, image=action.image, error=str(error))
            await self._record_check_failure(action, error)
        finally:
            self._checks.pop(action.pool_id, None)
            self._changes.publish(frozenset({action.pool_id}))

    async def _record_check_failure(self, action: CheckImage, error: LaunchFailed | Unavailable) -> None:
        await self._store.pool_image(action.pool_id, action.image, None, self._clock.now())
        if isinstance(error, Unavailable):
            error = LaunchFailed(FailureReason.ENGINE_UNREACHABLE, error.message)
        view = await self._store.get_pool(DEFAULT_NAMESPACE, action.pool_id)
        failure = await self._pool_failure(view.pool.namespace, action.pool_id, error)
        if failure is not None and not view.pool.image_digest:
            await self._store.pool_failed(action.pool_id, view.pool.instance_digest(), failure)

    async def _abandon(self, instance: Instance, message: str) -> None:
        await self._store.end_instances(
            [instance.id], _CREATING_OR_STARTING, Termination(TerminationReason.FAILED, self._clock.now(), message)
        )

    def container_exited(self, instance_id: str, exit_code: int | None) -> bool:
        """Fail the launch of an instance whose container exited. Return False if the instance is not being launched."""
        if instance_id not in self._launches:
            return False
        # A failed or cancelled launch removes its container itself: this exit is not the cause of the failure.
        if instance_id not in self._stopping:
            self._launch_exits[instance_id] = exit_code
            self._cancel_launch(instance_id)
        return True

    def _cancel_launch(self, instance_id: str) -> None:
        """Cancel a launch. Does nothing if the launch has failed or was cancelled before, because it is cleaning up."""
        task = self._launches.get(instance_id)
        if task is not None and instance_id not in self._stopping:
            self._stopping.add(instance_id)
            task.cancel()

    # --- removal --------------------------------------------------------------------------------------------------

    def begin_removal(self, instance_id: str, pool_id: str = "") -> None:
        """Start to remove the container and then the row of an instance, unless the removal is in progress already."""
        if instance_id not in self._removals:
            self._removals[instance_id] = _start_task(self._remove(instance_id, pool_id), f"remove-{instance_id}")

    async def _remove(self, instance_id: str, pool_id: str) -> None:
        failures = self._removal_failures.get(instance_id, 0)
        try:
            if failures:
                await asyncio.sleep(self._settings.backoff.delay(failures, 0.0).total_seconds())
            async with self._removal_slots:
                self._agents.forget(instance_id)
                await self._runtime.remove(instance_id)
            await self._store.instance_removed(instance_id, self._clock.now())
            self._removal_failures.pop(instance_id, None)
        except Unavailable as error:
            self._removal_failures[instance_id] = failures + 1
            _log.warning("instance_not_removed", instance=instance_id, error=str(error), attempt=failures + 1)
        finally:
            self._removals.pop(instance_id, None)
            self._changes.publish(frozenset({instance_id, pool_id}))

    # --- shutdown -------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Cancel all tasks. Containers that are being created are removed; running containers stay."""
        tasks = [*self._launches.values(), *self._removals.values(), *self._checks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _start_task(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    """Start a background task. An exception of the task is logged."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_unexpected)
    return task


def _log_unexpected(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task_failed", task=task.get_name(), exc_info=error)
