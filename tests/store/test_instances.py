"""Reads and writes of the control loop in the store."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import FailureReason, NotFound
from sandpool_server.domain.lifecycle import IN_USE, IllegalTransition, InstanceState
from sandpool_server.domain.model import PoolCounts, StartType, TerminationReason
from sandpool_server.domain.plan import InstanceSnapshot, PoolSnapshot
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b

WARM = frozenset({InstanceState.WARM})
TIMED_OUT = b.end(TerminationReason.TIMED_OUT)


# --- creating ---------------------------------------------------------------------------------------------------------


async def test_adds_instances_in_state_creating(store: SqlStore, notified: list[frozenset[str]]) -> None:
    template = await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base", warm_containers=2)
    notified.clear()
    ids = b.sandbox_ids(2)
    instances = await store.add_instances(pool.id, pool.spec.digest(), ids, b.T0)
    expected = [
        b.instance(InstanceState.CREATING, id=one, pool_id=pool.id, template_id=template.id, template_name="base")
        for one in ids
    ]
    assert instances == expected
    assert await store.live_instances() == expected
    assert notified == [{pool.id, *ids}]


@pytest.mark.parametrize(
    ("warm_containers", "max_containers", "added"),
    [(0, None, 0), (2, None, 0), (5, None, 3), (5, 4, 1), (5, 3, 0), (9, 5, 2)],
)
async def test_adds_only_desired_instances(
    store: SqlStore, notified: list[frozenset[str]], warm_containers: int, max_containers: int | None, added: int
) -> None:
    pool = await make_pool(store, 2, warm_containers=3)
    await claim_one(store, pool_ref=pool.id)
    await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    # The pool has one instance in each of these states: active, warm, creating.
    await store.update_pool(
        NS, pool.id, None, lambda p: replace(p, warm_containers=warm_containers, max_containers=max_containers), None
    )
    notified.clear()
    ids = b.sandbox_ids(9)
    instances = await store.add_instances(pool.id, pool.spec.digest(), ids, b.T0)
    assert [instance.id for instance in instances] == ids[:added]
    assert len(notified) == (1 if added else 0)


@pytest.mark.parametrize(("max_containers", "added"), [(None, 3), (3, 2), (1, 0)])
async def test_adds_instances_for_waiters(store: SqlStore, max_containers: int | None, added: int) -> None:
    pool = await make_pool(store, 1, warm_containers=1, max_containers=max_containers)
    instances = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(9), b.T0, waiting=3)
    assert len(instances) == added


async def test_adds_nothing_to_changed_pool(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=5)
    digest = pool.spec.digest()

    async def added() -> int:
        return len(await store.add_instances(pool.id, digest, b.sandbox_ids(1), b.T0))

    assert await added() == 1
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=True), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=False, drained=True), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, drained=False, spec=b.spec("new")), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=pool.spec), None)
    assert await added() == 1
    await store.delete_pool(NS, pool.id, None, b.T0, None)
    assert await added() == 0
    assert await store.add_instances(b.pool_id(), digest, b.sandbox_ids(1), b.T0) == []


async def test_concurrent_additions_and_claims_respect_maximum(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=10, max_containers=10)
    await asyncio.gather(
        *(store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(3), b.T0) for _ in range(8)),
        *(store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(8)),
        return_exceptions=True,
    )
    assert (await store.get_pool(NS, pool.id)).counts.total == 10


async def test_ready_instance_becomes_warm_or_active(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, warm_containers=1)
    [instance] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    starting = await claim_one(store, pool_ref=pool.id, timeout_secs=5)
    alone = await claim_one(store)
    notified.clear()
    warm = await store.instance_ready(instance.id, ADDRESS, b.T0, 9.0)
    active = await store.instance_ready(starting.id, ADDRESS, b.T0, 0.75)
    assert warm == replace(instance, state=InstanceState.WARM, address=ADDRESS)
    assert active == replace(starting, state=InstanceState.ACTIVE, address=ADDRESS, start_secs=0.75)
    assert await store.instance_ready(alone.id, ADDRESS, b.T0, 0.75) is not None
    assert notified == [{pool.id, instance.id}, {pool.id, starting.id}, {alone.id}]
    with pytest.raises(IllegalTransition):
        await store.instance_ready(instance.id, ADDRESS, b.T0, 0.1)


async def test_instance_in_removal_does_not_become_ready(store: SqlStore) -> None:
    starting = await claim_one(store)
    await store.delete_sandbox(NS, starting.id, b.T0, None)
    assert await store.instance_ready(starting.id, ADDRESS, b.T0, 0.1) is None
    await store.instance_removed(starting.id, b.T0)
    assert await store.instance_ready(starting.id, ADDRESS, b.T0, 0.1) is None
    assert await store.instance_ready(b.sandbox_id(), ADDRESS, b.T0, 0.1) is None


async def test_instances_keep_pull_policy_of_their_creation(store: SqlStore) -> None:
    pool = await make_pool(store, 1, spec=b.spec(pull_policy=PullPolicy.NEVER), warm_containers=2)
    await store.add_instances(pool.id, pool.instance_digest(), b.sandbox_ids(1), b.T0)
    await store.update_pool(
        NS, pool.id, None, lambda p: replace(p, spec=replace(p.spec, pull_policy=PullPolicy.ALWAYS)), None
    )
    claimed = (await store.claim(b.claim_request(2, pool_ref=pool.id))).instances
    assert [instance.spec.pull_policy for instance in claimed] == [PullPolicy.NEVER, PullPolicy.ALWAYS]
    policies = {instance.id: instance.spec.pull_policy for instance in await store.live_instances()}
    assert [policies[instance.id] for instance in claimed] == [PullPolicy.NEVER, PullPolicy.ALWAYS]
    assert sorted(policies.values()) == [PullPolicy.ALWAYS, PullPolicy.NEVER, PullPolicy.NEVER]


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_failed_creation_sets_failure_of_pool(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, warm_containers=1)
    [instance] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    notified.clear()
    failure = b.failure(FailureReason.PULL_FAILED, consecutive=3)
    failed = await store.launch_failed(instance.id, b.end(TerminationReason.FAILED), failure)
    assert failed == replace(instance, state=InstanceState.REMOVING)
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.failure, view.pool.version) == (failure, 1)
    assert notified == [{pool.id, instance.id}]
    assert await store.launch_failed(instance.id, b.end(TerminationReason.FAILED), None) is None
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.failure == failure


async def test_success_clears_failure_of_pool(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=2)
    failing, good = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    await store.launch_failed(failing.id, b.end(TerminationReason.FAILED), b.failure())
    await store.instance_ready(good.id, ADDRESS, b.T0, 0.1)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


async def test_only_instances_of_current_spec_change_failure_of_pool(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=2)
    old_bad, old_good = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    assert await store.launch_failed(old_bad.id, b.end(TerminationReason.FAILED), b.failure()) is not None
    assert (await store.get_pool(NS, pool.id)).pool.failure is None
    [new] = await store.add_instances(pool.id, view.pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(new.id, b.end(TerminationReason.FAILED), b.failure())
    await store.instance_ready(old_good.id, ADDRESS, b.T0, 0.1)
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure()


async def test_failed_start_terminates_sandbox(store: SqlStore) -> None:
    instance = await claim_one(store)
    end = b.end(TerminationReason.FAILED, message="no such image", exit_code=3)
    failed = await store.launch_failed(instance.id, end, b.failure())
    assert failed == replace(instance, state=InstanceState.REMOVING, end=end)
    assert await store.get_sandbox(NS, instance.id) == failed


async def test_failure_without_instance_sets_failure_of_pool(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool, deleted = await make_pool(store), await make_pool(store)
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    notified.clear()
    await store.pool_failed(pool.id, "another", b.failure())
    await store.pool_failed(deleted.id, pool.instance_digest(), b.failure())
    await store.pool_failed(b.pool_id(), pool.instance_digest(), b.failure())
    assert (await store.get_pool(NS, pool.id)).pool.failure is None
    assert notified == []
    await store.pool_failed(pool.id, pool.instance_digest(), b.failure(FailureReason.PULL_FAILED))
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure(FailureReason.PULL_FAILED)
    assert notified == [{pool.id}]


# --- termination ------------------------------------------------------------------------------------------------------


async def test_ends_instances_in_given_states(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 3)
    active = await claim_one(store, pool_ref=pool.id)
    warm = [instance.id for instance in await store.live_instances() if instance.state is InstanceState.WARM]
    starting = await claim_one(store)
    notified.clear()
    ended = await store.end_instances([active.id, warm[0], starting.id], WARM | {InstanceState.ACTIVE}, TIMED_OUT)
    assert [(m.id, m.state, m.end) for m in ended] == sorted(
        [(active.id, InstanceState.REMOVING, TIMED_OUT), (warm[0], InstanceState.REMOVING, None)]
    )
    assert notified == [{pool.id, active.id, warm[0]}]
    states = {instance.id: instance.state for instance in await store.live_instances()}
    assert states[warm[1]] is InstanceState.WARM
    assert states[starting.id] is InstanceState.STARTING
    assert await store.end_instances([active.id, warm[0]], WARM | {InstanceState.ACTIVE}, TIMED_OUT) == []
    assert await store.end_instances([], WARM, TIMED_OUT) == []
    assert len(notified) == 1


async def test_rejects_end_of_removed_instances(store: SqlStore) -> None:
    with pytest.raises(IllegalTransition):
        await store.end_instances(["x"], frozenset({InstanceState.REMOVED}), TIMED_OUT)


async def test_committed_extension_prevents_expiry(store: SqlStore) -> None:
    now = b.T0 + timedelta(seconds=10)
    extended, due, never = [await claim_one(store, timeout_secs=secs) for secs in (10, 10, 0)]
    ids = [extended.id, due.id, never.id]
    early = now - timedelta(microseconds=1)
    assert await store.end_instances(ids, IN_USE, TIMED_OUT, expired_at=early) == []

    def extend(instance):
        return replace(instance, claim=replace(instance.claim, timeout_secs=11))

    await store.update_sandbox(NS, extended.id, None, extend, None)
    ended = await store.end_instances(ids, IN_USE, TIMED_OUT, expired_at=now)
    assert [instance.id for instance in ended] == [due.id]


async def test_concurrent_expiry_never_ends_extended_sandbox(store: SqlStore) -> None:
    now = b.T0 + timedelta(seconds=10)
    instances = [await claim_one(store, timeout_secs=10) for _ in range(20)]

    def extend(instance):
        return replace(instance, claim=replace(instance.claim, timeout_secs=100))

    work = []
    for instance in instances:
        work.append(store.update_sandbox(NS, instance.id, None, extend, None))
        work.append(store.end_instances([instance.id], IN_USE, TIMED_OUT, expired_at=now))
    results = await asyncio.gather(*work, return_exceptions=True)
    for index, instance in enumerate(instances):
        extension, ended = results[2 * index : 2 * index + 2]
        assert isinstance(extension, Exception) == bool(ended), instance.id


async def test_keeps_row_of_removed_sandbox_but_not_of_removed_instance(
    store: SqlStore, notified: list[frozenset[str]]
) -> None:
    pool = await make_pool(store, 2)
    active = await claim_one(store, pool_ref=pool.id)
    [warm] = [instance.id for instance in await store.live_instances() if instance.state is InstanceState.WARM]
    for instance_id in (active.id, warm):
        with pytest.raises(IllegalTransition):
            await store.instance_removed(instance_id, b.T0)
    await store.end_instances([active.id, warm], WARM | IN_USE, TIMED_OUT)
    notified.clear()
    for _ in range(2):
        await store.instance_removed(active.id, b.T0)
        await store.instance_removed(warm, b.T0)
    assert notified == [{pool.id, active.id}, {pool.id, warm}]
    assert await store.live_instances() == []
    removed = await store.get_sandbox(NS, active.id)
    assert (removed.state, removed.end) == (InstanceState.REMOVED, TIMED_OUT)


# --- release ----------------------------------------------------------------------------------------------------------


async def test_released_instance_is_not_a_sandbox(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, max_containers=2)
    dead = await claim_one(store, pool_ref=pool.id, name="mine", request_id="r", fingerprint="f", metadata={"a": "b"})
    notified.clear()

    [released] = await store.release([dead.id])

    assert released == replace(dead, state=InstanceState.REMOVING, claim=None, start_secs=None, request_fingerprint="")
    assert notified == [{pool.id, dead.id}]
    view = await store.get_pool(NS, pool.id)
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=1, removing=1), 0, 0)
    for ref in (dead.id, "mine"):
        with pytest.raises(NotFound):
            await store.get_sandbox(NS, ref)
    # Its name and its request id can be used again.
    again = await store.claim(b.claim_request(pool_ref=pool.id, name="mine", request_id="r", fingerprint="f"))
    assert not again.replayed
    assert again.instances[0].id != dead.id
    assert (await store.get_pool(NS, pool.id)).pool.hits == 1
    await store.instance_removed(dead.id, b.T0)
    assert dead.id not in {instance.id for instance in await store.live_instances()}
    assert await store.purge(b.T0 + timedelta(1), b.T0 + timedelta(1)) == 0


async def test_release_of_cold_start_reverts_miss(store: SqlStore) -> None:
    pool = await make_pool(store)
    dead = await claim_one(store, pool_ref=pool.id)
    assert dead.claim is not None
    assert dead.claim.start_type is StartType.COLD
    await store.instance_ready(dead.id, ADDRESS, b.T0, 1.0)
    await store.release([dead.id])
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (0, 0)


async def test_releases_only_active_instances(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 3)
    deleted, active = [await claim_one(store, pool_ref=pool.id) for _ in range(2)]
    await store.delete_sandbox(NS, deleted.id, b.T0, None)
    [warm] = [instance.id for instance in await store.live_instances() if instance.state is InstanceState.WARM]
    starting = await claim_one(store)
    notified.clear()
    ids = [deleted.id, warm, starting.id, b.sandbox_id()]
    assert await store.release(ids) == []
    assert await store.release([]) == []
    assert notified == []
    assert [instance.id for instance in await store.release([*ids, active.id])] == [active.id]
    assert await store.release([active.id]) == []
    assert (await store.get_sandbox(NS, deleted.id)).end == b.end()
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.counts) == (1, PoolCounts(warm=1, removing=2))


async def test_concurrent_releases_and_claims_count_correctly(store: SqlStore) -> None:
    pool = await make_pool(store, 10, max_containers=10)
    dead = (await store.claim(b.claim_request(5, pool_ref=pool.id))).instances
    await asyncio.gather(
        *(store.release([instance.id]) for instance in dead),
        *(store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(3)),
    )
    assert (await store.get_pool(NS, pool.id)).pool.hits == 3
    assert await counts(store, pool.id) == PoolCounts(warm=2, active=3, removing=5)


# --- snapshots --------------------------------------------------------------------------------------------------------


async def test_snapshot_contains_data_for_planner(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=2, max_containers=7, namespace="one")
    active = await claim_one(store, pool_ref=pool.id, timeout_secs=5, namespace="one")
    [warm] = [m.id for m in await store.live_instances() if m.state is InstanceState.WARM]
    removed = await claim_one(store, pool_ref=pool.id, namespace="one")
    await store.delete_sandbox("one", removed.id, b.T0, None)
    await store.instance_removed(removed.id, b.T0)
    empty = await make_pool(
        store, paused=True, drained=True, warm_ttl_secs=60, image_refresh_interval_secs=30, warm_containers=1
    )
    deleted = await make_pool(store, 1)
    [removing] = await add_warm(store, await make_pool(store, warm_containers=1), 1)
    removed_pool = await make_pool(store)
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    await store.delete_pool(NS, removed_pool.id, None, b.T0, None)
    alone = await claim_one(store, timeout_secs=9)

    digest = pool.spec.digest()
    snapshots = {one.id: one for one in await store.snapshot(None)}
    expires = b.T0 + timedelta(seconds=5)
    expected = PoolSnapshot(
        id=pool.id,
        spec_digest=digest,
        warm_containers=2,
        max_containers=7,
        image=pool.spec.image,
        instances=(
            InstanceSnapshot(active.id, InstanceState.ACTIVE, digest, expires, b.T0),
            # The second warm instance was claimed by the sandbox that is removed.
        ),
    )
    assert snapshots[pool.id] == expected
    assert removed.id == warm
    assert snapshots[empty.id] == PoolSnapshot(
        empty.id,
        digest,
        warm_containers=1,
        paused=True,
        drained=True,
        warm_ttl_secs=60,
        image=empty.spec.image,
        image_refresh_interval_secs=30,
    )
    assert snapshots[deleted.id].deleted
    assert [instance.state for instance in snapshots[deleted.id].instances] == [InstanceState.REMOVING]
    assert removed_pool.id not in snapshots
    assert removing in {instance.id for one in snapshots.values() for instance in one.instances}
    without_pool = PoolSnapshot(
        "", instances=(InstanceSnapshot(alone.id, InstanceState.STARTING, digest, b.T0 + timedelta(seconds=9), b.T0),)
    )
    assert snapshots[""] == without_pool

    assert await store.snapshot(frozenset({pool.id})) == [expected]
    assert await store.snapshot(frozenset({""})) == [without_pool]
    assert await store.snapshot(frozenset({pool.id, "", b.pool_id()})) == [expected, without_pool]
    assert await store.snapshot(frozenset()) == []


async def test_live_instances_include_all_namespaces(store: SqlStore) -> None:
    one, two = await claim_one(store), await claim_one(store, namespace="other")
    assert await store.live_instances() == [one, two]
