"""The planner on hand-built snapshots: one behaviour per test."""

from datetime import UTC, datetime, timedelta

import pytest

from sandpool_server.domain.actions import (
    AbandonInstance,
    CancelLaunch,
    CheckImage,
    CreateInstances,
    ExpireSandbox,
    RemoveContainer,
    RetireInstance,
    RetireReason,
    WakeAt,
)
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import PoolFailure
from sandpool_server.domain.plan import InFlight, InstanceSnapshot, PoolSnapshot, desired_warm, missing, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDLE = InFlight()
POOL = "pool-a"
MANY = 100


def instances(**states: int) -> tuple[InstanceSnapshot, ...]:
    """Return instances of the current spec, as many per state as given. Their ids follow the order of the states."""
    made = [InstanceState(state) for state, count in states.items() for _ in range(count)]
    return tuple(InstanceSnapshot(f"sbx-{i:02d}", state, "new") for i, state in enumerate(made))


def pool(warm: int, *existing: InstanceSnapshot, **more: object) -> PoolSnapshot:
    return PoolSnapshot(POOL, "new", warm, instances=existing, **more)  # type: ignore[arg-type]


def ids(snapshot: PoolSnapshot, state: InstanceState) -> list[str]:
    return [instance.id for instance in snapshot.instances if instance.state is state]


def test_fills_empty_pool() -> None:
    assert plan(pool(3), NOW, MANY, IDLE) == (CreateInstances(POOL, "new", 3),)


def test_does_nothing_for_full_pool() -> None:
    assert plan(pool(3, *instances(warm=3, active=2)), NOW, MANY, IDLE) == ()


def test_counts_instances_being_created() -> None:
    existing = instances(warm=1, creating=1)
    launching = InFlight(launching=frozenset({"sbx-01"}))
    assert plan(pool(3, *existing), NOW, MANY, launching) == (CreateInstances(POOL, "new", 1),)


def test_starts_no_more_launches_than_free_slots() -> None:
    assert plan(pool(5), NOW, 2, IDLE) == (CreateInstances(POOL, "new", 2),)
    assert plan(pool(5), NOW, 0, IDLE) == ()


@pytest.mark.parametrize("state", [s for s in InstanceState if s is not InstanceState.REMOVED])
def test_every_instance_with_possible_container_counts_towards_maximum(state: InstanceState) -> None:
    existing = instances(**{state: 4})
    snapshot = pool(9, *existing, max_containers=4)
    assert missing(snapshot) == 0


def test_removed_instances_do_not_count_towards_maximum() -> None:
    assert missing(pool(2, *instances(removed=5), max_containers=2)) == 2


def test_sandboxes_in_use_reduce_desired_number() -> None:
    assert desired_warm(pool(5, *instances(active=2, starting=1), max_containers=6)) == 3


def test_launches_one_instance_of_unproven_spec() -> None:
    assert plan(pool(5), NOW, MANY, IDLE, proven=False) == (CreateInstances(POOL, "new", 1),)
    trying = pool(5, *instances(creating=1))
    assert plan(trying, NOW, MANY, InFlight(launching=frozenset({"sbx-00"})), proven=False) == ()


def failure(next_attempt: datetime) -> PoolFailure:
    return PoolFailure(FailureReason.IMAGE_NOT_FOUND, "no such image", NOW, next_attempt, 3)


def test_waits_for_next_attempt_after_failure() -> None:
    later = NOW + timedelta(seconds=4)
    assert plan(pool(5, failure=failure(later)), NOW, MANY, IDLE) == (WakeAt(POOL, later),)


def test_launches_one_instance_when_backoff_expires() -> None:
    assert plan(pool(5, failure=failure(NOW)), NOW, MANY, IDLE) == (CreateInstances(POOL, "new", 1),)


def test_abandons_unfinished_instances_of_killed_server() -> None:
    snapshot = pool(0, *instances(creating=1, starting=1))
    assert plan(snapshot, NOW, MANY, IDLE) == (AbandonInstance("sbx-00"), AbandonInstance("sbx-01"))


def test_removes_each_container_once() -> None:
    snapshot = pool(0, *instances(removing=2))
    busy = InFlight(removing=frozenset({"sbx-00"}))
    assert plan(snapshot, NOW, MANY, busy) == (RemoveContainer("sbx-01", POOL),)


def test_cancels_launch_of_instance_in_removal() -> None:
    launching = InFlight(launching=frozenset({"sbx-00"}))
    assert plan(pool(0, *instances(removing=1)), NOW, MANY, launching) == (CancelLaunch("sbx-00"),)


def test_expires_sandbox_and_wakes_at_next_expiry() -> None:
    over = InstanceSnapshot("sbx-0", InstanceState.ACTIVE, "new", NOW)
    soon = InstanceSnapshot("sbx-1", InstanceState.ACTIVE, "new", NOW + timedelta(seconds=1))
    late = InstanceSnapshot("sbx-2", InstanceState.ACTIVE, "new", NOW + timedelta(seconds=9))
    never = InstanceSnapshot("sbx-3", InstanceState.ACTIVE, "new")
    actions = plan(pool(0, late, over, never, soon), NOW, MANY, IDLE)
    assert set(actions) == {ExpireSandbox("sbx-0"), WakeAt(POOL, NOW + timedelta(seconds=1))}


def test_retires_newest_excess_instances() -> None:
    actions = plan(pool(1, *instances(warm=3)), NOW, MANY, IDLE)
    assert actions == (RetireInstance("sbx-01", RetireReason.EXCESS), RetireInstance("sbx-02", RetireReason.EXCESS))


def outdated(count: int) -> tuple[InstanceSnapshot, ...]:
    return tuple(InstanceSnapshot(f"sbx-old{i}", InstanceState.WARM, "old") for i in range(count))


def test_keeps_outdated_instances_until_replacements_are_warm() -> None:
    assert plan(pool(3, *outdated(3)), NOW, 2, IDLE) == (CreateInstances(POOL, "new", 2),)


def test_each_current_instance_retires_an_outdated_one() -> None:
    actions = plan(pool(3, *outdated(3), *instances(warm=2)), NOW, 0, IDLE)
    assert actions == (
        RetireInstance("sbx-old1", RetireReason.STALE),
        RetireInstance("sbx-old2", RetireReason.STALE),
    )


def test_retires_outdated_instance_to_make_room_at_maximum() -> None:
    actions = plan(pool(2, *outdated(2), max_containers=2), NOW, MANY, IDLE)
    assert actions == (RetireInstance("sbx-old0", RetireReason.STALE),)


def test_retires_all_warm_instances_of_deleted_pool() -> None:
    actions = plan(pool(2, *instances(warm=2, active=1), deleted=True), NOW, MANY, IDLE)
    assert actions == tuple(RetireInstance(f"sbx-0{i}", RetireReason.POOL_DELETED) for i in range(2))


def test_paused_pool_keeps_its_instances_and_creates_none() -> None:
    assert plan(pool(5, *instances(warm=2), paused=True), NOW, MANY, IDLE) == ()


def test_retires_all_warm_instances_of_drained_pool() -> None:
    actions = plan(pool(2, *instances(warm=2, active=1), drained=True), NOW, MANY, IDLE)
    assert actions == tuple(RetireInstance(f"sbx-0{i}", RetireReason.POOL_DRAINED) for i in range(2))


def test_creates_additional_instances_for_waiters() -> None:
    assert plan(pool(1, *instances(warm=1)), NOW, MANY, IDLE, waiting=2) == (CreateInstances(POOL, "new", 2, 2),)
    assert plan(pool(0, max_containers=1), NOW, MANY, IDLE, waiting=5) == (CreateInstances(POOL, "new", 1, 5),)


def aged(count: int, seconds: float) -> tuple[InstanceSnapshot, ...]:
    created = NOW - timedelta(seconds=seconds)
    return tuple(InstanceSnapshot(f"sbx-{i}", InstanceState.WARM, "new", create_time=created) for i in range(count))


def test_replaces_instances_past_warm_ttl_one_at_a_time() -> None:
    retired = plan(pool(3, *aged(3, 100), warm_ttl_secs=100), NOW, MANY, IDLE)
    assert len(retired) == 1
    assert isinstance(retired[0], RetireInstance)
    assert retired[0].reason is RetireReason.AGED
    busy = pool(3, *aged(2, 100), InstanceSnapshot("sbx-9", InstanceState.CREATING, "new"), warm_ttl_secs=100)
    assert plan(busy, NOW, MANY, InFlight(launching=frozenset({"sbx-9"}))) == ()


def test_keeps_young_instances_and_wakes_when_they_reach_warm_ttl() -> None:
    (wake,) = plan(pool(2, *aged(2, 10), warm_ttl_secs=100), NOW, MANY, IDLE)
    assert isinstance(wake, WakeAt)
    assert timedelta(seconds=70) <= wake.time - NOW <= timedelta(seconds=90), "up to a fifth early"


def test_failing_pool_keeps_instances_past_warm_ttl() -> None:
    snapshot = pool(1, *aged(1, 100), warm_ttl_secs=100, failure=failure(NOW))
    assert plan(snapshot, NOW, MANY, IDLE) == ()


def refreshed(**more: object) -> PoolSnapshot:
    return pool(2, image="python:3", image_refresh_interval_secs=60, **more)


def test_resolves_tag_before_first_launch() -> None:
    assert plan(refreshed(), NOW, MANY, IDLE) == (CheckImage(POOL, "python:3"),)
    assert plan(refreshed(), NOW, MANY, InFlight(checking=frozenset({POOL}))) == ()


def test_resolves_tag_again_after_refresh_interval() -> None:
    known = {"image_digest": "sha256:a", "image_check_time": NOW - timedelta(seconds=59)}
    actions = plan(refreshed(**known), NOW, MANY, IDLE)
    assert actions == (WakeAt(POOL, NOW + timedelta(seconds=1)), CreateInstances(POOL, "new", 2))
    known["image_check_time"] = NOW - timedelta(seconds=60)
    assert CheckImage(POOL, "python:3") in plan(refreshed(**known), NOW, MANY, IDLE)


def test_resolves_missing_image_again_after_backoff() -> None:
    later = NOW + timedelta(seconds=4)
    assert plan(refreshed(failure=failure(later)), NOW, MANY, IDLE) == (WakeAt(POOL, later),)
    assert plan(refreshed(failure=failure(NOW)), NOW, MANY, IDLE) == (CheckImage(POOL, "python:3"),)


def test_removes_but_never_creates_instances_without_pool() -> None:
    poolless = PoolSnapshot("", instances=instances(removing=1, active=1))
    assert plan(poolless, NOW, MANY, IDLE) == (RemoveContainer("sbx-00", ""),)
