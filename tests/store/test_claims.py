"""The store's contract on claims."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import AlreadyExists, Exhausted, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.domain.model import EndReason, PoolCounts, StartKind
from sandpool_server.ports import ClaimResult, claim_request_id
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b

# --- where a sandbox comes from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "id"])
async def test_a_ready_member_is_taken(
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

    [member] = result.members
    assert not result.replayed
    assert member == b.member(
        MemberState.ACTIVE,
        id=oldest,
        pool_id=pool.id,
        address=ADDRESS,
        claim=b.claim(name="mine", metadata={"a": "ü"}, timeout_secs=60),
        start_secs=0.25,
    )
    assert await store.get_sandbox(NS, "mine") == member
    assert notified == [{pool.id, oldest}]
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses, view.pool.version) == (1, 0, 2)


async def test_a_cold_one_is_written_where_none_is_ready(store: SqlStore, notified: list[frozenset[str]]) -> None:
    template = await store.create_template(b.template("base", timeout_secs=60), None)
    pool = await make_pool(store, template_ref="base")
    notified.clear()
    request = b.claim_request(pool_ref=pool.id, timeout_secs=5, now=b.T0 + timedelta(1), fingerprint="f")
    [member] = (await store.claim(request)).members
    assert member == b.member(
        MemberState.STARTING,
        id=request.ids[0],
        pool_id=pool.id,
        template_id=template.id,
        template_name="base",
        create_time=request.now,
        claim=b.claim(start=StartKind.COLD, claim_time=request.now, timeout_secs=5),
        request_fingerprint="f",
    )
    assert await store.get_sandbox(NS, member.id) == member
    assert notified == [{pool.id, member.id}]
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (0, 1)


async def test_several_are_warm_first_and_then_cold(store: SqlStore) -> None:
    pool = await make_pool(store, 2)
    members = (await store.claim(b.claim_request(5, pool_ref=pool.id))).members
    assert [member.state for member in members] == [MemberState.ACTIVE] * 2 + [MemberState.STARTING] * 3
    assert len({member.id for member in members}) == 5
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (2, 3)


async def test_a_specification_alone_starts_cold_without_a_pool(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    member = await claim_one(store, spec=pool.spec, timeout_secs=9)
    assert (member.pool_id, member.state, member.spec) == ("", MemberState.STARTING, pool.spec)
    assert member.claim is not None
    assert member.claim.timeout_secs == 9
    assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("source", ["pool_ref", "template_ref"])
async def test_what_is_not_there_is_not_found(store: SqlStore, source: str) -> None:
    with pytest.raises(NotFound, match="'none'"):
        await store.claim(b.claim_request(**{source: "none"}))


async def test_members_of_an_earlier_spec_are_never_taken(store: SqlStore) -> None:
    pool = await make_pool(store, 1, warm_containers=9)
    [late] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    await store.member_ready(late.id, ADDRESS, b.T0, 0.1)
    member = await claim_one(store, pool_ref=pool.id)
    assert (member.state, member.spec.image) == (MemberState.STARTING, "new")
    # And taken again once the specification is the old one again.
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=pool.spec), None)
    assert (await claim_one(store, pool_ref=pool.id)).state is MemberState.ACTIVE


async def test_members_of_a_templates_earlier_spec_are_never_taken(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 2, template_ref="base")
    await store.update_template(NS, "base", None, lambda t: replace(t, spec=b.spec("new")), None)
    for source in ({"pool_ref": pool.id}, {"template_ref": "base"}):
        member = await claim_one(store, **source)
        assert (member.state, member.spec.image) == (MemberState.STARTING, "new")


async def test_an_update_that_answered_wins_over_claims_under_way(store: SqlStore) -> None:
    pool = await make_pool(store, 20)
    early = [asyncio.ensure_future(store.claim(b.claim_request(pool_ref=pool.id))) for _ in range(5)]
    update = asyncio.ensure_future(store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None))
    await update
    late = [await claim_one(store, pool_ref=pool.id) for _ in range(5)]
    assert all(member.spec.image == "new" and member.state is MemberState.STARTING for member in late)
    assert {result.members[0].spec.image for result in await asyncio.gather(*early)} == {pool.spec.image}


# --- from a template --------------------------------------------------------------------------------------------------


async def test_a_template_draws_from_its_pools_oldest_first(store: SqlStore) -> None:
    await store.create_template(b.template("base", timeout_secs=60), None)
    first = await make_pool(store, 1, template_ref="base")
    paused = await make_pool(store, 1, template_ref="base")
    await store.update_pool(NS, paused.id, None, lambda p: replace(p, paused=True), None)
    second = await make_pool(store, 1, template_ref="base", timeout_secs=5)
    members = (await store.claim(b.claim_request(3, template_ref="base"))).members
    assert [(m.pool_id, m.state) for m in members] == [
        (first.id, MemberState.ACTIVE),
        (second.id, MemberState.ACTIVE),
        (first.id, MemberState.STARTING),
    ]
    assert [m.claim.timeout_secs for m in members if m.claim] == [60, 5, 60]
    views = [(await store.get_pool(NS, pool.id)).pool for pool in (first, paused, second)]
    assert [(view.hits, view.misses) for view in views] == [(1, 1), (0, 0), (1, 0)]


async def test_what_is_missing_goes_to_the_first_pool_with_room_for_all_of_it(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    small = await make_pool(store, 1, template_ref="base", max_containers=2)
    large = await make_pool(store, template_ref="base")
    members = (await store.claim(b.claim_request(3, template_ref="base"))).members
    assert [m.pool_id for m in members] == [small.id, large.id, large.id]


async def test_a_template_without_pools_starts_in_none(store: SqlStore) -> None:
    template = await store.create_template(b.template("base", timeout_secs=60), None)
    deleted = await make_pool(store, 1, template_ref="base")
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    for timeout_secs, in_force in ((None, 60), (5, 5)):
        members = (await store.claim(b.claim_request(2, template_ref="base", timeout_secs=timeout_secs))).members
        assert [(m.pool_id, m.state) for m in members] == [("", MemberState.STARTING)] * 2
        assert {(m.template_id, m.template_name) for m in members} == {(template.id, "base")}
        assert [m.claim.timeout_secs for m in members if m.claim] == [in_force] * 2


async def test_the_limits_of_a_templates_pools_hold(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    full = await make_pool(store, 1, template_ref="base", max_containers=1)
    small = await make_pool(store, template_ref="base", max_containers=1)
    await make_pool(store, template_ref="base", paused=True)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, template_ref="base"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_AT_MAX", f"pool:{full.id}")
    assert "2 of the 3" in caught.value.message
    assert await counts(store, full.id) == PoolCounts(warm=1)
    members = (await store.claim(b.claim_request(2, template_ref="base"))).members
    assert [(m.pool_id, m.state) for m in members] == [(full.id, MemberState.ACTIVE), (small.id, MemberState.STARTING)]


async def test_a_template_whose_pools_are_all_paused_gives_nothing(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    paused = await make_pool(store, template_ref="base", paused=True)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(template_ref="base"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_PAUSED", paused.id)


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_claim_is_all_or_none(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, name="web", max_containers=4)
    notified.clear()
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(5, pool_ref="web"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_AT_MAX", f"pool:{pool.id}")
    assert caught.value.retry_after > 0
    assert "4 of the 5" in caught.value.message
    assert notified == []
    view = await store.get_pool(NS, pool.id)
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=2), 0, 0)
    assert len((await store.claim(b.claim_request(4, pool_ref="web"))).members) == 4


async def test_every_member_with_a_container_counts(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=3, max_containers=4)
    await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    taken = (await store.claim(b.claim_request(3, pool_ref=pool.id))).members
    await store.delete_sandbox(NS, taken[0].id, b.T0, None)
    # One being created, one being removed, one active, one starting.
    with pytest.raises(Exhausted):
        await store.claim(b.claim_request(pool_ref=pool.id))
    await store.member_removed(taken[0].id, b.T0)
    assert (await claim_one(store, pool_ref=pool.id)).state is MemberState.STARTING


async def test_a_warm_claim_needs_no_room(store: SqlStore) -> None:
    pool = await make_pool(store, 2, max_containers=2)
    assert (await claim_one(store, pool_ref=pool.id)).state is MemberState.ACTIVE


async def test_a_paused_pool_gives_nothing(store: SqlStore) -> None:
    pool = await make_pool(store, 1, name="web")
    await store.update_pool(NS, "web", None, lambda p: replace(p, paused=True), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(pool_ref="web"))
    assert caught.value.reason == "POOL_PAUSED"
    assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("warm", [0, 1], ids=["cold", "warm"])
async def test_a_name_belongs_to_one_sandbox_in_use(store: SqlStore, warm: int) -> None:
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
async def test_a_drained_pool_gives_nothing(store: SqlStore, paused: bool) -> None:
    pool = await make_pool(store, 1, name="web")
    await store.update_pool(NS, "web", None, lambda p: replace(p, drain=True, paused=paused), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(pool_ref="web"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_DRAINED", pool.id)
    assert "drain" in caught.value.message
    assert await counts(store, pool.id) == PoolCounts(warm=1)


async def test_a_template_draws_past_drained_pools(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    drained = await make_pool(store, template_ref="base", drain=True)
    open_one = await make_pool(store, template_ref="base")
    assert (await claim_one(store, template_ref="base")).pool_id == open_one.id
    await store.update_pool(NS, open_one.id, None, lambda p: replace(p, paused=True), None)
    with pytest.raises(FailedPrecondition) as caught:
        await store.claim(b.claim_request(template_ref="base"))
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_DRAINED", drained.id)


# --- only warm, only cold ---------------------------------------------------------------------------------------------


async def test_without_cold_starts_an_empty_pool_says_so(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, name="web", max_containers=9)
    notified.clear()
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, pool_ref="web", cold=False, request_id="r"))
    assert (caught.value.reason, caught.value.subject) == ("POOL_EMPTY", f"pool:{pool.id}")
    assert 0.5 <= caught.value.retry_after <= 2
    assert "2 of the 3" in caught.value.message
    assert "WHEN_EMPTY_WAIT" in caught.value.message
    assert "start cold" in caught.value.message
    assert notified == []
    view = await store.get_pool(NS, "web")
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=2), 0, 0)
    result = await store.claim(b.claim_request(2, pool_ref="web", cold=False, request_id="r"))
    assert not result.replayed
    assert [member.state for member in result.members] == [MemberState.ACTIVE] * 2


async def test_at_max_is_empty_too_without_cold_starts(store: SqlStore) -> None:
    pool = await make_pool(store, 1, max_containers=1)
    await claim_one(store, pool_ref=pool.id)
    for cold, reason in ((False, "POOL_EMPTY"), (True, "POOL_AT_MAX")):
        with pytest.raises(Exhausted) as caught:
            await store.claim(b.claim_request(pool_ref=pool.id, cold=cold))
        assert caught.value.reason == reason


async def test_a_start_leaves_room_for_those_in_line(store: SqlStore) -> None:
    pool = await make_pool(store, 0, max_containers=3)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(2, pool_ref=pool.id, reserved=2))
    assert caught.value.reason == "POOL_AT_MAX"
    assert (await claim_one(store, pool_ref=pool.id, reserved=2)).state is MemberState.STARTING
    assert await counts(store, pool.id) == PoolCounts(starting=1)
    unlimited = await make_pool(store, 0)
    assert (await claim_one(store, pool_ref=unlimited.id, reserved=9)).state is MemberState.STARTING


@pytest.mark.parametrize("pools", [0, 2])
async def test_a_templates_pools_can_be_empty(store: SqlStore, pools: int) -> None:
    template = await store.create_template(b.template("base"), None)
    made = [await make_pool(store, 1, template_ref="base") for _ in range(pools)]
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(3, template_ref="base", cold=False))
    assert (caught.value.reason, caught.value.subject) == ("POOL_EMPTY", f"template:{template.id}")
    assert f"{pools} of the 3" in caught.value.message
    for pool in made:
        assert await counts(store, pool.id) == PoolCounts(warm=1)


@pytest.mark.parametrize("source", ["pool_ref", "template_ref"])
async def test_ready_members_can_be_left_to_those_who_wait(store: SqlStore, source: str) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 1, name="web", template_ref="base", max_containers=2)
    ref = {source: "web" if source == "pool_ref" else "base"}
    with pytest.raises(Exhausted, match="wait in line") as caught:
        await store.claim(b.claim_request(**ref, warm=False, cold=False))
    assert caught.value.reason == "POOL_EMPTY"
    member = await claim_one(store, **ref, warm=False)
    assert (member.state, member.pool_id) == (MemberState.STARTING, pool.id)
    with pytest.raises(Exhausted) as caught:
        await store.claim(b.claim_request(**ref, warm=False))
    assert caught.value.reason == "POOL_AT_MAX"
    assert await counts(store, pool.id) == PoolCounts(warm=1, starting=1)


async def test_a_specification_alone_that_may_not_start_is_a_bug(store: SqlStore) -> None:
    with pytest.raises(ValueError, match="cold"):
        await store.claim(b.claim_request(cold=False))


async def test_who_may_only_have_warm_ones_shares_them_exactly(store: SqlStore) -> None:
    pool = await make_pool(store, 5)
    results = await asyncio.gather(
        *(store.claim(b.claim_request(pool_ref=pool.id, cold=False)) for _ in range(12)), return_exceptions=True
    )
    ids = {result.members[0].id for result in results if isinstance(result, ClaimResult)}
    assert len(ids) == 5
    assert sum(isinstance(result, Exhausted) for result in results) == 7


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
async def test_a_retry_gets_the_same_sandboxes_as_they_are_now(store: SqlStore, number: int) -> None:
    pool = await make_pool(store, 2)

    async def call() -> ClaimResult:
        return await store.claim(b.claim_request(number, pool_ref=pool.id, request_id="r", fingerprint="f"))

    first = await call()
    keys = [member.claim.request_id for member in first.members if member.claim]
    assert keys == [claim_request_id("r", place, number) for place in range(number)]
    last = first.members[-1]
    await store.delete_sandbox(NS, last.id, b.T0, None)
    again = await call()
    assert again.replayed
    assert [member.id for member in again.members] == [member.id for member in first.members]
    assert again.members[-1].state is MemberState.REMOVING
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (min(number, 2), max(0, number - 2))


async def test_a_large_claims_retry_keeps_its_order(store: SqlStore) -> None:
    pool = await make_pool(store)
    request = b.claim_request(12, pool_ref=pool.id, request_id="r")
    first = await store.claim(replace(request, ids=tuple(reversed(request.ids))))
    again = await store.claim(b.claim_request(12, pool_ref=pool.id, request_id="r"))
    assert [member.id for member in again.members] == [member.id for member in first.members]


@pytest.mark.parametrize("number", [1, 2], ids=["same count", "other count"])
async def test_a_request_id_names_one_request_alone(store: SqlStore, number: int) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    with pytest.raises(InvalidArgument) as caught:
        await store.claim(b.claim_request(number, request_id="r", fingerprint="two"))
    assert [violation.field for violation in caught.value.violations] == ["request_id"]


@pytest.mark.parametrize("other", ["r-", "r1", "R", "q", "r\x7f", "r!", "r0"])
async def test_request_ids_that_look_alike_are_different(store: SqlStore, other: str) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    assert not (await store.claim(b.claim_request(request_id=other, fingerprint="two"))).replayed
    assert (await store.claim(b.claim_request(request_id="r", fingerprint="one"))).replayed


async def test_request_ids_of_namespaces_are_apart(store: SqlStore) -> None:
    await claim_one(store, request_id="r", fingerprint="one")
    assert not (await store.claim(b.claim_request(namespace="o", request_id="r", fingerprint="two"))).replayed


async def test_a_claim_of_which_nothing_came_is_made_anew(store: SqlStore) -> None:
    pool = await make_pool(store)
    first = await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))
    failed = b.end(EndReason.FAILED)
    await store.launch_failed(first.members[0].id, failed, None)
    assert (await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))).replayed
    await store.end_members([first.members[1].id], IN_USE, failed)
    await store.member_removed(first.members[1].id, b.T0)
    again = await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))
    assert not again.replayed
    assert not {member.id for member in again.members} & {member.id for member in first.members}
    assert (await store.claim(b.claim_request(2, pool_ref=pool.id, request_id="r"))).replayed
    assert (await store.get_sandbox(NS, first.members[0].id)).end == failed


async def test_a_claim_that_was_refused_may_be_repeated_under_its_id(store: SqlStore) -> None:
    pool = await make_pool(store, max_containers=1)
    blocker = await claim_one(store, pool_ref=pool.id)
    with pytest.raises(Exhausted):
        await claim_one(store, pool_ref=pool.id, request_id="r")
    await store.delete_sandbox(NS, blocker.id, b.T0, None)
    await store.member_removed(blocker.id, b.T0)
    assert not (await store.claim(b.claim_request(pool_ref=pool.id, request_id="r"))).replayed


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_many_callers_never_share_and_never_pass_the_limit(store: SqlStore) -> None:
    pool = await make_pool(store, 20, max_containers=30)
    tasks = [store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(64)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    members = [result.members[0] for result in results if isinstance(result, ClaimResult)]
    assert Counter(member.state for member in members) == {MemberState.ACTIVE: 20, MemberState.STARTING: 10}
    assert len({member.id for member in members}) == 30
    assert sum(isinstance(result, Exhausted) for result in results) == 34
    view = await store.get_pool(NS, pool.id)
    assert view.counts == PoolCounts(active=20, starting=10)
    assert (view.pool.hits, view.pool.misses) == (20, 10)


async def test_concurrent_retries_of_one_request_get_one_sandbox(store: SqlStore) -> None:
    pool = await make_pool(store, 5)
    results = await asyncio.gather(*(store.claim(b.claim_request(pool_ref=pool.id, request_id="r")) for _ in range(16)))
    assert len({result.members[0].id for result in results}) == 1
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
    ids = [result.members[0].id for result in results if isinstance(result, ClaimResult)]
    assert len(ids) == len(set(ids)) == 30
