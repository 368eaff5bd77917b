"""The planner over random histories: claims, deletions, crashes, updates, failures, old plans, restarts.

The state machine simulates the store and the executor in memory: it checks each condition again before it writes. A
snapshot can be out of date when a plan that is based on it is executed.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
from sandpool_server.domain.backoff import BackoffPolicy
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, InstanceState, check_transition
from sandpool_server.domain.model import PoolFailure
from sandpool_server.domain.plan import InFlight, InstanceSnapshot, PoolSnapshot, desired_warm, missing, plan

SLOTS = 3
BACKOFF = BackoffPolicy(base_secs=1, max_secs=8)
PICK = st.integers(0, 10**6)


class Histories(RuleBasedStateMachine):
    """One pool, its instances, and one server process that can be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.pool = PoolSnapshot("pool-a", "spec-0")
        self.instances: dict[str, InstanceSnapshot] = {}
        self.launching: set[str] = set()
        self.removing: set[str] = set()
        self.checking: set[str] = set()
        self.waiting = 0
        self.made = 0
        self.owners: dict[str, int] = {}
        self.claims = 0
        self.allowed = 0
        """The highest allowed number of instances: the maximum, or the number when the maximum was lowered."""
        self.old_snapshot = self.pool

    # --- store and executor ---------------------------------------------------------------------------------------

    def snapshot(self) -> PoolSnapshot:
        return replace(self.pool, instances=tuple(self.instances.values()))

    def of(self, *states: InstanceState) -> list[str]:
        return [instance.id for instance in self.instances.values() if instance.state in states]

    def move(self, instance_id: str, state: InstanceState) -> None:
        old = self.instances[instance_id]
        check_transition(old.state, state)
        self.instances[instance_id] = replace(old, state=state)

    def counted(self) -> int:
        return len(self.of(*COUNTED))

    def new_instance(self, state: InstanceState) -> str:
        self.made += 1
        instance_id = f"sbx-{self.made:06d}"
        self.instances[instance_id] = InstanceSnapshot(instance_id, state, self.pool.spec_digest, create_time=self.now)
        self.launching.add(instance_id)
        return instance_id

    def execute(self, action: Action) -> None:
        match action:
            case CreateInstances(spec_digest=digest, count=count):
                if digest == self.pool.spec_digest and not self.closed():
                    for _ in range(min(count, missing(self.snapshot(), self.waiting))):
                        self.new_instance(InstanceState.CREATING)
            case RetireInstance(instance_id=instance_id):
                if instance_id in self.of(InstanceState.WARM):
                    self.move(instance_id, InstanceState.REMOVING)
            case ExpireSandbox(instance_id=instance_id):
                instance = self.instances.get(instance_id)
                expired = instance is not None and instance.expire_time is not None and instance.expire_time <= self.now
                if expired and instance_id in self.of(InstanceState.ACTIVE):
                    self.move(instance_id, InstanceState.REMOVING)
            case AbandonInstance(instance_id=instance_id):
                if instance_id in self.of(InstanceState.CREATING, InstanceState.STARTING):
                    self.move(instance_id, InstanceState.REMOVING)
            case CancelLaunch(instance_id=instance_id):
                self.launching.discard(instance_id)
            case RemoveContainer(instance_id=instance_id):
                if instance_id in self.of(InstanceState.REMOVING):
                    self.removing.add(instance_id)
            case CheckImage():
                self.checking.add(self.pool.id)
            case WakeAt():
                pass

    def closed(self) -> bool:
        return self.pool.paused or self.pool.drained

    def move_tag(self, number: int) -> None:
        """Move the tag to this image and update the pool."""
        self.checking.clear()
        digest = f"image-{number}"
        if self.pool.image_digest != digest and self.pool.image_refresh_interval_secs:
            self.pool = replace(self.pool, spec_digest=f"{self.pool.spec_digest.split('+')[0]}+{digest}")
        self.pool = replace(self.pool, image_digest=digest, image_check_time=self.now)

    def plan_with(self, snapshot: PoolSnapshot) -> tuple[Action, ...]:
        in_flight = InFlight(frozenset(self.launching), frozenset(self.removing), frozenset(self.checking))
        creating = [i for i in self.of(InstanceState.CREATING) if i in self.launching]
        return plan(snapshot, self.now, max(0, SLOTS - len(creating)), in_flight, waiting=self.waiting)

    def launch_succeeds(self, instance_id: str) -> None:
        self.launching.discard(instance_id)
        state = self.instances[instance_id].state
        if state is InstanceState.CREATING:
            self.move(instance_id, InstanceState.WARM)
        elif state is InstanceState.STARTING:
            self.move(instance_id, InstanceState.ACTIVE)
        self.pool = replace(self.pool, failure=None)

    def container_removed(self, instance_id: str) -> None:
        self.removing.discard(instance_id)
        self.move(instance_id, InstanceState.REMOVED)
        del self.instances[instance_id]

    # --- rules ----------------------------------------------------------------------------------------------------

    @initialize(warm=st.integers(0, 6), maximum=st.none() | st.integers(1, 8))
    def begin(self, warm: int, maximum: int | None) -> None:
        self.pool = replace(self.pool, warm_containers=warm, max_containers=maximum)
        self.old_snapshot = self.snapshot()
        self.allowed = maximum or 0

    @rule()
    def take_snapshot(self) -> None:
        self.old_snapshot = self.snapshot()

    @rule()
    def plan_now(self) -> None:
        for action in self.plan_with(self.snapshot()):
            self.execute(action)

    @rule()
    def plan_from_old_snapshot(self) -> None:
        for action in self.plan_with(self.old_snapshot):
            self.execute(action)

    @rule(cold=st.booleans())
    def claim(self, cold: bool) -> None:
        current = [i for i in self.of(InstanceState.WARM) if self.instances[i].spec_digest == self.pool.spec_digest]
        if self.closed():
            return
        if current:
            claimed = min(current)
            self.move(claimed, InstanceState.ACTIVE)
        elif cold and (self.pool.max_containers is None or self.counted() < self.pool.max_containers):
            claimed = self.new_instance(InstanceState.STARTING)
        else:
            return
        self.claims += 1
        assert claimed not in self.owners, "an instance was claimed twice"
        assert self.instances[claimed].spec_digest == self.pool.spec_digest, "an outdated instance was claimed"
        self.owners[claimed] = self.claims

    @precondition(lambda self: self.launching)
    @rule(pick=PICK, works=st.booleans())
    def launch_finishes(self, pick: int, works: bool) -> None:
        instance_id = sorted(self.launching)[pick % len(self.launching)]
        if works or self.instances[instance_id].state is InstanceState.REMOVING:
            self.launch_succeeds(instance_id)
            return
        self.launching.discard(instance_id)
        self.move(instance_id, InstanceState.REMOVING)
        consecutive = 1 + (self.pool.failure.consecutive if self.pool.failure else 0)
        delay = BACKOFF.delay(consecutive, 0.5)
        assert timedelta(0) < delay <= timedelta(seconds=8)
        failure = PoolFailure(FailureReason.START_FAILED, "it did not start", self.now, self.now + delay, consecutive)
        self.pool = replace(self.pool, failure=failure)

    @precondition(lambda self: self.removing)
    @rule(pick=PICK)
    def removal_finishes(self, pick: int) -> None:
        self.container_removed(sorted(self.removing)[pick % len(self.removing)])

    @precondition(lambda self: self.of(InstanceState.WARM, InstanceState.ACTIVE, InstanceState.STARTING))
    @rule(pick=PICK)
    def instance_dies_or_is_deleted(self, pick: int) -> None:
        existing = self.of(InstanceState.WARM, InstanceState.ACTIVE, InstanceState.STARTING)
        self.move(existing[pick % len(existing)], InstanceState.REMOVING)

    @precondition(lambda self: self.of(InstanceState.ACTIVE))
    @rule(pick=PICK, seconds=st.integers(0, 20))
    def lifetime_is_set(self, pick: int, seconds: int) -> None:
        active = self.of(InstanceState.ACTIVE)
        chosen = active[pick % len(active)]
        self.instances[chosen] = replace(self.instances[chosen], expire_time=self.now + timedelta(seconds=seconds))

    @rule(
        warm=st.integers(0, 6),
        maximum=st.none() | st.integers(1, 8),
        spec=st.integers(0, 2),
        closed=st.sampled_from(["", "", "paused", "drained"]),
        max_age=st.sampled_from([0, 0, 20]),
        check=st.sampled_from([0, 0, 15]),
    )
    def pool_is_updated(self, warm: int, maximum: int | None, spec: int, closed: str, max_age: int, check: int) -> None:
        self.pool = replace(
            self.pool,
            warm_containers=warm,
            max_containers=maximum,
            spec_digest=f"spec-{spec}",
            paused=closed == "paused",
            drained=closed == "drained",
            warm_ttl_secs=max_age,
            image_refresh_interval_secs=check,
            image_digest="",
            image_check_time=None,
        )
        self.checking.clear()
        self.allowed = max(maximum, self.counted()) if maximum is not None else 0

    @rule(waiting=st.integers(0, 3))
    def callers_wait_in_queue(self, waiting: int) -> None:
        self.waiting = waiting

    @precondition(lambda self: self.checking)
    @rule(number=st.integers(0, 2), works=st.booleans())
    def image_check_finishes(self, number: int, works: bool) -> None:
        if works:
            self.move_tag(number)
        else:
            self.checking.clear()
            self.pool = replace(self.pool, image_check_time=self.now)

    @rule()
    def server_is_killed(self) -> None:
        self.launching.clear()
        self.removing.clear()
        self.checking.clear()
        self.waiting = 0

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    # --- invariants -----------------------------------------------------------------------------------------------

    @invariant()
    def number_stays_within_maximum(self) -> None:
        if self.pool.max_containers is not None:
            # After the maximum is lowered below the current number, the number can only fall until it is reached.
            self.allowed = max(self.pool.max_containers, min(self.allowed, self.counted()))
            assert self.counted() <= self.allowed

    @invariant()
    def never_creates_more_than_desired(self) -> None:
        current = [m for m in self.instances.values() if m.spec_digest == self.pool.spec_digest]
        creating = [m for m in current if m.state is InstanceState.CREATING]
        snapshot = self.snapshot()
        for action in self.plan_with(snapshot):
            if isinstance(action, CreateInstances):
                warm = [m for m in current if m.state is InstanceState.WARM]
                assert len(warm) + len(creating) + action.count <= desired_warm(snapshot, self.waiting)

    def teardown(self) -> None:
        """Check that the pool reaches its desired state when nothing else happens and the engine works."""
        self.waiting = 0
        self.pool = replace(self.pool, warm_ttl_secs=0)  # otherwise it would replace instances forever
        for _ in range(200):
            self.now += timedelta(seconds=10)
            actions = self.plan_with(self.snapshot())
            for action in actions:
                self.execute(action)
            if self.checking and not self.pool.image_digest:
                self.move_tag(0)
                continue
            if self.checking:
                self.checking.clear()
                self.pool = replace(self.pool, image_check_time=self.now)
            actions = tuple(action for action in actions if not isinstance(action, CheckImage))
            launched, removed = list(self.launching), list(self.removing)
            for instance_id in launched:
                self.launch_succeeds(instance_id)
            for instance_id in removed:
                self.container_removed(instance_id)
            known = bool(self.pool.image_digest) or not self.pool.image_refresh_interval_secs
            stable = not launched and not removed and all(isinstance(action, WakeAt) for action in actions)
            if stable and (known or self.closed()):
                break
        else:
            raise AssertionError("the pool never reaches a stable state")
        assert not self.of(InstanceState.CREATING, InstanceState.STARTING, InstanceState.REMOVING)
        if self.pool.drained:
            assert not self.of(InstanceState.WARM)
        elif not self.pool.paused:
            warm = [self.instances[i].spec_digest for i in self.of(InstanceState.WARM)]
            room = None if self.pool.max_containers is None else self.pool.max_containers - len(self.of(*IN_USE))
            desired = self.pool.warm_containers if room is None else max(0, min(self.pool.warm_containers, room))
            assert warm == [self.pool.spec_digest] * desired


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
