"""The planner: everything that a pool needs next, decided from one snapshot.

Pure: no clock, no I/O, no await, no state. It looks at one pool at a time, so that a failing pool cannot disturb
another; what pools share, the number of creations under way at once, comes in as `slots`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sandpool_server.domain.actions import (
    AbandonMember,
    Action,
    CancelLaunch,
    CreateMembers,
    ExpireSandbox,
    RemoveContainer,
    RetireMember,
    RetireReason,
    WakeAt,
)
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, MemberState
from sandpool_server.domain.model import PoolFailure


@dataclass(frozen=True, slots=True)
class MemberSnapshot:
    """What the planner sees of a member. `expire_time` is a sandbox's only."""

    id: str
    state: MemberState
    spec_digest: str
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """What the planner sees of a pool and its members that are not gone.

    The snapshot with the empty id holds the members that belong to no pool: it wants nothing.
    """

    id: str
    spec_digest: str = ""
    warm_containers: int = 0
    max_containers: int | None = None
    paused: bool = False
    deleted: bool = False
    failure: PoolFailure | None = None
    members: tuple[MemberSnapshot, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class InFlight:
    """The members on which this process is at work: those being launched, and those being removed."""

    launching: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()


def plan(pool: PoolSnapshot, now: datetime, slots: int, in_flight: InFlight, proven: bool = True) -> tuple[Action, ...]:
    """Decide what one pool needs now.

    `slots` is how many creations may be begun now; `proven`, whether a member of this spec has been created before:
    else they are tried one at a time. The same input gives the same answer.
    """
    return (
        *_care_for_members(pool, now, in_flight),
        *_retire(pool),
        *_create(pool, now, slots, proven),
    )


def _care_for_members(pool: PoolSnapshot, now: datetime, in_flight: InFlight) -> Iterator[Action]:
    """Each member by itself: abandoned creations, lifetimes, removals."""
    deadlines = []
    for member in pool.members:
        if member.state is MemberState.ACTIVE and member.expire_time is not None:
            if member.expire_time <= now:
                yield ExpireSandbox(member.id)
            else:
                deadlines.append(member.expire_time)
        if member.state in (MemberState.CREATING, MemberState.STARTING):
            if member.id not in in_flight.launching:
                yield AbandonMember(member.id)
        elif member.state is MemberState.REMOVING:
            if member.id in in_flight.launching:
                yield CancelLaunch(member.id)
            elif member.id not in in_flight.removing:
                yield RemoveContainer(member.id, pool.id)
    if deadlines:
        yield WakeAt(pool.id, min(deadlines))


def _retire(pool: PoolSnapshot) -> Iterator[Action]:
    """Ready members that the pool does not want: of a deleted pool, of another spec, or too many.

    Stale ones stay until as many fresh ones are ready, so that a change never empties the pool at once, unless
    `max_containers` leaves no room for the fresh ones. They are not handed out meanwhile: a claim compares the spec.
    """
    warm = [member for member in pool.members if member.state is MemberState.WARM]
    if pool.deleted:
        yield from (RetireMember(member.id, RetireReason.POOL_DELETED) for member in warm)
        return
    fresh = [member for member in warm if member.spec_digest == pool.spec_digest]
    stale = [member for member in warm if member.spec_digest != pool.spec_digest]
    wanted = wanted_warm(pool)
    # The newest go first: the oldest have proved themselves for longest.
    for member in sorted(fresh, key=lambda m: m.id)[max(wanted, 0) :] if not pool.paused else ():
        yield RetireMember(member.id, RetireReason.EXCESS)
    short = max(0, wanted - len(fresh))
    for member in stale[short:]:
        yield RetireMember(member.id, RetireReason.STALE)
    # Stale ones in the way of fresh ones: one by one, as slots for creation come free.
    if short and pool.max_containers is not None and _counted(pool) >= pool.max_containers:
        making = any(m.state in (MemberState.CREATING, MemberState.REMOVING) for m in pool.members)
        if stale and not making:
            yield RetireMember(stale[0].id, RetireReason.STALE)


def _create(pool: PoolSnapshot, now: datetime, slots: int, proven: bool) -> Iterator[Action]:
    """What is missing, within `max_containers`, the slots, and the back-off after failures."""
    count = missing(pool)
    if count > 0 and pool.failure is not None and now < pool.failure.next_attempt_time:
        yield WakeAt(pool.id, pool.failure.next_attempt_time)
        return
    count = min(count, slots)
    if pool.failure is not None or not proven:
        count = min(count, 1 - sum(member.state is MemberState.CREATING for member in pool.members))
    if count > 0:
        yield CreateMembers(pool.id, pool.spec_digest, count)


def missing(pool: PoolSnapshot) -> int:
    """How many members more the pool wants and has room for; what is being created counts as there."""
    there = sum(
        member.state in (MemberState.WARM, MemberState.CREATING) and member.spec_digest == pool.spec_digest
        for member in pool.members
    )
    count = wanted_warm(pool) - there
    if pool.max_containers is not None:
        count = min(count, pool.max_containers - _counted(pool))
    return max(0, count)


def wanted_warm(pool: PoolSnapshot) -> int:
    """How many ready members the pool aims at now."""
    if pool.paused or pool.deleted or not pool.id:
        return 0
    if pool.max_containers is None:
        return pool.warm_containers
    in_use = sum(member.state in IN_USE for member in pool.members)
    return max(0, min(pool.warm_containers, pool.max_containers - in_use))


def _counted(pool: PoolSnapshot) -> int:
    """All members that count against `max_containers`."""
    return sum(member.state in COUNTED for member in pool.members)
