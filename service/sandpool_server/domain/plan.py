"""The planner: everything that a pool needs next, decided from one snapshot.

Pure: no clock, no I/O, no await, no state. It looks at one pool at a time, so that a failing pool cannot disturb
another; what pools share, the number of creations under way at once, comes in as `slots`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandpool_server.domain.actions import (
    AbandonMember,
    Action,
    CancelLaunch,
    CheckImage,
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
    create_time: datetime | None = None


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
    drain: bool = False
    deleted: bool = False
    max_age_secs: int = 0
    image: str = ""
    image_check_secs: int = 0
    image_digest: str = ""
    image_check_time: datetime | None = None
    failure: PoolFailure | None = None
    members: tuple[MemberSnapshot, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class InFlight:
    """What this process is at work on: members being launched or removed, and pools whose image is being looked up."""

    launching: frozenset[str] = frozenset()
    removing: frozenset[str] = frozenset()
    checking: frozenset[str] = frozenset()


def plan(
    pool: PoolSnapshot, now: datetime, slots: int, in_flight: InFlight, proven: bool = True, waiting: int = 0
) -> tuple[Action, ...]:
    """Decide what one pool needs now.

    `slots` is how many creations may be begun now; `proven`, whether a member of this spec has been created before:
    else they are tried one at a time; `waiting`, for how many sandboxes callers wait in line. The same input gives the
    same answer.
    """
    return (
        *_care_for_members(pool, now, in_flight),
        *_retire(pool, now, waiting),
        *_check_image(pool, now, in_flight),
        *_create(pool, now, slots, proven, waiting),
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


def _retire(pool: PoolSnapshot, now: datetime, waiting: int) -> Iterator[Action]:
    """Ready members that the pool does not want: of a deleted or drained pool, of another spec, too many, too old."""
    warm = [member for member in pool.members if member.state is MemberState.WARM]
    if pool.deleted or pool.drain:
        reason = RetireReason.POOL_DELETED if pool.deleted else RetireReason.POOL_DRAINED
        yield from (RetireMember(member.id, reason) for member in warm)
        return
    fresh = sorted((m for m in warm if m.spec_digest == pool.spec_digest), key=lambda m: m.id)
    stale = [m for m in warm if m.spec_digest != pool.spec_digest]
    wanted = wanted_warm(pool, waiting)
    yield from _retire_stale(pool, stale, max(0, wanted - len(fresh)))
    if pool.paused:
        return
    # The newest go first: the oldest have proved themselves for longest.
    for member in fresh[wanted:]:
        yield RetireMember(member.id, RetireReason.EXCESS)
    yield from _retire_aged(pool, fresh[:wanted], now)


def _retire_stale(pool: PoolSnapshot, stale: list[MemberSnapshot], short: int) -> Iterator[Action]:
    """Stale members stay until as many fresh ones are ready, so that a change never empties the pool at once.

    They are not handed out meanwhile: a claim compares the spec. Where `max_containers` leaves no room for fresh ones,
    stale ones make room one by one.
    """
    for member in stale[short:]:
        yield RetireMember(member.id, RetireReason.STALE)
    if stale and short and pool.max_containers is not None and _counted(pool) >= pool.max_containers:
        busy = any(m.state in (MemberState.CREATING, MemberState.REMOVING) for m in pool.members)
        if not busy:
            yield RetireMember(stale[0].id, RetireReason.STALE)


def _retire_aged(pool: PoolSnapshot, fresh: list[MemberSnapshot], now: datetime) -> Iterator[Action]:
    """Members past the pool's maximum age, one at a time, and only while the pool can replace them."""
    if not pool.max_age_secs or pool.failure is not None:
        return
    ends = sorted(
        (member.create_time + _longest_age(member.id, pool.max_age_secs), member.id)
        for member in fresh
        if member.create_time
    )
    if not ends:
        return
    if ends[0][0] > now:
        yield WakeAt(pool.id, ends[0][0])
    elif not any(m.state in (MemberState.CREATING, MemberState.REMOVING) for m in pool.members):
        yield RetireMember(ends[0][1], RetireReason.AGED)


def _longest_age(member_id: str, max_age_secs: int) -> timedelta:
    """How old a member may become: up to a fifth less, by its id, so that those made together do not go together."""
    jitter = sum(member_id.encode()) % 64 / 64 / 5
    return timedelta(seconds=max_age_secs * (1 - jitter))


def _check_image(pool: PoolSnapshot, now: datetime, in_flight: InFlight) -> Iterator[Action]:
    """Whether the image's tag has moved, where the pool wants to know."""
    if not pool.image_check_secs or _closed(pool) or pool.id in in_flight.checking:
        return
    due = pool.image_check_time and pool.image_check_time + timedelta(seconds=pool.image_check_secs)
    if not pool.image_digest and pool.failure is not None:
        # It could not be looked up at all: then it is tried as often as creations are.
        due = pool.failure.next_attempt_time
    if due is None or due <= now:
        yield CheckImage(pool.id, pool.image)
    else:
        yield WakeAt(pool.id, due)


def _create(pool: PoolSnapshot, now: datetime, slots: int, proven: bool, waiting: int) -> Iterator[Action]:
    """What is missing, within `max_containers`, the slots, and the back-off after failures."""
    count = missing(pool, waiting)
    if count > 0 and pool.failure is not None and now < pool.failure.next_attempt_time:
        yield WakeAt(pool.id, pool.failure.next_attempt_time)
        return
    count = min(count, slots)
    if pool.failure is not None or not proven:
        count = min(count, 1 - sum(member.state is MemberState.CREATING for member in pool.members))
    if count > 0:
        yield CreateMembers(pool.id, pool.spec_digest, count, waiting)


def missing(pool: PoolSnapshot, waiting: int = 0) -> int:
    """How many members more the pool wants and has room for; what is being created counts as there."""
    if pool.image_check_secs and not pool.image_digest:
        return 0  # what the members are to be made of is not known yet
    there = sum(
        member.state in (MemberState.WARM, MemberState.CREATING) and member.spec_digest == pool.spec_digest
        for member in pool.members
    )
    count = wanted_warm(pool, waiting) - there
    if pool.max_containers is not None:
        count = min(count, pool.max_containers - _counted(pool))
    return max(0, count)


def wanted_warm(pool: PoolSnapshot, waiting: int = 0) -> int:
    """How many ready members the pool aims at now; those for whom callers wait come on top."""
    if _closed(pool) or not pool.id:
        return 0
    wanted = pool.warm_containers + waiting
    if pool.max_containers is None:
        return wanted
    in_use = sum(member.state in IN_USE for member in pool.members)
    return max(0, min(wanted, pool.max_containers - in_use))


def _closed(pool: PoolSnapshot) -> bool:
    """Whether nothing is created for the pool."""
    return pool.paused or pool.drain or pool.deleted


def _counted(pool: PoolSnapshot) -> int:
    """All members that count against `max_containers`."""
    return sum(member.state in COUNTED for member in pool.members)
