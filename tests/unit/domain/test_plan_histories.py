"""The planner over random histories: claims, deletions, deaths, updates, failures, stale plans, restarts.

The world below does what store and executor do, in memory: it re-checks before it writes. The plan is made from a
snapshot that may be old by the time it is carried out.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
from sandpool_server.domain.backoff import BackoffPolicy
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, MemberState, check_transition
from sandpool_server.domain.model import PoolFailure
from sandpool_server.domain.plan import InFlight, MemberSnapshot, PoolSnapshot, missing, plan, wanted_warm

SLOTS = 3
BACKOFF = BackoffPolicy(base_secs=1, max_secs=8)
PICK = st.integers(0, 10**6)


class Histories(RuleBasedStateMachine):
    """One pool, its members, one server process that may be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.pool = PoolSnapshot("pool-a", "spec-0")
        self.members: dict[str, MemberSnapshot] = {}
        self.launching: set[str] = set()
        self.removing: set[str] = set()
        self.checking: set[str] = set()
        self.waiting = 0
        self.made = 0
        self.owners: dict[str, int] = {}
        self.claims = 0
        self.allowed = 0
        """How many members there may be: the maximum, or what there was already when the maximum was lowered."""
        self.old_snapshot = self.pool

    # --- the world ------------------------------------------------------------------------------------------------

    def snapshot(self) -> PoolSnapshot:
        return replace(self.pool, members=tuple(self.members.values()))

    def of(self, *states: MemberState) -> list[str]:
        return [member.id for member in self.members.values() if member.state in states]

    def move(self, member_id: str, state: MemberState) -> None:
        old = self.members[member_id]
        check_transition(old.state, state)
        self.members[member_id] = replace(old, state=state)

    def counted(self) -> int:
        return len(self.of(*COUNTED))

    def new_member(self, state: MemberState) -> str:
        self.made += 1
        member_id = f"sbx-{self.made:06d}"
        self.members[member_id] = MemberSnapshot(member_id, state, self.pool.spec_digest, create_time=self.now)
        self.launching.add(member_id)
        return member_id

    def carry_out(self, action: Action) -> None:
        match action:
            case CreateMembers(spec_digest=digest, count=count):
                if digest == self.pool.spec_digest and not self.closed():
                    for _ in range(min(count, missing(self.snapshot(), self.waiting))):
                        self.new_member(MemberState.CREATING)
            case RetireMember(member_id=member_id):
                if member_id in self.of(MemberState.WARM):
                    self.move(member_id, MemberState.REMOVING)
            case ExpireSandbox(member_id=member_id):
                member = self.members.get(member_id)
                expired = member is not None and member.expire_time is not None and member.expire_time <= self.now
                if expired and member_id in self.of(MemberState.ACTIVE):
                    self.move(member_id, MemberState.REMOVING)
            case AbandonMember(member_id=member_id):
                if member_id in self.of(MemberState.CREATING, MemberState.STARTING):
                    self.move(member_id, MemberState.REMOVING)
            case CancelLaunch(member_id=member_id):
                self.launching.discard(member_id)
            case RemoveContainer(member_id=member_id):
                if member_id in self.of(MemberState.REMOVING):
                    self.removing.add(member_id)
            case CheckImage():
                self.checking.add(self.pool.id)
            case WakeAt():
                pass

    def closed(self) -> bool:
        return self.pool.paused or self.pool.drain

    def image_is(self, number: int) -> None:
        """The tag names this image now, and the pool is told."""
        self.checking.clear()
        digest = f"image-{number}"
        if self.pool.image_digest != digest and self.pool.image_check_secs:
            self.pool = replace(self.pool, spec_digest=f"{self.pool.spec_digest.split('+')[0]}+{digest}")
        self.pool = replace(self.pool, image_digest=digest, image_check_time=self.now)

    def plan_with(self, snapshot: PoolSnapshot) -> tuple[Action, ...]:
        in_flight = InFlight(frozenset(self.launching), frozenset(self.removing), frozenset(self.checking))
        creating = [i for i in self.of(MemberState.CREATING) if i in self.launching]
        return plan(snapshot, self.now, max(0, SLOTS - len(creating)), in_flight, waiting=self.waiting)

    def launch_succeeds(self, member_id: str) -> None:
        self.launching.discard(member_id)
        state = self.members[member_id].state
        if state is MemberState.CREATING:
            self.move(member_id, MemberState.WARM)
        elif state is MemberState.STARTING:
            self.move(member_id, MemberState.ACTIVE)
        self.pool = replace(self.pool, failure=None)

    def gone(self, member_id: str) -> None:
        self.removing.discard(member_id)
        self.move(member_id, MemberState.GONE)
        del self.members[member_id]

    # --- what happens ---------------------------------------------------------------------------------------------

    @initialize(warm=st.integers(0, 6), maximum=st.none() | st.integers(1, 8))
    def begin(self, warm: int, maximum: int | None) -> None:
        self.pool = replace(self.pool, warm_containers=warm, max_containers=maximum)
        self.old_snapshot = self.snapshot()
        self.allowed = maximum or 0

    @rule()
    def look(self) -> None:
        self.old_snapshot = self.snapshot()

    @rule()
    def plan_now(self) -> None:
        for action in self.plan_with(self.snapshot()):
            self.carry_out(action)

    @rule()
    def plan_from_an_old_look(self) -> None:
        for action in self.plan_with(self.old_snapshot):
            self.carry_out(action)

    @rule(cold=st.booleans())
    def claim(self, cold: bool) -> None:
        fresh = [i for i in self.of(MemberState.WARM) if self.members[i].spec_digest == self.pool.spec_digest]
        if self.closed():
            return
        if fresh:
            taken = min(fresh)
            self.move(taken, MemberState.ACTIVE)
        elif cold and (self.pool.max_containers is None or self.counted() < self.pool.max_containers):
            taken = self.new_member(MemberState.STARTING)
        else:
            return
        self.claims += 1
        assert taken not in self.owners, "a member was handed out twice"
        assert self.members[taken].spec_digest == self.pool.spec_digest, "a stale member was handed out"
        self.owners[taken] = self.claims

    @precondition(lambda self: self.launching)
    @rule(pick=PICK, works=st.booleans())
    def a_launch_ends(self, pick: int, works: bool) -> None:
        member_id = sorted(self.launching)[pick % len(self.launching)]
        if works or self.members[member_id].state is MemberState.REMOVING:
            self.launch_succeeds(member_id)
            return
        self.launching.discard(member_id)
        self.move(member_id, MemberState.REMOVING)
        consecutive = 1 + (self.pool.failure.consecutive if self.pool.failure else 0)
        delay = BACKOFF.delay(consecutive, 0.5)
        assert timedelta(0) < delay <= timedelta(seconds=8)
        failure = PoolFailure(FailureReason.START_FAILED, "it did not", self.now, self.now + delay, consecutive)
        self.pool = replace(self.pool, failure=failure)

    @precondition(lambda self: self.removing)
    @rule(pick=PICK)
    def a_removal_ends(self, pick: int) -> None:
        self.gone(sorted(self.removing)[pick % len(self.removing)])

    @precondition(lambda self: self.of(MemberState.WARM, MemberState.ACTIVE, MemberState.STARTING))
    @rule(pick=PICK)
    def one_dies_or_is_deleted(self, pick: int) -> None:
        there = self.of(MemberState.WARM, MemberState.ACTIVE, MemberState.STARTING)
        self.move(there[pick % len(there)], MemberState.REMOVING)

    @precondition(lambda self: self.of(MemberState.ACTIVE))
    @rule(pick=PICK, seconds=st.integers(0, 20))
    def a_lifetime_is_set(self, pick: int, seconds: int) -> None:
        active = self.of(MemberState.ACTIVE)
        chosen = active[pick % len(active)]
        self.members[chosen] = replace(self.members[chosen], expire_time=self.now + timedelta(seconds=seconds))

    @rule(
        warm=st.integers(0, 6),
        maximum=st.none() | st.integers(1, 8),
        spec=st.integers(0, 2),
        closed=st.sampled_from(["", "", "paused", "drain"]),
        max_age=st.sampled_from([0, 0, 20]),
        check=st.sampled_from([0, 0, 15]),
    )
    def the_owner_updates(
        self, warm: int, maximum: int | None, spec: int, closed: str, max_age: int, check: int
    ) -> None:
        self.pool = replace(
            self.pool,
            warm_containers=warm,
            max_containers=maximum,
            spec_digest=f"spec-{spec}",
            paused=closed == "paused",
            drain=closed == "drain",
            max_age_secs=max_age,
            image_check_secs=check,
            image_digest="",
            image_check_time=None,
        )
        self.checking.clear()
        self.allowed = max(maximum, self.counted()) if maximum is not None else 0

    @rule(waiting=st.integers(0, 3))
    def callers_wait_in_line(self, waiting: int) -> None:
        self.waiting = waiting

    @precondition(lambda self: self.checking)
    @rule(number=st.integers(0, 2), works=st.booleans())
    def an_image_check_ends(self, number: int, works: bool) -> None:
        if works:
            self.image_is(number)
        else:
            self.checking.clear()
            self.pool = replace(self.pool, image_check_time=self.now)

    @rule()
    def the_server_is_killed(self) -> None:
        self.launching.clear()
        self.removing.clear()
        self.checking.clear()
        self.waiting = 0

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def the_maximum_holds(self) -> None:
        if self.pool.max_containers is not None:
            # A maximum lowered below what is there is not broken further, and is reached as soon as it can be.
            self.allowed = max(self.pool.max_containers, min(self.allowed, self.counted()))
            assert self.counted() <= self.allowed

    @invariant()
    def never_more_unclaimed_than_wanted_is_being_made(self) -> None:
        fresh = [m for m in self.members.values() if m.spec_digest == self.pool.spec_digest]
        creating = [m for m in fresh if m.state is MemberState.CREATING]
        snapshot = self.snapshot()
        for action in self.plan_with(snapshot):
            if isinstance(action, CreateMembers):
                warm = [m for m in fresh if m.state is MemberState.WARM]
                assert len(warm) + len(creating) + action.count <= wanted_warm(snapshot, self.waiting)

    def teardown(self) -> None:
        """Left alone, with an engine that works, every pool becomes what its owner wants."""
        self.waiting = 0
        self.pool = replace(self.pool, max_age_secs=0)  # else it would replace members for ever
        for _ in range(200):
            self.now += timedelta(seconds=10)
            actions = self.plan_with(self.snapshot())
            for action in actions:
                self.carry_out(action)
            if self.checking and not self.pool.image_digest:
                self.image_is(0)
                continue
            if self.checking:
                self.checking.clear()
                self.pool = replace(self.pool, image_check_time=self.now)
            actions = tuple(action for action in actions if not isinstance(action, CheckImage))
            launched, removed = list(self.launching), list(self.removing)
            for member_id in launched:
                self.launch_succeeds(member_id)
            for member_id in removed:
                self.gone(member_id)
            known = bool(self.pool.image_digest) or not self.pool.image_check_secs
            resting = not launched and not removed and all(isinstance(action, WakeAt) for action in actions)
            if resting and (known or self.closed()):
                break
        else:
            raise AssertionError("the pool never comes to rest")
        assert not self.of(MemberState.CREATING, MemberState.STARTING, MemberState.REMOVING)
        if self.pool.drain:
            assert not self.of(MemberState.WARM)
        elif not self.pool.paused:
            warm = [self.members[i].spec_digest for i in self.of(MemberState.WARM)]
            room = None if self.pool.max_containers is None else self.pool.max_containers - len(self.of(*IN_USE))
            wanted = self.pool.warm_containers if room is None else max(0, min(self.pool.warm_containers, room))
            assert warm == [self.pool.spec_digest] * wanted


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
