"""The planner: computes the next actions for a pool from one snapshot.

`plan` is a pure function without clock, I/O and state. It handles one pool at a time, so that a failing pool does not
affect the others. Pools share only the limit of concurrent creations, which is the argument `slots`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandpool_server.domain.actions import (
    AbandonInstance,
    Action,
    CancelLaunch,
    CheckImage,
    CreateInstances,
    ExpireSandbox,
    RemoveContainer,
    RetireInstance,
    RetireReason,
    WakeAt,
)
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, InstanceState
from sandpool_server.domain.model import PoolFailure


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """The properties of an instance that the planner uses. Only sandboxes have an `expire_time`."""

    id: str
    state: InstanceState
    spec_digest: str
    expire_time: datetime | None = None
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The properties of a pool and of its existing instances that the planner uses.

    The snapshot with the empty id contains the instances that belong to no pool; its desired number of instances is 0.
    """

    id: str
    spec_digest: str = ""
    warm_containers: int = 0
    max_containers: int | None = None
    paused: bool = False
    drained: bool = False
    deleted: bool = False
    warm_ttl_secs: float = 0.0
    image: str = ""
    image_refresh_interval_secs: float = 0.0
    image_digest: str = ""
    image_check_time: datetime | None = None
    failure: PoolFailure | None = None
    instances: tuple[InstanceSnapshot, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class InFlight:
    """The work in progress in this process: launches and removals of instances, and image checks of pools."""

    launching: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()
    checking: frozenset[str] = frozenset()


def plan(
    pool: PoolSnapshot, now: datetime, slots: int, in_flight: InFlight, proven: bool = True, waiting: int = 0
) -> tuple[Action, ...]:
    """Return the next actions for a pool. The same arguments always give the same actions.

    Args:
        pool: The current state of the pool and its instances.
        now: The current time.
        slots: The number of creations that can start now.
        in_flight: The work in progress in this process.
        proven: Whether an instance of the current specification has become ready before. If not, the planner creates
            one instance at a time.
        waiting: The number of sandboxes that callers in the wait queue need.
    """
    return (
        *_plan_instances(pool, now, in_flight),
        *_retire(pool, now, waiting),
        *_check_image(pool, now, in_flight),
        *_create(pool, now, slots, proven, waiting),
    )


def _plan_instances(pool: PoolSnapshot, now: datetime, in_flight: InFlight) -> Iterator[Action]:
    """Yield the actions that depend on one instance only: expired lifetimes, interrupted creations and removals."""
    deadlines = []
    for instance in pool.instances:
        if instance.state is InstanceState.ACTIVE and instance.expire_time is not None:
            if instance.expire_time <= now:
                yield ExpireSandbox(instance.id)
            else:
                deadlines.append(instance.expire_time)
        if instance.state in (InstanceState.CREATING, InstanceState.STARTING):
            if instance.id not in in_flight.launching:
                yield AbandonInstance(instance.id)
        elif instance.state is InstanceState.REMOVING:
            if instance.id in in_flight.launching:
                yield CancelLaunch(instance.id)
            elif instance.id not in in_flight.removing:
                yield RemoveContainer(instance.id, pool.id)
    if deadlines:
        yield WakeAt(pool.id, min(deadlines))


def _retire(pool: PoolSnapshot, now: datetime, waiting: int) -> Iterator[Action]:
    """Yield the removals of warm instances that the pool must not have.

    These are the instances of a deleted or drained pool, outdated ones, surplus ones, and ones past `warm_ttl_secs`.
    """
    warm = [instance for instance in pool.instances if instance.state is InstanceState.WARM]
    if pool.deleted or pool.drained:
        reason = RetireReason.POOL_DELETED if pool.deleted else RetireReason.POOL_DRAINED
        yield from (RetireInstance(instance.id, reason) for instance in warm)
        return
    current = sorted((i for i in warm if i.spec_digest == pool.spec_digest), key=lambda i: i.id)
    outdated = [i for i in warm if i.spec_digest != pool.spec_digest]
    desired = desired_warm(pool, waiting)
    yield from _retire_outdated(pool, outdated, max(0, desired - len(current)))
    if pool.paused:
        return
    # Remove the newest instances first: the older ones have passed more health checks.
    for instance in current[desired:]:
        yield RetireInstance(instance.id, RetireReason.EXCESS)
    yield from _retire_aged(pool, current[:desired], now)


def _retire_outdated(pool: PoolSnapshot, outdated: list[InstanceSnapshot], shortfall: int) -> Iterator[Action]:
    """Yield the removals of outdated instances (rolling replacement).

    For each current instance that is not ready yet (`shortfall`), one outdated instance stays. A change therefore does
    not remove all instances of the pool at once. Claims do not use outdated instances, because they compare the digest.
    If `max_containers` leaves no room for current instances, the planner removes one outdated instance at a time.
    """
    for instance in outdated[shortfall:]:
        yield RetireInstance(instance.id, RetireReason.STALE)
    if outdated and shortfall and pool.max_containers is not None and _counted(pool) >= pool.max_containers:
        busy = any(i.state in (InstanceState.CREATING, InstanceState.REMOVING) for i in pool.instances)
        if not busy:
            yield RetireInstance(outdated[0].id, RetireReason.STALE)


def _retire_aged(pool: PoolSnapshot, current: list[InstanceSnapshot], now: datetime) -> Iterator[Action]:
    """Yield the removal of the oldest instance past `warm_ttl_secs`, if the pool can replace it.

    The planner removes one instance at a time, and none after a failure to create instances.
    """
    if not pool.warm_ttl_secs or pool.failure is not None:
        return
    expirations = sorted(
        (instance.create_time + _warm_ttl(instance.id, pool.warm_ttl_secs), instance.id)
        for instance in current
        if instance.create_time
    )
    if not expirations:
        return
    if expirations[0][0] > now:
        yield WakeAt(pool.id, expirations[0][0])
    elif not any(i.state in (InstanceState.CREATING, InstanceState.REMOVING) for i in pool.instances):
        yield RetireInstance(expirations[0][1], RetireReason.AGED)


def _warm_ttl(instance_id: str, warm_ttl_secs: float) -> timedelta:
    """Return the maximum age of a warm instance.

    It is up to one fifth shorter than `warm_ttl_secs`, depending on the id, so that instances that were created at the
    same time do not expire at the same time.
    """
    jitter = sum(instance_id.encode()) % 64 / 64 / 5
    return timedelta(seconds=warm_ttl_secs * (1 - jitter))


def _check_image(pool: PoolSnapshot, now: datetime, in_flight: InFlight) -> Iterator[Action]:
    """Yield the check of the image's tag when it is due, or the time of the next check."""
    if not pool.image_refresh_interval_secs or _closed(pool) or pool.id in in_flight.checking:
        return
    due = pool.image_check_time and pool.image_check_time + timedelta(seconds=pool.image_refresh_interval_secs)
    if not pool.image_digest and pool.failure is not None:
        # The first check failed. Until one succeeds, checks follow the backoff of creations.
        due = pool.failure.next_attempt_time
    if due is None or due <= now:
        yield CheckImage(pool.id, pool.image)
    else:
        yield WakeAt(pool.id, due)


def _create(pool: PoolSnapshot, now: datetime, slots: int, proven: bool, waiting: int) -> Iterator[Action]:
    """Yield the creation of the missing instances, limited by `max_containers`, the slots and the failure backoff."""
    count = missing(pool, waiting)
    if count > 0 and pool.failure is not None and now < pool.failure.next_attempt_time:
        yield WakeAt(pool.id, pool.failure.next_attempt_time)
        return
    count = min(count, slots)
    if pool.failure is not None or not proven:
        count = min(count, 1 - sum(instance.state is InstanceState.CREATING for instance in pool.instances))
    if count > 0:
        yield CreateInstances(pool.id, pool.spec_digest, count, waiting)


def missing(pool: PoolSnapshot, waiting: int = 0) -> int:
    """Return the number of instances to create. Instances in the state CREATING count as existing ones."""
    if pool.image_refresh_interval_secs and not pool.image_digest:
        return 0  # The digest of the image is not known yet.
    existing = sum(
        instance.state in (InstanceState.WARM, InstanceState.CREATING) and instance.spec_digest == pool.spec_digest
        for instance in pool.instances
    )
    count = desired_warm(pool, waiting) - existing
    if pool.max_containers is not None:
        count = min(count, pool.max_containers - _counted(pool))
    return max(0, count)


def desired_warm(pool: PoolSnapshot, waiting: int = 0) -> int:
    """Return the number of warm instances that the pool aims at now, including `waiting` ones for waiting callers."""
    if _closed(pool) or not pool.id:
        return 0
    desired = pool.warm_containers + waiting
    if pool.max_containers is None:
        return desired
    in_use = sum(instance.state in IN_USE for instance in pool.instances)
    return max(0, min(desired, pool.max_containers - in_use))


def _closed(pool: PoolSnapshot) -> bool:
    """Return whether the pool creates no instances."""
    return pool.paused or pool.drained or pool.deleted


def _counted(pool: PoolSnapshot) -> int:
    """Return the number of instances that count towards `max_containers`."""
    return sum(instance.state in COUNTED for instance in pool.instances)
