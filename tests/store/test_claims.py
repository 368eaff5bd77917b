"""Claims in the store."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import AlreadyExists, Exhausted, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import IN_USE, InstanceState
from sandpool_server.domain.model import PoolCounts, StartType, TerminationReason
from sandpool_server.interfaces import ClaimResult, claim_request_id
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b

# --- sources of sandboxes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "id"])
async def test_claims_oldest_warm_instance(
    store: SqlStore, clock: b.ManualClock, notified: list[frozenset[str]], by_name: bool
) -> None:
    pool = await make_pool(store, name="web", timeout_secs=60)
    pool = (await store.update_pool(NS, "web", None, lambda p: replace(p, warm_containers=2), None)).pool
    oldest, _ = await add_warm(store, pool, 2)
    notified.clear()
    request = b.claim_request(
        pool_ref="web" if by_name else pool.id, name="mine", metadata={"a": "ü"}, received=clock.monotonic()
    )
    clock.advance(0.25)

    result = await store.claim(request)

    [instance] = result.instances
    assert not result.replayed
    assert instance == b.instance(
        InstanceState.ACTIVE,
        id=oldest,
        pool_id=pool.id,
        address=ADDRESS,
        claim=b.claim(name="mine", metadata={"a": "ü"}, timeout_secs=60),
        start_secs=0.25,
    )
    assert await store.get_sandbox(NS, "mine") == instance
    assert notified == [{pool.id, oldest}]
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses, view.pool.version) == (1, 0, 2)


async def test_cold_start_when_no_instance_is_warm(store: SqlStore, notified: list[frozenset[str]]) -> None:
    template = await store.create_template(b.template("base", timeout_secs=60), None)
    pool = await make_pool(store, template_ref="base")
    notified.clear()
    request = b.claim_request(pool_ref=pool.id, timeout_secs=5, now=b.T0 + timedelta(1), fingerprint="f")
    [instance] = (await store.claim(request)).instances
    assert instance == b.instance(
        InstanceState.STARTING,
        id=request.ids[0],
        pool_id=pool.id,
        template_id=template.id,
        template_name="base",
        create_time=request.now,
        claim=b.claim(start_type=StartType.COLD, claim_time=request.now, timeout_secs=5),
        request_fingerprint="f",
    )
    assert await store.get_sandbox(NS, instance.id) == instance
    assert notified == [{pool.id, instance.id}]
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (0, 1)


async def test_batch_claims_warm_instances_before_cold_starts(store: SqlStore) -> None:
    pool = await make_pool(store, 2)
    instances = (await store.claim(b.claim_request(5, pool_ref=pool.id))).instances
    assert [instance.state for instance in instances] == [InstanceState.ACTIVE] * 2 + [InstanceState.STARTING] * 3
    assert len({instance.id for instance in instances}) == 5
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (2, 3)


async def test_claim_with_specification_is_cold_start_without_pool(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    instance = await claim_one(store, spec=pool.spec, timeout_secs=9)
    assert (instance.pool_id, instance.state, instance.spec) == ("", InstanceState.STARTING, pool.spec)
    assert instance.claim is not None
    assert instance.claim.timeout_secs == 9
    assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("source", ["pool_ref", "template_ref"])
async def test_rejects_unknown_source(store: SqlStore, source: str) -> None:
    with pytest.raises(NotFound, match="'none'"):
        await store.claim(b.claim_request(**{source: "none"}))


async def test_never_claims_outdated_instances(store: SqlStore) -> None:
    pool = await make_pool(store, 1, warm_containers=9)
    [late] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    await store.instance_ready(late.id, ADDRESS, b.T0, 0.1)
    instance = await claim_one(store, pool_ref=pool.id)
    assert (instance.state, instance.spec.image) == (InstanceState.STARTING, "new")
    # After the specification is changed back, the old instance can be claimed again.
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=pool.spec), None)
    assert (await claim_one(store, pool_ref=pool.id)).state is InstanceState.ACTIVE


async def test_never_claims_instances_of_earlier_template_spec(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 2, template_ref="base")
    await store.update_template(NS, "base", None, lambda t: replace(t, spec=b.spec("new")), None)
    for source in ({"pool_ref": pool.id}, {"template_ref": "base"}):
        instance = await claim_one(store, **source)
        assert (instance.state, instance.spec.image) == (InstanceState.STARTING, "new")


async def test_claims_after_committed_update_use_new_spec(store: SqlStore) -> None:
    pool = await make_pool(store, 20)
    early = [asyncio.ensure_future(store.claim(b.claim_request(pool_ref=pool.id))) for _ in range(5)]
    update = asyncio.ensure_future(store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None))
    await update
    late = [await claim_one(store, pool_ref=pool.id) for _ in range(5)]
    assert all(instance.spec.image == "new" and instance.state is InstanceState.STARTING for instance in late)
    assert {result.instances[0].spec.image for result in await asyncio.gather(*early)} == {pool.spec.image}


# --- from a template --------------------------------------------------------------------------------------------------


async def test_template_claim_uses_oldest_pool_first(store: SqlStore) -> None:
    await store.create_template(b.template("base", timeout_secs=60), None)
    first = await make_pool(store, 1, template_ref="base")
    paused = await make_pool(store, 1, template_ref="base")
    await store.update_pool(NS, paused.id, None, lambda p: replace(p, paused=True), None)
    second = await make_pool(store, 1, template_ref="base", timeout_secs=5)
    instances = (await store.claim(b.claim_request(3, template_ref="base"))).instances
    assert [(m.pool_id, m.state) for m in instances] == [
        (first.id, InstanceState.ACTIVE),
        (second.id, InstanceState.ACTIVE),
        (first.id, InstanceState.STARTING),
    ]
    assert [m.claim.timeout_secs for m in instances if m.claim] == [60, 5, 60]
    views = [(await store.get_pool(NS, pool.id)).pool for pool in (first, paused, second)]
    assert [(view.hits, view.misses) for view in views] == [(1, 1), (0, 0), (1, 0)]


async def test_template_claim_starts_rest_in_first_pool_with_room(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    small = await make_pool(store, 1, template_ref="base", max_containers=2)
    large = await make_pool(store, template_ref="base")
    instances = (await store.claim(b.claim_request(3, template_ref="base"))).instances
    assert [m.pool_id for m in instances] == [small.id, large.id, large.id]


async def test_template_without_pools_starts_sandboxes_without_pool(store: SqlStore) -> None:
    template = await store.create_template(b.template("base", timeout_secs=60), None)
    deleted = await make_pool(store, 1, template_ref="base")
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    for timeout_secs, expected in ((None, 60), (5, 5)):
        instances = (await store.claim(b.claim_request(2, template_ref="base", timeout_secs=timeout_secs))).instances
        assert [(m.pool_id, m.state) for m in instances] == [("", InstanceState.STARTING)] * 2
        assert {(m.template_id, m.template_name) for m in instances} == {(template.id, "base")}
        assert [m.claim.timeout_secs for m in instances if m.claim] == [expected] * 2


async def test_template_claim_respects_limits_of_its_pools(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    full = await make_pool(store, 1, template_ref="base", max_containers=1)
    small = await make_pool(store, template_ref="base", max_containers=1)
    await make_pool(store, template_ref="base", paused=True)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, template_ref="base"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_LIMIT_REACHED", f"pool:{full.id}")
    assert "2 of the 3" in caught.value.message
    assert await counts(store, full.id) == PoolCounts(warm=1)
    instances = (await store.claim(b.claim_request(2, template_ref="base"))).instances
    assert [(m.pool_id, m.state) for m in instances] == [
        (full.id, InstanceState.ACTIVE),
        (small.id, InstanceState.STARTING),
    ]


async def test_rejects_template_claim_when_all_pools_are_paused(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    paused = await make_pool(store, template_ref="base", paused=True)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(template_ref="base"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_PAUSED", paused.id)


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_batch_claim_is_all_or_nothing(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, name="web", max_containers=4)
    notified.clear()
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(5, pool_ref="web"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_LIMIT_REACHED", f"pool:{pool.id}")
    assert caught.value.retry_after > 0
    assert "4 of the 5" in caught.value.message
    assert notified == []
    view = await store.get_pool(NS, pool.id)
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=2), 0, 0)
    assert len((await store.claim(b.claim_request(4, pool_ref="web"))).instances) == 4


async def test_every_instance_with_container_counts_towards_maximum(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=3, max_containers=4)
    await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    claimed = (await store.claim(b.claim_request(3, pool_ref=pool.id))).instances
    await store.delete_sandbox(NS, claimed[0].id, b.T0, None)
    # The pool has one instance in each of these states: creating, removing, active, starting.
    with pytest.raises(Exhausted):
        await store.claim(b.claim_request(pool_ref=pool.id))
    await store.instance_removed(claimed[0].id, b.T0)
    assert (await claim_one(store, pool_ref=pool.id)).state is InstanceState.STARTING


async def test_warm_claim_succeeds_at_maximum(store: SqlStore) -> None:
    pool = await make_pool(store, 2, max_containers=2)
    assert (await claim_one(store, pool_ref=pool.id)).state is InstanceState.ACTIVE


async def test_rejects_claim_from_paused_pool(store: SqlStore) -> None:
    pool = await make_pool(store, 1, name="web")
    await store.update_pool(NS, "web", None, lambda p: replace(p, paused=True), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(pool_ref="web"))
    assert caught.value.reason == "POOL_PAUSED"
    assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("warm", [0, 1], ids=["cold", "warm"])
async def test_name_is_unique_among_sandboxes_in_use(store: SqlStore, warm: int) -> None:
    pool = await make_pool(store, 2 * warm, max_containers=3)
    first = await claim_one(store, pool_ref=pool.id, name="mine")
    before = await counts(store, pool.id)
    with pytest.raises(AlreadyExists) as caught:
        await claim_one(store, pool_ref=pool.id, name="mine")
    assert (caught.value.resource_type, caught.value.resource_name) == ("sandbox", "mine")
    assert await counts(store, pool.id) == before
    await store.delete_sandbox(NS, first.id, b.T0, None)
    assert (await claim_one(store, pool_ref=pool.id, name="mine")).id != first.id


@pytest.mark.parametrize("paused", [False, True])
async def test_rejects_claim_from_drained_pool(store: SqlStore, paused: bool) -> None:
    pool = await make_pool(store, 1, name="web")
    await store.update_pool(NS, "web", None, lambda p: replace(p, drained=True, paused=paused), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(pool_ref="web"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_DRAINED", pool.id)
    assert "drained" in caught.value.message
    assert await counts(store, pool.id) == PoolCounts(warm=1)


async def test_template_claim_skips_drained_pools(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    drained = await make_pool(store, template_ref="base", drained=True)
    available = await make_pool(store, template_ref="base")
    assert (await claim_one(store, template_ref="base")).pool_id == available.id
    await store.update_pool(NS, available.id, None, lambda p: replace(p, paused=True), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(template_ref="base"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_DRAINED", drained.id)


# --- only warm, only cold ---------------------------------------------------------------------------------------------


async def test_rejects_claim_from_empty_pool_without_cold_starts(
    store: SqlStore, notified: list[frozenset[str]]
) -> None:
    pool = await make_pool(store, 2, name="web", max_containers=9)
    notified.clear()
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, pool_ref="web", cold=False, request_id="r"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_EMPTY", f"pool:{pool.id}")
    assert 0.5 <= caught.value.retry_after <= 2
    assert "2 of the 3" in caught.value.message
    assert "WHEN_EMPTY_WAIT" in caught.value.message
    assert "WHEN_EMPTY_START_COLD" in caught.value.message
    assert notified == []
    view = await store.get_pool(NS, "web")
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=2), 0, 0)
    result = await store.claim(b.claim_request(2, pool_ref="web", cold=False, request_id="r"))
    assert not result.replayed
    assert [instance.state for instance in result.instances] == [InstanceState.ACTIVE] * 2


async def test_reason_at_maximum_depends_on_cold_starts(store: SqlStore) -> None:
    pool = await make_pool(store, 1, max_containers=1)
    await claim_one(store, pool_ref=pool.id)
    for cold, reason in ((False, "POOL_EMPTY"), (True, "POOL_LIMIT_REACHED")):
        with pytest.raises(Exhausted) as caught:
            await store.claim(b.claim_request(pool_ref=pool.id, cold=cold))
        assert caught.value.reason == reason


async def test_cold_start_leaves_room_for_waiters(store: SqlStore) -> None:
    pool = await make_pool(store, 0, max_containers=3)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(2, pool_ref=pool.id, reserved=2))
    assert caught.value.reason == "POOL_LIMIT_REACHED"
    assert (await claim_one(store, pool_ref=pool.id, reserved=2)).state is InstanceState.STARTING
    assert await counts(store, pool.id) == PoolCounts(starting=1)
    unlimited = await make_pool(store, 0)
    assert (await claim_one(store, pool_ref=unlimited.id, reserved=9)).state is InstanceState.STARTING


@pytest.mark.parametrize("pools", [0, 2])
async def test_rejects_template_claim_when_pools_are_empty_without_cold_starts(store: SqlStore, pools: int) -> None:
    template = await store.create_template(b.template("base"), None)
    created = [await make_pool(store, 1, template_ref="base") for _ in range(pools)]
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, template_ref="base", cold=False))
    assert (caught.value.reason, caught.value.subject) == ("POOL_EMPTY", f"template:{template.id}")
    assert f"{pools} of the 3" in caught.value.message
    for pool in created:
        assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("source", ["pool_ref", "template_ref"])
async def test_claim_can_leave_warm_instances_to_waiters(store: SqlStore, source: str) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 1, name="web", template_ref="base", max_containers=2)
    ref = {source: "web" if source == "pool_ref" else "base"}
    with pytest.raises(Exhausted, match="wait queue") as caught:
        await store.claim(b.claim_request(**ref, warm=False, cold=False))
    assert caught.value.reason == "POOL_EMPTY"
    instance = await claim_one(store, **ref, warm=False)
    assert (instance.state, instance.pool_id) == (InstanceState.STARTING, pool.id)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(**ref, warm=False))
    assert caught.value.reason == "POOL_LIMIT_REACHED"
    assert await counts(store, pool.id) == PoolCounts(warm=1, starting=1)


async def test_claim_with_specification_requires_cold_start(store: SqlStore) -> None:
    with pytest.raises(ValueError, match="cold"):
        await store.claim(b.claim_request(cold=False))


async def test_concurrent_warm_claims_never_share_instances(store: SqlStore) -> None:
    pool = await make_pool(store, 5)
    results = await asyncio.gather(
        *(store.claim(b.claim_request(pool_ref=pool.id, cold=False)) for _ in range(12)), return_exceptions=True
    )
    ids = {result.instances[0].id for result in results if isinstance(result, ClaimResult)}
    assert len(ids) == 5
    assert sum(isinstance(result, Exhausted) for result in results) == 7


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
async def test_retry_returns_same_sandboxes_in_their_current_state(store: SqlStore, number: int) -> None:
    pool = await make_pool(store, 2)

    async def call() -> ClaimResult:
        return await store.claim(b.claim_request(number, pool_ref=pool.id, request_id="r", fingerprint="f"))

    first = await call()
    keys = [instance.claim.request_id for instance in first.instances if instance.claim]
    assert keys == [claim_request_id("r", index, number) for index in range(number)]
    last = first.instances[-1]
    await store.delete_sandbox(NS, last.id, b.T0, None)
    again = await call()
    assert again.replayed
    assert [instance.id for instance in again.instances] == [instance.id for instance in first.instances]
    assert again.instances[-1].state is InstanceState.REMOVING
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (min(number, 2), max(0, number - 2))


async def test_retry_of_batch_keeps_order(store: SqlStore) -> None:
    pool = await make_pool(store)
    request = b.claim_request(12, pool_ref=pool.id, request_id="r")
    first = await store.claim(replace(request, ids=tuple(reversed(request.ids))))
    again = await store.claim(b.claim_request(12, pool_ref=pool.id, request_id="r"))
    assert [instance.id for instance in again.instances] == [instance.id for instance in first.instances]


@pytest.mark.parametrize("number", [1, 2], ids=["same count", "other count"])
async def test_rejects_request_id_of_another_request(store: SqlStore, number: int) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    with pytest.raises(InvalidArgument) as caught:
        await store.claim(b.claim_request(number, request_id="r", fingerprint="two"))
    assert [violation.field for violation in caught.value.violations] == ["request_id"]


@pytest.mark.parametrize("other", ["r-", "r1", "R", "q", "r\x7f", "r!", "r0"])
async def test_similar_request_ids_are_different(store: SqlStore, other: str) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    assert not (await store.claim(b.claim_request(request_id=other, fingerprint="two"))).replayed
    assert (await store.claim(b.claim_request(request_id="r", fingerprint="one"))).replayed


async def test_request_ids_are_separate_for_each_namespace(store: SqlStore) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    assert not (await store.claim(b.claim_request(namespace="o", request_id="r", fingerprint="two"))).replayed


async def test_retry_after_failed_claim_claims_again(store: SqlStore) -> None:
    pool = await make_pool(store)
    first = await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))
    failed = b.end(TerminationReason.FAILED)
    await store.launch_failed(first.instances[0].id, failed, None)
    assert (await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))).replayed
    await store.end_instances([first.instances[1].id], IN_USE, failed)
    await store.instance_removed(first.instances[1].id, b.T0)
    again = await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))
    assert not again.replayed
    assert not {instance.id for instance in again.instances} & {instance.id for instance in first.instances}
    assert (await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))).replayed
    assert (await store.get_sandbox(NS, first.instances[0].id)).end == failed


async def test_rejected_claim_can_be_repeated_with_its_request_id(store: SqlStore) -> None:
    pool = await make_pool(store, max_containers=1)
    blocker = await claim_one(store, pool_ref=pool.id)
    with pytest.raises(Exhausted):
        await claim_one(store, pool_ref=pool.id, request_id="r")
    await store.delete_sandbox(NS, blocker.id, b.T0, None)
    await store.instance_removed(blocker.id, b.T0)
    assert not (await store.claim(b.claim_request(pool_ref=pool.id, request_id="r"))).replayed


# --- concurrent claims ------------------------------------------------------------------------------------------------


async def test_concurrent_claims_never_share_and_never_exceed_maximum(store: SqlStore) -> None:
    pool = await make_pool(store, 20, max_containers=30)
    tasks = [store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(64)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    instances = [result.instances[0] for result in results if isinstance(result, ClaimResult)]
    assert Counter(instance.state for instance in instances) == {InstanceState.ACTIVE: 20, InstanceState.STARTING: 10}
    assert len({instance.id for instance in instances}) == 30
    assert sum(isinstance(result, Exhausted) for result in results) == 34
    view = await store.get_pool(NS, pool.id)
    assert view.counts == PoolCounts(active=20, starting=10)
    assert (view.pool.hits, view.pool.misses) == (20, 10)


async def test_concurrent_retries_return_one_sandbox(store: SqlStore) -> None:
    pool = await make_pool(store, 5)
    results = await asyncio.gather(*(store.claim(b.claim_request(pool_ref=pool.id, request_id="r")) for _ in range(16)))
    assert len({result.instances[0].id for result in results}) == 1
    assert sum(not result.replayed for result in results) == 1
    assert await counts(store, pool.id) == PoolCounts(warm=4, active=1)


async def test_callers_of_two_servers_on_one_database_never_share(
    store: SqlStore, url: str, clock: b.ManualClock
) -> None:
    other = SqlStore(url, lambda _: None, clock)
    await other.open()
    try:
        pool = await make_pool(store, 20, max_containers=30)
        results = await asyncio.gather(
            *(one.claim(b.claim_request(pool_ref=pool.id)) for one in (store, other) * 20), return_exceptions=True
        )
    finally:
        await other.close()
    ids = [result.instances[0].id for result in results if isinstance(result, ClaimResult)]
    assert len(ids) == len(set(ids)) == 30
