"""The life of instances with and without failures: a real store, a real control loop, an engine in memory."""

import asyncio

import pytest
from sqlalchemy import event

from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FailureReason,
    LaunchFailed,
    QueueTimeout,
)
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import PoolCondition, PoolView, StartType, TerminationReason
from sandpool_server.interfaces import ClaimRequest, ClaimResult, SandboxFilter
from sandpool_server.usecases.values import NewSandbox, PoolChanges, SandboxChanges
from tests.control.conftest import WAIT_SECS, StartServer, cancelled, stop
from tests.support.fake_agents import SilentAgents
from tests.support.fake_runtime import (
    IMAGE,
    PYTHON_IMAGE,
    BrokenRuntime,
    DyingRuntime,
    FakeRuntime,
    SlowRuntime,
)


async def test_fills_pool_and_replaces_claimed_instance(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(3)
    await server.wait_until_warm(pool_id, 3)
    sandbox = await server.create_sandbox(pool_id)
    assert sandbox.claim is not None
    assert sandbox.claim.start_type is StartType.WARM
    view = await server.wait_until_warm(pool_id, 3)
    assert (view.counts.active, view.pool.hits, view.pool.misses) == (1, 1, 0)
    assert len(server.runtime.containers) == 4
    await server.sandboxes.delete(sandbox.id, "", "")
    assert (await server.wait_until_removed(sandbox.id)).state is InstanceState.REMOVED
    assert sandbox.id not in server.runtime.containers


async def test_warm_create_uses_one_transaction_and_no_engine_call(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(1, max_containers=1)
    await server.wait_until_warm(pool_id, 1)
    await server.loop.stop()  # the control loop writes its own transactions
    server.runtime.available = False  # calls to the engine would fail
    begun: list[str] = []
    event.listen(server.store._write_engine, "begin", lambda _connection: begun.append("write"))
    sandbox = await server.create_sandbox(pool_id, "request-1")
    assert sandbox.state is InstanceState.ACTIVE
    assert begun == ["write"]
    view = await server.pools.get(pool_id)
    assert (view.counts.active, view.pool.hits) == (1, 1), "the transaction contains all changes"
    server.runtime.available = True


async def test_never_creates_more_than_desired(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(4, max_containers=5)
    await server.wait_until_warm(pool_id, 4)
    await server.create_sandbox(pool_id)
    await server.wait_until_warm(pool_id, 4)
    for _ in range(4):
        await server.create_sandbox(pool_id)
    with pytest.raises(Exhausted) as error:
        await server.create_sandbox(pool_id)
    assert error.value.reason == "POOL_LIMIT_REACHED"
    assert server.runtime.peak == 5
    assert len(server.runtime.launched) == 5


async def test_waiter_at_maximum_is_not_rejected_when_earlier_waiter_claims(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is written before its waiter leaves the queue. Later waiters must not count it twice."""
    runtime = SlowRuntime()
    server = await start_server(runtime)
    runtime.permit(2)
    pool_id = await server.create_pool(2, max_containers=4)
    await server.wait_until_warm(pool_id, 2)
    for _ in range(2):
        await server.create_sandbox(pool_id)
    await server.wait_for_pool(pool_id, lambda view: view.counts.creating == 2)

    returned, checked, claim, get_pool = asyncio.Event(), asyncio.Event(), server.store.claim, server.store.get_pool
    written: list[str] = []

    async def claim_and_return_late(request: ClaimRequest) -> ClaimResult:
        result = await claim(request)
        written.extend(instance.id for instance in result.instances)
        await returned.wait()
        return result

    async def get_pool_and_notify(namespace: str, ref: str) -> PoolView:
        seen = bool(written)
        view = await get_pool(namespace, ref)
        if seen:
            checked.set()
        return view

    monkeypatch.setattr(server.store, "claim", claim_and_return_late)
    monkeypatch.setattr(server.store, "get_pool", get_pool_and_notify)
    both = [asyncio.create_task(server.create_sandbox(pool_id)) for _ in range(2)]
    await server.wait_for_pool(pool_id, lambda view: view.waiting == 2)
    runtime.permit(1)
    async with asyncio.timeout(WAIT_SECS):
        await checked.wait()
        assert len(written) == 1, "the first claim is written but not returned yet"
        returned.set()
        runtime.permit(1)
        sandboxes = await asyncio.gather(*both)
    assert len({sandbox.id for sandbox in sandboxes}) == 2


async def test_failing_pool_backs_off_and_recovers(start_server: StartServer) -> None:
    """Row 3 of user-demands.md."""
    runtime = BrokenRuntime(FailureReason.START_FAILED)
    server = await start_server(runtime)
    bad = await server.create_pool(5)
    view = await server.wait_for_pool(bad, lambda v: v.pool.failure is not None and v.pool.failure.consecutive >= 3)
    assert view.condition is PoolCondition.DEGRADED
    assert view.pool.failure is not None
    assert view.pool.failure.reason is FailureReason.START_FAILED
    assert view.pool.failure.next_attempt_time > view.pool.failure.time
    assert runtime.peak == 1, "one attempt at a time"
    runtime.repair()
    repaired = await server.wait_until_warm(bad, 5)
    assert repaired.pool.failure is None
    assert repaired.condition is PoolCondition.READY


async def test_reports_unknown_image_and_tries_update_immediately(start_server: StartServer) -> None:
    server = await start_server()
    bad, good = await server.create_pool(2, image="no-such-image"), await server.create_pool(2)
    await server.wait_until_warm(good, 2)
    view = await server.wait_for_pool(bad, lambda v: v.pool.failure is not None)
    assert view.pool.failure is not None
    assert view.pool.failure.reason in (FailureReason.IMAGE_NOT_FOUND, FailureReason.PULL_FAILED)
    await server.pools.update(bad, PoolChanges(warm_containers=1), "", "", "")
    await server.pools.update(bad, PoolChanges(spec={"image": PYTHON_IMAGE}), "", "", "")
    assert (await server.wait_until_warm(bad, 1)).pool.failure is None


async def test_never_assigns_unresponsive_instance(start_server: StartServer) -> None:
    """Row 9 of user-demands.md."""
    server = await start_server()
    assert isinstance(server.agents, SilentAgents)
    pool_id = await server.create_pool(3)
    await server.wait_until_warm(pool_id, 3)
    dead = set(sorted(server.runtime.containers)[:2])
    server.agents.silent |= dead
    sandbox = await server.create_sandbox(pool_id)
    assert sandbox.id not in dead
    view = await server.wait_until_warm(pool_id, 3)
    assert (view.counts.active, view.pool.hits) == (1, 1), "the caller gets a healthy instance"
    assert server.runtime.containers.keys().isdisjoint(dead)


async def test_cancelled_claim_leaves_no_active_instance(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(1)
    await server.wait_until_warm(pool_id, 1)
    async with cancelled(asyncio.create_task(server.create_sandbox(pool_id))):
        await asyncio.sleep(0)
    view = await server.wait_until_warm(pool_id, 1)
    assert view.counts.active == 0


async def test_releases_sandbox_when_response_would_miss_deadline(start_server: StartServer) -> None:
    """If the deadline of the caller expires before the response arrives, no caller knows the sandbox."""
    server = await start_server()
    pool_id = await server.create_pool(1)
    await server.wait_until_warm(pool_id, 1)
    new = NewSandbox(pool_id=pool_id)
    now = server.clock.monotonic()
    with pytest.raises(QueueTimeout):
        await server.sandboxes.create(new, "request-1", "fingerprint", now, deadline=now)
    await server.wait_until_warm(pool_id, 1)
    assert not await server.sandboxes.list(SandboxFilter(states=frozenset({InstanceState.ACTIVE})), 10, "")
    sandbox = await server.sandboxes.create(new, "request-1", "fingerprint", now, deadline=now + WAIT_SECS)
    assert sandbox.state is InstanceState.ACTIVE, "the retry of the request claims again"


async def test_cancelled_cold_start_leaves_no_container(start_server: StartServer) -> None:
    """Row 8 of user-demands.md."""
    runtime = SlowRuntime()
    server = await start_server(runtime)
    pool_id = await server.create_pool(0)
    creating = asyncio.create_task(server.create_sandbox(pool_id))
    await runtime.launch_waits()
    creating.cancel()
    await asyncio.wait({creating})
    view = await server.wait_for_pool(pool_id, lambda v: v.counts.total == 0)
    assert view.pool.misses == 1
    assert runtime.containers == {}


async def test_deletes_sandbox_while_it_starts(start_server: StartServer) -> None:
    """Row 22 of user-demands.md."""
    runtime = SlowRuntime()
    server = await start_server(runtime)
    pool_id = await server.create_pool(0)
    creating = asyncio.create_task(server.create_sandbox(pool_id, name="mine"))
    await runtime.launch_waits()
    deleted = await server.sandboxes.delete("mine", "", "")
    with pytest.raises(FailedPrecondition, match="was deleted while it started"):
        await creating
    assert (await server.wait_until_removed(deleted.id)).state is InstanceState.REMOVED
    assert runtime.containers == {}


async def test_create_fails_when_container_dies_during_start(start_server: StartServer) -> None:
    server = await start_server(DyingRuntime(exit_code=3))
    pool_id = await server.create_pool(0)
    with pytest.raises(LaunchFailed) as error:
        await server.create_sandbox(pool_id)
    assert error.value.reason in (FailureReason.START_FAILED, FailureReason.READINESS_TIMEOUT)
    await server.wait_for_pool(pool_id, lambda v: v.counts.total == 0)
    assert server.runtime.containers == {}


async def test_pool_backs_off_when_instances_keep_dying(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(1)
    for _ in range(3):
        await server.wait_for_pool(pool_id, lambda v: v.counts.warm == 1)
        server.runtime.die(next(iter(server.runtime.containers)), exit_code=1)
        await server.wait_for_pool(pool_id, lambda v: v.counts.warm == 0)
    view = await server.wait_for_pool(pool_id, lambda v: v.pool.failure is not None)
    assert view.pool.failure is not None
    assert "soon after it became ready" in view.pool.failure.message
    await server.wait_until_warm(pool_id, 1)


async def test_reports_why_container_of_sandbox_died(start_server: StartServer) -> None:
    """Row 10 of user-demands.md."""
    server = await start_server()
    exited, out_of_memory, lost = [await server.create_sandbox() for _ in range(3)]
    server.runtime.die(exited.id, exit_code=5)
    server.runtime.die(out_of_memory.id, exit_code=137, oom=True)
    server.runtime.remove_container(lost.id)
    ends = [(await server.wait_until_removed(sandbox.id)).end for sandbox in (exited, out_of_memory, lost)]
    assert [end and (end.reason, end.exit_code) for end in ends] == [
        (TerminationReason.EXITED, 5),
        (TerminationReason.OOM_KILLED, 137),
        (TerminationReason.LOST, 137),
    ]


async def test_probes_replace_unresponsive_warm_instances_but_no_sandboxes(start_server: StartServer) -> None:
    """Rows 9 and 19 of user-demands.md."""
    server = await start_server()
    assert isinstance(server.agents, SilentAgents)
    pool_id = await server.create_pool(2)
    await server.wait_until_warm(pool_id, 2)
    sandbox = await server.create_sandbox(pool_id)
    await server.wait_until_warm(pool_id, 2)
    silent = next(i for i in server.runtime.containers if i != sandbox.id)
    server.agents.silent |= {silent, sandbox.id}
    await server.health_checks.check_all()
    assert silent in server.runtime.containers, "one failed probe is not enough"
    await server.health_checks.check_all()
    await server.wait_until_warm(pool_id, 2)
    assert silent not in server.runtime.containers
    assert (await server.sandboxes.get(sandbox.id)).state is InstanceState.ACTIVE


async def test_terminates_sandbox_above_disk_limit(start_server: StartServer) -> None:
    server = await start_server()
    fits, over = [await server.create_sandbox() for _ in range(2)]
    server.runtime.containers[fits.id].written = 1024 << 20
    server.runtime.containers[over.id].written = (1024 << 20) + 1
    await server.disks.check()
    end = (await server.wait_until_removed(over.id)).end
    assert end is not None
    assert end.reason is TerminationReason.DISK_EXCEEDED
    assert (await server.sandboxes.get(fits.id)).state is InstanceState.ACTIVE


async def test_terminates_sandbox_at_timeout_unless_extended(start_server: StartServer) -> None:
    """Row 7 of user-demands.md."""
    server = await start_server()
    ends, extended = [await server.create_sandbox(timeout_secs=1) for _ in range(2)]
    await server.sandboxes.update(extended.id, SandboxChanges(timeout_secs=3600), "", "", "")
    end = (await server.wait_until_removed(ends.id)).end
    assert end is not None
    assert end.reason is TerminationReason.TIMED_OUT
    assert (await server.sandboxes.get(extended.id)).state is InstanceState.ACTIVE


async def test_adopts_or_removes_instances_of_killed_server(start_server: StartServer) -> None:
    """Row 6 of user-demands.md."""
    first = await start_server()
    pool_id = await first.create_pool(2)
    await first.wait_until_warm(pool_id, 2)
    sandbox = await first.create_sandbox(pool_id)
    await first.wait_until_warm(pool_id, 2)
    existing = set(first.runtime.containers)
    await stop(first)
    snapshot = (await first.store.snapshot(frozenset({pool_id})))[0]
    await first.pools.update(pool_id, PoolChanges(warm_containers=4), "", "", "")
    await first.store.add_instances(pool_id, snapshot.spec_digest, ["sbx-0000half000000000000"], first.clock.now())

    second = await start_server(first.runtime, SilentAgents(first.runtime))
    await second.wait_until_warm(pool_id, 4)
    assert existing <= second.runtime.containers.keys()
    assert "sbx-0000half000000000000" not in second.runtime.containers
    assert (await second.sandboxes.get(sandbox.id)).state is InstanceState.ACTIVE


async def test_retry_returns_sandbox_of_first_request(start_server: StartServer) -> None:
    server = await start_server()
    pool_id = await server.create_pool(2)
    await server.wait_until_warm(pool_id, 2)
    first = await server.create_sandbox(pool_id, "request-1")
    again = await server.create_sandbox(pool_id, "request-1")
    assert again.id == first.id
    assert (await server.wait_until_warm(pool_id, 2)).counts.active == 1


async def test_warm_claims_succeed_while_engine_is_unavailable(start_server: StartServer) -> None:
    """Row 23 of user-demands.md."""
    server = await start_server()
    pool_id = await server.create_pool(2)
    await server.wait_until_warm(pool_id, 2)
    server.runtime.available = False
    sandboxes = [await server.create_sandbox(pool_id) for _ in range(2)]
    assert all(sandbox.state is InstanceState.ACTIVE for sandbox in sandboxes)
    await server.wait_for_pool(pool_id, lambda v: v.pool.failure is not None)
    server.runtime.available = True
    await server.wait_until_warm(pool_id, 2)


async def test_launches_each_instance_once_without_failures(start_server: StartServer) -> None:
    runtime = FakeRuntime()
    server = await start_server(runtime)
    pools = [await server.create_pool(2, image=image) for image in (IMAGE, PYTHON_IMAGE)]
    for pool_id in pools:
        await server.wait_until_warm(pool_id, 2)
    assert len(runtime.launched) == len(set(runtime.launched)) == 4
