"""The planner on hand-built snapshots: one behaviour a test."""

from datetime import UTC, datetime, timedelta

import pytest

from sandpool_server.domain.actions import (
    AbandonMember,
    CancelLaunch,
    CheckImage,
    CreateMembers,
    ExpireSandbox,
    RemoveContainer,
    RetireMember,
    RetireReason,
    WakeAt,
)
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import PoolFailure
from sandpool_server.domain.plan import InFlight, MemberSnapshot, PoolSnapshot, missing, plan, wanted_warm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOBODY = InFlight()
POOL = "pool-a"
MANY = 100


def members(**states: int) -> tuple[MemberSnapshot, ...]:
    """So many members of the present spec in each state, with ids in the order of the states given."""
    made = [MemberState(state) for state, count in states.items() for _ in range(count)]
    return tuple(MemberSnapshot(f"sbx-{i:02d}", state, "new") for i, state in enumerate(made))


def pool(warm: int, *there: MemberSnapshot, **more: object) -> PoolSnapshot:
    return PoolSnapshot(POOL, "new", warm, members=there, **more)  # type: ignore[arg-type]


def ids(snapshot: PoolSnapshot, state: MemberState) -> list[str]:
    return [member.id for member in snapshot.members if member.state is state]


def test_an_empty_pool_is_filled() -> None:
    assert plan(pool(3), NOW, MANY, NOBODY) == (CreateMembers(POOL, "new", 3),)


def test_a_full_pool_needs_nothing() -> None:
    assert plan(pool(3, *members(warm=3, active=2)), NOW, MANY, NOBODY) == ()


def test_what_is_being_created_counts() -> None:
    there = members(warm=1, creating=1)
    launching = InFlight(launching=frozenset({"sbx-01"}))
    assert plan(pool(3, *there), NOW, MANY, launching) == (CreateMembers(POOL, "new", 1),)


def test_no_more_is_begun_than_there_are_slots() -> None:
    assert plan(pool(5), NOW, 2, NOBODY) == (CreateMembers(POOL, "new", 2),)
    assert plan(pool(5), NOW, 0, NOBODY) == ()


@pytest.mark.parametrize("state", [s for s in MemberState if s is not MemberState.GONE])
def test_every_member_that_may_have_a_container_counts_against_the_maximum(state: MemberState) -> None:
    there = members(**{state: 4})
    snapshot = pool(9, *there, max_containers=4)
    assert missing(snapshot) == 0


def test_those_that_are_gone_do_not_count() -> None:
    assert missing(pool(2, *members(gone=5), max_containers=2)) == 2


def test_sandboxes_in_use_leave_less_to_want() -> None:
    assert wanted_warm(pool(5, *members(active=2, starting=1), max_containers=6)) == 3


def test_an_unproven_spec_is_tried_once_first() -> None:
    assert plan(pool(5), NOW, MANY, NOBODY, proven=False) == (CreateMembers(POOL, "new", 1),)
    trying = pool(5, *members(creating=1))
    assert plan(trying, NOW, MANY, InFlight(launching=frozenset({"sbx-00"})), proven=False) == ()


def failure(next_attempt: datetime) -> PoolFailure:
    return PoolFailure(FailureReason.IMAGE_NOT_FOUND, "no such image", NOW, next_attempt, 3)


def test_after_a_failure_it_waits_for_the_next_attempt() -> None:
    later = NOW + timedelta(seconds=4)
    assert plan(pool(5, failure=failure(later)), NOW, MANY, NOBODY) == (WakeAt(POOL, later),)


def test_when_the_wait_is_over_it_tries_one() -> None:
    assert plan(pool(5, failure=failure(NOW)), NOW, MANY, NOBODY) == (CreateMembers(POOL, "new", 1),)


def test_what_a_killed_server_left_half_made_is_abandoned() -> None:
    snapshot = pool(0, *members(creating=1, starting=1))
    assert plan(snapshot, NOW, MANY, NOBODY) == (AbandonMember("sbx-00"), AbandonMember("sbx-01"))


def test_what_is_to_be_removed_is_removed_once() -> None:
    snapshot = pool(0, *members(removing=2))
    busy = InFlight(removing=frozenset({"sbx-00"}))
    assert plan(snapshot, NOW, MANY, busy) == (RemoveContainer("sbx-01", POOL),)


def test_a_launch_is_stopped_when_its_member_is_to_be_removed() -> None:
    launching = InFlight(launching=frozenset({"sbx-00"}))
    assert plan(pool(0, *members(removing=1)), NOW, MANY, launching) == (CancelLaunch("sbx-00"),)


def test_a_sandbox_whose_lifetime_passed_is_ended_and_the_next_deadline_remembered() -> None:
    over = MemberSnapshot("sbx-0", MemberState.ACTIVE, "new", NOW)
    soon = MemberSnapshot("sbx-1", MemberState.ACTIVE, "new", NOW + timedelta(seconds=1))
    late = MemberSnapshot("sbx-2", MemberState.ACTIVE, "new", NOW + timedelta(seconds=9))
    never = MemberSnapshot("sbx-3", MemberState.ACTIVE, "new")
    actions = plan(pool(0, late, over, never, soon), NOW, MANY, NOBODY)
    assert set(actions) == {ExpireSandbox("sbx-0"), WakeAt(POOL, NOW + timedelta(seconds=1))}


def test_too_many_ready_ones_are_retired_the_newest_first() -> None:
    actions = plan(pool(1, *members(warm=3)), NOW, MANY, NOBODY)
    assert actions == (RetireMember("sbx-01", RetireReason.EXCESS), RetireMember("sbx-02", RetireReason.EXCESS))


def stale(count: int) -> tuple[MemberSnapshot, ...]:
    return tuple(MemberSnapshot(f"sbx-old{i}", MemberState.WARM, "old") for i in range(count))


def test_stale_members_stay_until_fresh_ones_come() -> None:
    assert plan(pool(3, *stale(3)), NOW, 2, NOBODY) == (CreateMembers(POOL, "new", 2),)


def test_each_fresh_member_retires_a_stale_one() -> None:
    actions = plan(pool(3, *stale(3), *members(warm=2)), NOW, 0, NOBODY)
    assert actions == (
        RetireMember("sbx-old1", RetireReason.STALE),
        RetireMember("sbx-old2", RetireReason.STALE),
    )


def test_at_the_maximum_a_stale_member_makes_room() -> None:
    actions = plan(pool(2, *stale(2), max_containers=2), NOW, MANY, NOBODY)
    assert actions == (RetireMember("sbx-old0", RetireReason.STALE),)


def test_a_deleted_pool_keeps_nothing_unclaimed() -> None:
    actions = plan(pool(2, *members(warm=2, active=1), deleted=True), NOW, MANY, NOBODY)
    assert actions == tuple(RetireMember(f"sbx-0{i}", RetireReason.POOL_DELETED) for i in range(2))


def test_a_paused_pool_creates_nothing_and_keeps_what_it_has() -> None:
    assert plan(pool(5, *members(warm=2), paused=True), NOW, MANY, NOBODY) == ()


def test_a_drained_pool_keeps_nothing_ready() -> None:
    actions = plan(pool(2, *members(warm=2, active=1), drain=True), NOW, MANY, NOBODY)
    assert actions == tuple(RetireMember(f"sbx-0{i}", RetireReason.POOL_DRAINED) for i in range(2))


def test_callers_in_line_are_wanted_for_on_top() -> None:
    assert plan(pool(1, *members(warm=1)), NOW, MANY, NOBODY, waiting=2) == (CreateMembers(POOL, "new", 2, 2),)
    assert plan(pool(0, max_containers=1), NOW, MANY, NOBODY, waiting=5) == (CreateMembers(POOL, "new", 1, 5),)


def aged(count: int, seconds: float) -> tuple[MemberSnapshot, ...]:
    born = NOW - timedelta(seconds=seconds)
    return tuple(MemberSnapshot(f"sbx-{i}", MemberState.WARM, "new", create_time=born) for i in range(count))


def test_members_past_their_age_are_replaced_one_at_a_time() -> None:
    retired = plan(pool(3, *aged(3, 100), max_age_secs=100), NOW, MANY, NOBODY)
    assert len(retired) == 1
    assert isinstance(retired[0], RetireMember)
    assert retired[0].reason is RetireReason.AGED
    busy = pool(3, *aged(2, 100), MemberSnapshot("sbx-9", MemberState.CREATING, "new"), max_age_secs=100)
    assert plan(busy, NOW, MANY, InFlight(launching=frozenset({"sbx-9"}))) == ()


def test_young_members_stay_and_the_end_of_their_age_is_remembered() -> None:
    (wake,) = plan(pool(2, *aged(2, 10), max_age_secs=100), NOW, MANY, NOBODY)
    assert isinstance(wake, WakeAt)
    assert timedelta(seconds=70) <= wake.time - NOW <= timedelta(seconds=90), "at most a fifth early"


def test_a_pool_that_fails_keeps_its_old_members() -> None:
    snapshot = pool(1, *aged(1, 100), max_age_secs=100, failure=failure(NOW))
    assert plan(snapshot, NOW, MANY, NOBODY) == ()


def watched(**more: object) -> PoolSnapshot:
    return pool(2, image="python:3", image_check_secs=60, **more)


def test_what_the_tag_names_is_looked_up_before_anything_is_created() -> None:
    assert plan(watched(), NOW, MANY, NOBODY) == (CheckImage(POOL, "python:3"),)
    assert plan(watched(), NOW, MANY, InFlight(checking=frozenset({POOL}))) == ()


def test_the_tag_is_looked_at_again_when_it_is_time() -> None:
    known = {"image_digest": "sha256:a", "image_check_time": NOW - timedelta(seconds=59)}
    actions = plan(watched(**known), NOW, MANY, NOBODY)
    assert actions == (WakeAt(POOL, NOW + timedelta(seconds=1)), CreateMembers(POOL, "new", 2))
    known["image_check_time"] = NOW - timedelta(seconds=60)
    assert CheckImage(POOL, "python:3") in plan(watched(**known), NOW, MANY, NOBODY)


def test_an_image_that_was_never_found_is_looked_up_with_the_back_off() -> None:
    later = NOW + timedelta(seconds=4)
    assert plan(watched(failure=failure(later)), NOW, MANY, NOBODY) == (WakeAt(POOL, later),)
    assert plan(watched(failure=failure(NOW)), NOW, MANY, NOBODY) == (CheckImage(POOL, "python:3"),)


def test_members_without_a_pool_are_cared_for_but_never_created() -> None:
    loose = PoolSnapshot("", members=members(removing=1, active=1))
    assert plan(loose, NOW, MANY, NOBODY) == (RemoveContainer("sbx-00", ""),)
