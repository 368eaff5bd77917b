"""The store's contract on what the control loop reads and writes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import FailureReason, NotFound
from sandpool_server.domain.lifecycle import IN_USE, IllegalTransition, MemberState
from sandpool_server.domain.model import EndReason, PoolCounts, PullPolicy, StartKind
from sandpool_server.domain.plan import MemberSnapshot, PoolSnapshot
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b

WARM = frozenset({MemberState.WARM})
TIMED_OUT = b.end(EndReason.TIMED_OUT)


# --- creating ---------------------------------------------------------------------------------------------------------


async def test_members_are_added_as_creating(store: SqlStore, notified: list[frozenset[str]]) -> None:
    template = await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base", warm_containers=2)
    notified.clear()
    ids = b.sandbox_ids(2)
    members = await store.add_members(pool.id, pool.spec.digest(), ids, b.T0)
    expected = [
        b.member(MemberState.CREATING, id=one, pool_id=pool.id, template_id=template.id, template_name="base")
        for one in ids
    ]
    assert members == expected
    assert await store.live_members() == expected
    assert notified == [{pool.id, *ids}]


@pytest.mark.parametrize(
    ("warm_containers", "max_containers", "added"),
    [(0, None, 0), (2, None, 0), (5, None, 3), (5, 4, 1), (5, 3, 0), (9, 5, 2)],
)
async def test_only_what_the_pool_wants_now_is_added(
    store: SqlStore, notified: list[frozenset[str]], warm_containers: int, max_containers: int | None, added: int
) -> None:
    pool = await make_pool(store, 2, warm_containers=3)
    await claim_one(store, pool_ref=pool.id)
    await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    # Now one is active, one warm, one being created.
    await store.update_pool(
        NS, pool.id, None, lambda p: replace(p, warm_containers=warm_containers, max_containers=max_containers), None
    )
    notified.clear()
    ids = b.sandbox_ids(9)
    members = await store.add_members(pool.id, pool.spec.digest(), ids, b.T0)
    assert [member.id for member in members] == ids[:added]
    assert len(notified) == (1 if added else 0)


@pytest.mark.parametrize(("max_containers", "added"), [(None, 3), (3, 2), (1, 0)])
async def test_those_in_line_are_wanted_for_on_top(store: SqlStore, max_containers: int | None, added: int) -> None:
    pool = await make_pool(store, 1, warm_containers=1, max_containers=max_containers)
    members = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(9), b.T0, waiting=3)
    assert len(members) == added


async def test_nothing_is_added_to_a_pool_that_changed_its_mind(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=5)
    digest = pool.spec.digest()

    async def added() -> int:
        return len(await store.add_members(pool.id, digest, b.sandbox_ids(1), b.T0))

    assert await added() == 1
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=True), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=False, drain=True), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, drain=False, spec=b.spec("new")), None)
    assert await added() == 0
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=pool.spec), None)
    assert await added() == 1
    await store.delete_pool(NS, pool.id, None, b.T0, None)
    assert await added() == 0
    assert await store.add_members(b.pool_id(), digest, b.sandbox_ids(1), b.T0) == []


async def test_concurrent_additions_and_claims_keep_the_limit(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=10, max_containers=10)
    await asyncio.gather(
        *(store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(3), b.T0) for _ in range(8)),
        *(store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(8)),
        return_exceptions=True,
    )
    assert (await store.get_pool(NS, pool.id)).counts.total == 10


async def test_a_ready_member_is_warm_or_active(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, warm_containers=1)
    [member] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    starting = await claim_one(store, pool_ref=pool.id, timeout_secs=5)
    alone = await claim_one(store)
    notified.clear()
    warm = await store.member_ready(member.id, ADDRESS, b.T0, 9.0)
    active = await store.member_ready(starting.id, ADDRESS, b.T0, 0.75)
    assert warm == replace(member, state=MemberState.WARM, address=ADDRESS)
    assert active == replace(starting, state=MemberState.ACTIVE, address=ADDRESS, start_secs=0.75)
    assert await store.member_ready(alone.id, ADDRESS, b.T0, 0.75) is not None
    assert notified == [{pool.id, member.id}, {pool.id, starting.id}, {alone.id}]
    with pytest.raises(IllegalTransition):
        await store.member_ready(member.id, ADDRESS, b.T0, 0.1)


async def test_one_that_is_to_be_removed_does_not_become_ready(store: SqlStore) -> None:
    starting = await claim_one(store)
    await store.delete_sandbox(NS, starting.id, b.T0, None)
    assert await store.member_ready(starting.id, ADDRESS, b.T0, 0.1) is None
    await store.member_removed(starting.id, b.T0)
    assert await store.member_ready(starting.id, ADDRESS, b.T0, 0.1) is None
    assert await store.member_ready(b.sandbox_id(), ADDRESS, b.T0, 0.1) is None


async def test_members_keep_the_pull_policy_of_their_pool(store: SqlStore) -> None:
    pool = await make_pool(store, 1, pull_policy=PullPolicy.NEVER, warm_containers=2)
    await store.add_members(pool.id, pool.member_digest(), b.sandbox_ids(1), b.T0)
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, pull_policy=PullPolicy.ALWAYS), None)
    claimed = (await store.claim(b.claim_request(2, pool_ref=pool.id))).members
    assert [member.pull_policy for member in claimed] == [PullPolicy.NEVER, PullPolicy.ALWAYS]
    kept = {member.id: member.pull_policy for member in await store.live_members()}
    assert [kept[member.id] for member in claimed] == [PullPolicy.NEVER, PullPolicy.ALWAYS]
    assert sorted(kept.values()) == [PullPolicy.ALWAYS, PullPolicy.NEVER, PullPolicy.NEVER]


# --- failing ----------------------------------------------------------------------------------------------------------


async def test_a_failed_creation_is_the_pools_failure(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, warm_containers=1)
    [member] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    notified.clear()
    failure = b.failure(FailureReason.PULL_FAILED, consecutive=3)
    failed = await store.launch_failed(member.id, b.end(EndReason.FAILED), failure)
    assert failed == replace(member, state=MemberState.REMOVING)
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.failure, view.pool.version) == (failure, 1)
    assert notified == [{pool.id, member.id}]
    assert await store.launch_failed(member.id, b.end(EndReason.FAILED), None) is None
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.failure == failure


async def test_a_success_forgets_the_failure(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=2)
    failing, good = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    await store.launch_failed(failing.id, b.end(EndReason.FAILED), b.failure())
    await store.member_ready(good.id, ADDRESS, b.T0, 0.1)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


async def test_only_the_present_spec_has_failures_and_successes(store: SqlStore) -> None:
    pool = await make_pool(store, warm_containers=2)
    old_bad, old_good = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    assert await store.launch_failed(old_bad.id, b.end(EndReason.FAILED), b.failure()) is not None
    assert (await store.get_pool(NS, pool.id)).pool.failure is None
    [new] = await store.add_members(pool.id, view.pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(new.id, b.end(EndReason.FAILED), b.failure())
    await store.member_ready(old_good.id, ADDRESS, b.T0, 0.1)
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure()


async def test_a_failed_start_is_the_sandboxs_end(store: SqlStore) -> None:
    member = await claim_one(store)
    end = b.end(EndReason.FAILED, message="no such image", exit_code=3)
    failed = await store.launch_failed(member.id, end, b.failure())
    assert failed == replace(member, state=MemberState.REMOVING, end=end)
    assert await store.get_sandbox(NS, member.id) == failed


async def test_a_failure_without_a_member_is_the_pools_failure(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool, deleted = await make_pool(store), await make_pool(store)
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    notified.clear()
    await store.pool_failed(pool.id, "another", b.failure())
    await store.pool_failed(deleted.id, pool.member_digest(), b.failure())
    await store.pool_failed(b.pool_id(), pool.member_digest(), b.failure())
    assert (await store.get_pool(NS, pool.id)).pool.failure is None
    assert notified == []
    await store.pool_failed(pool.id, pool.member_digest(), b.failure(FailureReason.PULL_FAILED))
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure(FailureReason.PULL_FAILED)
    assert notified == [{pool.id}]


# --- ending -----------------------------------------------------------------------------------------------------------


async def test_members_in_the_states_named_are_ended(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 3)
    active = await claim_one(store, pool_ref=pool.id)
    warm = [member.id for member in await store.live_members() if member.state is MemberState.WARM]
    starting = await claim_one(store)
    notified.clear()
    ended = await store.end_members([active.id, warm[0], starting.id], WARM | {MemberState.ACTIVE}, TIMED_OUT)
    assert [(m.id, m.state, m.end) for m in ended] == sorted(
        [(active.id, MemberState.REMOVING, TIMED_OUT), (warm[0], MemberState.REMOVING, None)]
    )
    assert notified == [{pool.id, active.id, warm[0]}]
    states = {member.id: member.state for member in await store.live_members()}
    assert states[warm[1]] is MemberState.WARM
    assert states[starting.id] is MemberState.STARTING
    assert await store.end_members([active.id, warm[0]], WARM | {MemberState.ACTIVE}, TIMED_OUT) == []
    assert await store.end_members([], WARM, TIMED_OUT) == []
    assert len(notified) == 1


async def test_an_impossible_end_is_a_bug(store: SqlStore) -> None:
    with pytest.raises(IllegalTransition):
        await store.end_members(["x"], frozenset({MemberState.GONE}), TIMED_OUT)


async def test_an_extension_that_was_committed_wins_over_expiry(store: SqlStore) -> None:
    now = b.T0 + timedelta(seconds=10)
    extended, due, never = [await claim_one(store, timeout_secs=secs) for secs in (10, 10, 0)]
    ids = [extended.id, due.id, never.id]
    early = now - timedelta(microseconds=1)
    assert await store.end_members(ids, IN_USE, TIMED_OUT, expired_at=early) == []

    def extend(member):
        return replace(member, claim=replace(member.claim, timeout_secs=11))

    await store.update_sandbox(NS, extended.id, None, extend, None)
    ended = await store.end_members(ids, IN_USE, TIMED_OUT, expired_at=now)
    assert [member.id for member in ended] == [due.id]


async def test_extensions_and_expiry_at_once_never_end_an_extended_one(store: SqlStore) -> None:
    now = b.T0 + timedelta(seconds=10)
    members = [await claim_one(store, timeout_secs=10) for _ in range(20)]

    def extend(member):
        return replace(member, claim=replace(member.claim, timeout_secs=100))

    work = []
    for member in members:
        work.append(store.update_sandbox(NS, member.id, None, extend, None))
        work.append(store.end_members([member.id], IN_USE, TIMED_OUT, expired_at=now))
    results = await asyncio.gather(*work, return_exceptions=True)
    for place, member in enumerate(members):
        extension, ended = results[2 * place : 2 * place + 2]
        assert isinstance(extension, Exception) == bool(ended), member.id


async def test_a_removed_sandbox_is_gone_and_a_removed_member_forgotten(
    store: SqlStore, notified: list[frozenset[str]]
) -> None:
    pool = await make_pool(store, 2)
    active = await claim_one(store, pool_ref=pool.id)
    [warm] = [member.id for member in await store.live_members() if member.state is MemberState.WARM]
    for member_id in (active.id, warm):
        with pytest.raises(IllegalTransition):
            await store.member_removed(member_id, b.T0)
    await store.end_members([active.id, warm], WARM | IN_USE, TIMED_OUT)
    notified.clear()
    for _ in range(2):
        await store.member_removed(active.id, b.T0)
        await store.member_removed(warm, b.T0)
    assert notified == [{pool.id, active.id}, {pool.id, warm}]
    assert await store.live_members() == []
    gone = await store.get_sandbox(NS, active.id)
    assert (gone.state, gone.end) == (MemberState.GONE, TIMED_OUT)


# --- disowning --------------------------------------------------------------------------------------------------------


async def test_a_disowned_member_is_no_sandbox(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, max_containers=2)
    dead = await claim_one(store, pool_ref=pool.id, name="mine", request_id="r", fingerprint="f", metadata={"a": "b"})
    notified.clear()

    [disowned] = await store.disown([dead.id])

    assert disowned == replace(dead, state=MemberState.REMOVING, claim=None, start_secs=None, request_fingerprint="")
    assert notified == [{pool.id, dead.id}]
    view = await store.get_pool(NS, pool.id)
    assert (view.counts, view.pool.hits, view.pool.misses) == (PoolCounts(warm=1, removing=1), 0, 0)
    for ref in (dead.id, "mine"):
        with pytest.raises(NotFound):
            await store.get_sandbox(NS, ref)
    # Its name and its request id are free.
    again = await store.claim(b.claim_request(pool_ref=pool.id, name="mine", request_id="r", fingerprint="f"))
    assert not again.replayed
    assert again.members[0].id != dead.id
    assert (await store.get_pool(NS, pool.id)).pool.hits == 1
    await store.member_removed(dead.id, b.T0)
    assert dead.id not in {member.id for member in await store.live_members()}
    assert await store.purge(b.T0 + timedelta(1), b.T0 + timedelta(1)) == 0


async def test_what_started_cold_takes_its_miss_back(store: SqlStore) -> None:
    pool = await make_pool(store)
    dead = await claim_one(store, pool_ref=pool.id)
    assert dead.claim is not None
    assert dead.claim.start is StartKind.COLD
    await store.member_ready(dead.id, ADDRESS, b.T0, 1.0)
    await store.disown([dead.id])
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.pool.misses) == (0, 0)


async def test_only_active_ones_are_disowned(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 3)
    ended, active = [await claim_one(store, pool_ref=pool.id) for _ in range(2)]
    await store.delete_sandbox(NS, ended.id, b.T0, None)
    [warm] = [member.id for member in await store.live_members() if member.state is MemberState.WARM]
    starting = await claim_one(store)
    notified.clear()
    ids = [ended.id, warm, starting.id, b.sandbox_id()]
    assert await store.disown(ids) == []
    assert await store.disown([]) == []
    assert notified == []
    assert [member.id for member in await store.disown([*ids, active.id])] == [active.id]
    assert await store.disown([active.id]) == []
    assert (await store.get_sandbox(NS, ended.id)).end == b.end()
    view = await store.get_pool(NS, pool.id)
    assert (view.pool.hits, view.counts) == (1, PoolCounts(warm=1, removing=2))


async def test_disowning_and_claiming_at_once_counts_right(store: SqlStore) -> None:
    pool = await make_pool(store, 10, max_containers=10)
    dead = (await store.claim(b.claim_request(5, pool_ref=pool.id))).members
    await asyncio.gather(
        *(store.disown([member.id]) for member in dead),
        *(store.claim(b.claim_request(pool_ref=pool.id)) for _ in range(3)),
    )
    assert (await store.get_pool(NS, pool.id)).pool.hits == 3
    assert await counts(store, pool.id) == PoolCounts(warm=2, active=3, removing=5)


# --- the snapshot -----------------------------------------------------------------------------------------------------


async def test_a_snapshot_shows_what_the_planner_needs(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=2, max_containers=7, namespace="one")
    active = await claim_one(store, pool_ref=pool.id, timeout_secs=5, namespace="one")
    [warm] = [m.id for m in await store.live_members() if m.state is MemberState.WARM]
    gone = await claim_one(store, pool_ref=pool.id, namespace="one")
    await store.delete_sandbox("one", gone.id, b.T0, None)
    await store.member_removed(gone.id, b.T0)
    empty = await make_pool(store, paused=True, drain=True, max_age_secs=60, image_check_secs=30, warm_containers=1)
    deleted = await make_pool(store, 1)
    [removing] = await add_warm(store, await make_pool(store, warm_containers=1), 1)
    vanished = await make_pool(store)
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    await store.delete_pool(NS, vanished.id, None, b.T0, None)
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
        members=(
            MemberSnapshot(active.id, MemberState.ACTIVE, digest, expires, b.T0),
            # The second ready one went to the sandbox that is gone by now.
        ),
    )
    assert snapshots[pool.id] == expected
    assert gone.id == warm
    assert snapshots[empty.id] == PoolSnapshot(
        empty.id,
        digest,
        warm_containers=1,
        paused=True,
        drain=True,
        max_age_secs=60,
        image=empty.spec.image,
        image_check_secs=30,
    )
    assert snapshots[deleted.id].deleted
    assert [member.state for member in snapshots[deleted.id].members] == [MemberState.REMOVING]
    assert vanished.id not in snapshots
    assert removing in {member.id for one in snapshots.values() for member in one.members}
    outside = PoolSnapshot(
        "", members=(MemberSnapshot(alone.id, MemberState.STARTING, digest, b.T0 + timedelta(seconds=9), b.T0),)
    )
    assert snapshots[""] == outside

    assert await store.snapshot(frozenset({pool.id})) == [expected]
    assert await store.snapshot(frozenset({""})) == [outside]
    assert await store.snapshot(frozenset({pool.id, "", b.pool_id()})) == [expected, outside]
    assert await store.snapshot(frozenset()) == []


async def test_living_members_are_of_all_namespaces(store: SqlStore) -> None:
    one, two = await claim_one(store), await claim_one(store, namespace="other")
    assert await store.live_members() == [one, two]
