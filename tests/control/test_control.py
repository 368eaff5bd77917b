"""What becomes of members when things go right, and wrong: real store, real loop, an engine in memory."""

import asyncio

import pytest
from sqlalchemy import event

from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FailureReason,
    LaunchFailed,
    NotReadyInTime,
)
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import EndReason, PoolCondition, PoolView, StartKind
from sandpool_server.ports import ClaimRequest, ClaimResult, SandboxFilter
from sandpool_server.usecases.values import NewSandbox, PoolChanges, SandboxChanges, SpecChanges
from tests.control.conftest import WAIT_SECS, Grow, cancelled, stop
from tests.support.fake_agents import SilentAgents
from tests.support.fake_runtime import (
    IMAGE,
    PYTHON_IMAGE,
    BrokenRuntime,
    DyingRuntime,
    FakeRuntime,
    SlowRuntime,
)


async def test_a_pool_fills_hands_out_and_refills(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(3)
    await plant.full(pool_id, 3)
    sandbox = await plant.create(pool_id)
    assert sandbox.claim is not None
    assert sandbox.claim.start is StartKind.WARM
    view = await plant.full(pool_id, 3)
    assert (view.counts.active, view.pool.hits, view.pool.misses) == (1, 1, 0)
    assert len(plant.runtime.containers) == 4
    await plant.sandboxes.delete(sandbox.id, "", "")
    assert (await plant.ended(sandbox.id)).state is MemberState.GONE
    assert sandbox.id not in plant.runtime.containers


async def test_a_warm_create_is_one_transaction_and_no_call_to_the_engine(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(1, max_containers=1)
    await plant.full(pool_id, 1)
    await plant.loop.stop()  # the control loop has transactions of its own
    plant.runtime.available = False  # it would fail
    begun: list[str] = []
    event.listen(plant.store._write_engine, "begin", lambda _connection: begun.append("write"))
    sandbox = await plant.create(pool_id, "request-1")
    assert sandbox.state is MemberState.ACTIVE
    assert begun == ["write"]
    view = await plant.pools.get(pool_id)
    assert (view.counts.active, view.pool.hits) == (1, 1), "all of it in that one"
    plant.runtime.available = True


async def test_no_more_than_wanted_is_ever_made(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(4, max_containers=5)
    await plant.full(pool_id, 4)
    await plant.create(pool_id)
    await plant.full(pool_id, 4)
    for _ in range(4):
        await plant.create(pool_id)
    with pytest.raises(Exhausted) as error:
        await plant.create(pool_id)
    assert error.value.reason == "POOL_AT_MAX"
    assert plant.runtime.peak == 5
    assert len(plant.runtime.launched) == 5


async def test_whoever_waits_at_the_maximum_is_not_sent_away_for_one_just_served(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is written before its caller leaves the line: those behind it see one member less, not one too few."""
    runtime = SlowRuntime()
    plant = await grow(runtime)
    runtime.let(2)
    pool_id = await plant.pool(2, max_containers=4)
    await plant.full(pool_id, 2)
    for _ in range(2):
        await plant.create(pool_id)
    await plant.seen(pool_id, lambda view: view.counts.creating == 2)

    told, looked, claim, get_pool = asyncio.Event(), asyncio.Event(), plant.store.claim, plant.store.get_pool
    written: list[str] = []

    async def claim_and_tell_late(request: ClaimRequest) -> ClaimResult:
        result = await claim(request)
        written.extend(member.id for member in result.members)
        await told.wait()
        return result

    async def get_pool_and_say_so(namespace: str, ref: str) -> PoolView:
        seen = bool(written)
        view = await get_pool(namespace, ref)
        if seen:
            looked.set()
        return view

    monkeypatch.setattr(plant.store, "claim", claim_and_tell_late)
    monkeypatch.setattr(plant.store, "get_pool", get_pool_and_say_so)
    both = [asyncio.create_task(plant.create(pool_id)) for _ in range(2)]
    await plant.seen(pool_id, lambda view: view.waiting == 2)
    runtime.let(1)
    async with asyncio.timeout(WAIT_SECS):
        await looked.wait()
        assert len(written) == 1, "the first has its sandbox, and was not told yet"
        told.set()
        runtime.let(1)
        sandboxes = await asyncio.gather(*both)
    assert len({sandbox.id for sandbox in sandboxes}) == 2


async def test_a_failing_pool_backs_off_and_disturbs_no_other(grow: Grow) -> None:
    """Row 3 of what users ask for."""
    runtime = BrokenRuntime(FailureReason.START_FAILED)
    plant = await grow(runtime)
    bad = await plant.pool(5)
    view = await plant.seen(bad, lambda v: v.pool.failure is not None and v.pool.failure.consecutive >= 3)
    assert view.condition is PoolCondition.DEGRADED
    assert view.pool.failure is not None
    assert view.pool.failure.reason is FailureReason.START_FAILED
    assert view.pool.failure.next_attempt_time > view.pool.failure.time
    assert runtime.peak == 1, "one attempt at a time"
    runtime.mend()
    mended = await plant.full(bad, 5)
    assert mended.pool.failure is None
    assert mended.condition is PoolCondition.READY


async def test_an_unknown_image_is_told_and_an_update_is_tried_at_once(grow: Grow) -> None:
    plant = await grow()
    bad, good = await plant.pool(2, image="no-such-image"), await plant.pool(2)
    await plant.full(good, 2)
    view = await plant.seen(bad, lambda v: v.pool.failure is not None)
    assert view.pool.failure is not None
    assert view.pool.failure.reason in (FailureReason.IMAGE_NOT_FOUND, FailureReason.PULL_FAILED)
    await plant.pools.update(bad, PoolChanges(warm_containers=1), "", "", "")
    await plant.pools.update(bad, PoolChanges(spec=SpecChanges(image=PYTHON_IMAGE)), "", "", "")
    assert (await plant.full(bad, 1)).pool.failure is None


async def test_a_member_that_does_not_answer_is_never_handed_out(grow: Grow) -> None:
    """Row 9 of what users ask for."""
    plant = await grow()
    assert isinstance(plant.agents, SilentAgents)
    pool_id = await plant.pool(3)
    await plant.full(pool_id, 3)
    dead = set(sorted(plant.runtime.containers)[:2])
    plant.agents.silent |= dead
    sandbox = await plant.create(pool_id)
    assert sandbox.id not in dead
    view = await plant.full(pool_id, 3)
    assert (view.counts.active, view.pool.hits) == (1, 1), "nobody notices"
    assert plant.runtime.containers.keys().isdisjoint(dead)


async def test_a_caller_who_goes_away_takes_no_member_along(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(1)
    await plant.full(pool_id, 1)
    async with cancelled(asyncio.create_task(plant.create(pool_id))):
        await asyncio.sleep(0)
    view = await plant.full(pool_id, 1)
    assert view.counts.active == 0


async def test_what_cannot_be_answered_in_time_is_not_kept(grow: Grow) -> None:
    """A sandbox whose caller's deadline comes before the answer could arrive would be one that nobody heard of."""
    plant = await grow()
    pool_id = await plant.pool(1)
    await plant.full(pool_id, 1)
    new = NewSandbox(pool_id=pool_id)
    now = plant.clock.monotonic()
    with pytest.raises(NotReadyInTime):
        await plant.sandboxes.create(new, "request-1", "fingerprint", now, deadline=now)
    await plant.full(pool_id, 1)
    assert not await plant.sandboxes.list(SandboxFilter(states=frozenset({MemberState.ACTIVE})), 10, "")
    sandbox = await plant.sandboxes.create(new, "request-1", "fingerprint", now, deadline=now + WAIT_SECS)
    assert sandbox.state is MemberState.ACTIVE, "the retry of the request claims anew"


async def test_a_cold_start_whose_caller_goes_away_leaves_nothing(grow: Grow) -> None:
    """Row 8 of what users ask for."""
    runtime = SlowRuntime()
    plant = await grow(runtime)
    pool_id = await plant.pool(0)
    creating = asyncio.create_task(plant.create(pool_id))
    await runtime.a_launch()
    creating.cancel()
    await asyncio.wait({creating})
    view = await plant.seen(pool_id, lambda v: v.counts.total == 0)
    assert view.pool.misses == 1
    assert runtime.containers == {}


async def test_a_sandbox_can_be_deleted_while_it_starts(grow: Grow) -> None:
    """Row 22 of what users ask for."""
    runtime = SlowRuntime()
    plant = await grow(runtime)
    pool_id = await plant.pool(0)
    creating = asyncio.create_task(plant.create(pool_id, name="mine"))
    await runtime.a_launch()
    deleted = await plant.sandboxes.delete("mine", "", "")
    with pytest.raises(FailedPrecondition, match="was deleted while it started"):
        await creating
    assert (await plant.ended(deleted.id)).state is MemberState.GONE
    assert runtime.containers == {}


async def test_a_container_that_dies_while_it_starts_is_a_failure_with_its_exit_code(grow: Grow) -> None:
    plant = await grow(DyingRuntime(exit_code=3))
    pool_id = await plant.pool(0)
    with pytest.raises(LaunchFailed) as error:
        await plant.create(pool_id)
    assert error.value.reason in (FailureReason.START_FAILED, FailureReason.NOT_READY)
    await plant.seen(pool_id, lambda v: v.counts.total == 0)
    assert plant.runtime.containers == {}


async def test_members_that_keep_dying_slow_the_pool_down(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(1)
    for _ in range(3):
        await plant.seen(pool_id, lambda v: v.counts.warm == 1)
        plant.runtime.die(next(iter(plant.runtime.containers)), exit_code=1)
        await plant.seen(pool_id, lambda v: v.counts.warm == 0)
    view = await plant.seen(pool_id, lambda v: v.pool.failure is not None)
    assert view.pool.failure is not None
    assert "soon after it became ready" in view.pool.failure.message
    await plant.full(pool_id, 1)


async def test_a_sandbox_whose_container_dies_says_why(grow: Grow) -> None:
    """Row 10 of what users ask for."""
    plant = await grow()
    exited, out_of_memory, lost = [await plant.create() for _ in range(3)]
    plant.runtime.die(exited.id, exit_code=5)
    plant.runtime.die(out_of_memory.id, exit_code=137, oom=True)
    plant.runtime.vanish(lost.id)
    ends = [(await plant.ended(sandbox.id)).end for sandbox in (exited, out_of_memory, lost)]
    assert [end and (end.reason, end.exit_code) for end in ends] == [
        (EndReason.EXITED, 5),
        (EndReason.OOM_KILLED, 137),
        (EndReason.LOST, 137),
    ]


async def test_probes_replace_ready_members_that_are_silent_and_leave_sandboxes_alone(grow: Grow) -> None:
    """Rows 9 and 19 of what users ask for."""
    plant = await grow()
    assert isinstance(plant.agents, SilentAgents)
    pool_id = await plant.pool(2)
    await plant.full(pool_id, 2)
    sandbox = await plant.create(pool_id)
    await plant.full(pool_id, 2)
    silent = next(i for i in plant.runtime.containers if i != sandbox.id)
    plant.agents.silent |= {silent, sandbox.id}
    await plant.probes.probe_all()
    assert silent in plant.runtime.containers, "once may be bad luck"
    await plant.probes.probe_all()
    await plant.full(pool_id, 2)
    assert silent not in plant.runtime.containers
    assert (await plant.sandboxes.get(sandbox.id)).state is MemberState.ACTIVE


async def test_a_sandbox_over_its_disk_is_ended(grow: Grow) -> None:
    plant = await grow()
    fits, over = [await plant.create() for _ in range(2)]
    plant.runtime.containers[fits.id].written = 1024 << 20
    plant.runtime.containers[over.id].written = (1024 << 20) + 1
    await plant.disks.look()
    end = (await plant.ended(over.id)).end
    assert end is not None
    assert end.reason is EndReason.DISK_EXCEEDED
    assert (await plant.sandboxes.get(fits.id)).state is MemberState.ACTIVE


async def test_a_lifetime_ends_and_an_extension_holds(grow: Grow) -> None:
    """Row 7 of what users ask for."""
    plant = await grow()
    ends, extended = [await plant.create(timeout_secs=1) for _ in range(2)]
    await plant.sandboxes.update(extended.id, SandboxChanges(timeout_secs=3600), "", "", "")
    end = (await plant.ended(ends.id)).end
    assert end is not None
    assert end.reason is EndReason.TIMED_OUT
    assert (await plant.sandboxes.get(extended.id)).state is MemberState.ACTIVE


async def test_a_killed_server_s_leftovers_are_adopted_or_removed(grow: Grow) -> None:
    """Row 6 of what users ask for."""
    first = await grow()
    pool_id = await first.pool(2)
    await first.full(pool_id, 2)
    sandbox = await first.create(pool_id)
    await first.full(pool_id, 2)
    kept = set(first.runtime.containers)
    await stop(first)
    snapshot = (await first.store.snapshot(frozenset({pool_id})))[0]
    await first.pools.update(pool_id, PoolChanges(warm_containers=4), "", "", "")
    await first.store.add_members(pool_id, snapshot.spec_digest, ["sbx-0000half000000000000"], first.clock.now())

    second = await grow(first.runtime, SilentAgents(first.runtime))
    await second.full(pool_id, 4)
    assert kept <= second.runtime.containers.keys()
    assert "sbx-0000half000000000000" not in second.runtime.containers
    assert (await second.sandboxes.get(sandbox.id)).state is MemberState.ACTIVE


async def test_a_retry_of_a_request_gets_the_first_sandbox(grow: Grow) -> None:
    plant = await grow()
    pool_id = await plant.pool(2)
    await plant.full(pool_id, 2)
    first = await plant.create(pool_id, "request-1")
    again = await plant.create(pool_id, "request-1")
    assert again.id == first.id
    assert (await plant.full(pool_id, 2)).counts.active == 1


async def test_an_engine_that_is_away_stops_no_warm_claims(grow: Grow) -> None:
    """Row 23 of what users ask for."""
    plant = await grow()
    pool_id = await plant.pool(2)
    await plant.full(pool_id, 2)
    plant.runtime.available = False
    sandboxes = [await plant.create(pool_id) for _ in range(2)]
    assert all(sandbox.state is MemberState.ACTIVE for sandbox in sandboxes)
    await plant.seen(pool_id, lambda v: v.pool.failure is not None)
    plant.runtime.available = True
    await plant.full(pool_id, 2)


async def test_a_runtime_without_trouble_is_asked_for_each_member_once(grow: Grow) -> None:
    runtime = FakeRuntime()
    plant = await grow(runtime)
    pools = [await plant.pool(2, image=image) for image in (IMAGE, PYTHON_IMAGE)]
    for pool_id in pools:
        await plant.full(pool_id, 2)
    assert len(runtime.launched) == len(set(runtime.launched)) == 4
