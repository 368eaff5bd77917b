"""The store's contract on pools."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import EndReason, Pool, PoolCondition, PoolCounts, PullPolicy
from sandpool_server.store import SqlStore
from tests.store.steps import NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b


async def test_what_is_written_is_read_by_id_and_by_name(store: SqlStore, notified: list[frozenset[str]]) -> None:
    draft = b.pool_draft(
        "web",
        timeout_secs=7,
        warm_containers=3,
        max_containers=5,
        paused=True,
        pull_policy=PullPolicy.ALWAYS,
        image_check_secs=30,
        max_age_secs=60,
        drain=True,
    )
    view = await store.create_pool(draft, None)
    assert view.pool == b.pool(
        "web",
        id=draft.id,
        timeout_secs=7,
        own_timeout_secs=7,
        warm_containers=3,
        max_containers=5,
        paused=True,
        pull_policy=PullPolicy.ALWAYS,
        image_check_secs=30,
        max_age_secs=60,
        drain=True,
    )
    assert view.counts == PoolCounts()
    assert view.condition is PoolCondition.DRAINED
    assert await store.get_pool(NS, draft.id) == view
    assert await store.get_pool(NS, "web") == view
    assert notified == [{draft.id}]


@pytest.mark.parametrize(("own", "in_force"), [(None, 60), (0, 0), (5, 5)])
async def test_a_pool_inherits_from_its_template(store: SqlStore, own: int | None, in_force: int) -> None:
    template = await store.create_template(b.template("base", spec=b.spec("x", cpus=3), timeout_secs=60), None)
    pool = (await store.create_pool(b.pool_draft(template_ref="base", timeout_secs=own), None)).pool
    assert (pool.template_id, pool.template_name, pool.spec) == (template.id, "base", template.spec)
    assert (pool.timeout_secs, pool.own_timeout_secs) == (in_force, own)


async def test_what_is_not_there_is_not_found(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="template 'none'"):
        await store.create_pool(b.pool_draft(template_ref="none"), None)
    for ref in ("none", b.pool_id()):
        with pytest.raises(NotFound, match=f"pool {ref!r}"):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.update_pool(NS, ref, None, lambda pool: pool, None)
        with pytest.raises(NotFound):
            await store.delete_pool(NS, ref, None, b.T0, None)


async def test_namespaces_do_not_see_each_other(store: SqlStore) -> None:
    pool = await make_pool(store, name="web", namespace="other")
    for ref in ("web", pool.id):
        with pytest.raises(NotFound):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.claim(b.claim_request(pool_ref=ref))
    assert await store.list_pools(NS, 10, "") == []
    assert (await make_pool(store, name="web")).name == "web"


async def test_a_living_name_is_unique_and_none_is_no_name(store: SqlStore) -> None:
    await make_pool(store, name="web")
    nameless = [await make_pool(store) for _ in range(2)]
    with pytest.raises(AlreadyExists) as caught:
        await make_pool(store, name="web")
    assert (caught.value.resource_type, caught.value.resource_name) == ("pool", "web")
    with pytest.raises(AlreadyExists):
        await store.update_pool(NS, nameless[0].id, None, lambda pool: replace(pool, name="web"), None)
    await store.delete_pool(NS, "web", None, b.T0, None)
    await make_pool(store, name="web")


async def test_pages_are_in_the_order_of_ids(store: SqlStore) -> None:
    made = [await make_pool(store, i) for i in range(4)]
    await store.delete_pool(NS, made[2].id, None, b.T0, None)
    pages = [await store.list_pools(NS, 2, ""), await store.list_pools(NS, 2, made[1].id)]
    assert [[view.pool.id for view in page] for page in pages] == [[made[0].id, made[1].id], [made[3].id]]
    assert [view.counts.warm for page in pages for view in page] == [0, 1, 3]


async def test_members_are_counted_by_what_they_do(store: SqlStore) -> None:
    pool = await make_pool(store, 3, warm_containers=9)
    await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    claimed = await store.claim(b.claim_request(4, pool_ref=pool.id))
    await store.delete_sandbox(NS, claimed.members[0].id, b.T0, None)
    expected = PoolCounts(warm=0, creating=2, starting=1, active=2, removing=1)
    assert await counts(store, pool.id) == expected
    await store.member_removed(claimed.members[0].id, b.T0)
    assert await counts(store, pool.id) == replace(expected, removing=0)


async def test_a_changed_spec_makes_unclaimed_members_stale(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=9)
    await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await claim_one(store, pool_ref=pool.id)
    view = await store.update_pool(NS, pool.id, 1, lambda p: replace(p, spec=b.spec("other")), None)
    assert view.counts == PoolCounts(stale=2, active=1)
    assert view == await store.get_pool(NS, pool.id)


async def test_an_update_counts_the_version_up(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store)
    notified.clear()

    def change(old: Pool) -> Pool:
        return replace(
            old,
            name="web",
            spec=b.spec("other"),
            own_timeout_secs=9,
            warm_containers=4,
            max_containers=8,
            paused=True,
            pull_policy=PullPolicy.NEVER,
            image_check_secs=5,
            max_age_secs=6,
            drain=True,
            update_time=b.T0 + timedelta(hours=1),
        )

    view = await store.update_pool(NS, pool.id, 1, change, None)
    assert view.pool == replace(change(pool), timeout_secs=9, version=2)
    assert await store.get_pool(NS, "web") == view
    assert notified == [{pool.id}]
    with pytest.raises(Aborted):
        await store.update_pool(NS, pool.id, 1, change, None)
    with pytest.raises(Aborted):
        await store.delete_pool(NS, pool.id, 1, b.T0, None)


async def test_a_pool_can_follow_its_templates_timeout_again(store: SqlStore) -> None:
    await store.create_template(b.template("base", timeout_secs=60), None)
    pool = await make_pool(store, template_ref="base", timeout_secs=5)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, own_timeout_secs=None), None)
    assert (view.pool.timeout_secs, view.pool.own_timeout_secs) == (60, None)


async def test_an_update_keeps_what_is_not_the_owners(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    await store.claim(b.claim_request(2, pool_ref=pool.id))
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, hits=99, misses=99), None)
    assert (view.pool.hits, view.pool.misses) == (1, 1)


@pytest.mark.parametrize(
    ("change", "forgotten"),
    [
        (lambda pool: replace(pool, spec=b.spec("other")), True),
        (lambda pool: replace(pool, paused=False), True),
        (lambda pool: replace(pool, pull_policy=PullPolicy.ALWAYS), True),
        (lambda pool: replace(pool, paused=False, drain=True), False),
        (lambda pool: replace(pool, warm_containers=7), False),
    ],
    ids=["spec", "unpaused", "pull policy", "drained instead", "size"],
)
async def test_which_changes_forget_the_failure(store: SqlStore, change: object, forgotten: bool) -> None:
    pool = await make_pool(store, warm_containers=1)
    [member] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(member.id, b.end(), b.failure())
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=True), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure()
    view = await store.update_pool(NS, pool.id, None, change, None)  # type: ignore[arg-type]
    assert view.pool.failure == (None if forgotten else b.failure())


async def test_a_templates_new_spec_forgets_its_pools_failure(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base", warm_containers=1)
    [member] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(member.id, b.end(), b.failure())
    await store.update_template(NS, "base", None, lambda t: replace(t, timeout_secs=3), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure is not None
    await store.update_template(NS, "base", None, lambda t: replace(t, spec=b.spec("other")), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


async def test_one_in_use_is_not_deleted(store: SqlStore) -> None:
    pool = await make_pool(store, 1, name="web")
    named = await claim_one(store, pool_ref="web", name="mine")
    others = (await store.claim(b.claim_request(11, pool_ref="web"))).members
    with pytest.raises(FailedPrecondition) as caught:
        await store.delete_pool(NS, "web", None, b.T0, None)
    assert caught.value.reason == "POOL_IN_USE"
    assert "12 sandboxes" in caught.value.message
    assert f"{named.id} (mine)" in caught.value.message
    assert sum(member.id in caught.value.message for member in (named, *others)) == 10
    assert (await store.get_pool(NS, "web")).pool.id == pool.id


async def test_force_ends_what_is_in_use(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, name="web", warm_containers=3)
    await store.add_members(pool.id, pool.member_digest(), b.sandbox_ids(1), b.T0)
    active = await claim_one(store, pool_ref="web", name="mine")
    lasting = await make_pool(store, 1)
    starting = (await store.claim(b.claim_request(2, pool_ref="web"))).members[1]
    failed = await claim_one(store, pool_ref="web")
    await store.launch_failed(failed.id, b.end(EndReason.FAILED), None)
    notified.clear()
    now = b.T0 + timedelta(hours=1)

    await store.delete_pool(NS, "web", None, now, None, force=True)

    members = {member.id: member for member in await store.live_members()}
    of_pool = {one: member for one, member in members.items() if member.pool_id == pool.id}
    assert len(of_pool) == 5
    assert {member.state for member in of_pool.values()} == {MemberState.REMOVING}
    assert notified == [{pool.id, *of_pool} - {failed.id}]
    for sandbox in (active, starting):
        assert of_pool[sandbox.id].end == b.end(EndReason.DELETED, time=now)
    assert of_pool[failed.id].end == b.end(EndReason.FAILED)
    assert sum(member.end is None for member in of_pool.values()) == 1
    assert await counts(store, lasting.id) == PoolCounts(warm=1)
    with pytest.raises(NotFound):
        await store.get_pool(NS, "web")


async def test_force_still_wants_the_present_version(store: SqlStore) -> None:
    pool = await make_pool(store)
    with pytest.raises(Aborted):
        await store.delete_pool(NS, pool.id, 7, b.T0, None, force=True)
    await store.delete_pool(NS, pool.id, 1, b.T0, None, force=True)


# --- what the image's tag names ---------------------------------------------------------------------------------------


async def test_an_image_that_moved_makes_members_stale(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, image_check_secs=30, warm_containers=2)
    now = b.T0 + timedelta(seconds=30)
    await store.pool_failed(pool.id, pool.member_digest(), b.failure())
    notified.clear()

    await store.pool_image(pool.id, pool.spec.image, "sha256:one", now)

    view = await store.get_pool(NS, pool.id)
    expected = replace(pool, image_digest="sha256:one", image_check_time=now)
    assert view.pool == expected
    assert view.counts == PoolCounts(stale=2)
    assert notified == [{pool.id}]
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.spec_digest == expected.member_digest() != pool.member_digest()
    assert (snapshot.image_digest, snapshot.image_check_time) == ("sha256:one", now)
    # None of the old ones is handed out, and new ones are made of the new image.
    cold = await claim_one(store, pool_ref=pool.id)
    assert cold.state is MemberState.STARTING
    assert await store.add_members(pool.id, pool.member_digest(), b.sandbox_ids(1), b.T0) == []
    await add_warm(store, view.pool, 1)
    assert (await claim_one(store, pool_ref=pool.id)).state is MemberState.ACTIVE
    # The cold one's success is of the present image.
    await store.pool_failed(pool.id, expected.member_digest(), b.failure())
    await store.member_ready(cold.id, "a:1", b.T0, 1.0)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


@pytest.mark.parametrize("digest", [None, "sha256:one"], ids=["not found", "the same"])
async def test_a_look_without_news_changes_the_time_alone(store: SqlStore, digest: str | None) -> None:
    pool = await make_pool(store, image_check_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    pool = (await store.get_pool(NS, pool.id)).pool
    await store.pool_failed(pool.id, pool.member_digest(), b.failure())
    now = b.T0 + timedelta(seconds=30)
    await store.pool_image(pool.id, pool.spec.image, digest, now)
    view = await store.get_pool(NS, pool.id)
    assert view.pool == replace(pool, image_check_time=now, failure=b.failure())


async def test_a_look_at_another_image_is_not_written(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool, deleted = await make_pool(store, image_check_secs=30), await make_pool(store, image_check_secs=30)
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    notified.clear()
    await store.pool_image(pool.id, "another", "sha256:one", b.T0)
    await store.pool_image(deleted.id, deleted.spec.image, "sha256:one", b.T0)
    await store.pool_image(b.pool_id(), pool.spec.image, "sha256:one", b.T0)
    assert (await store.get_pool(NS, pool.id)).pool == pool
    assert notified == []


async def test_another_image_forgets_what_the_tag_named(store: SqlStore) -> None:
    pool = await make_pool(store, image_check_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    larger = replace(pool.spec, memory_mb=1024)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=larger), None)
    assert (view.pool.image_digest, view.pool.image_check_time) == ("sha256:one", b.T0)
    await add_warm(store, (await resized(store, pool, 1)), 1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    assert (view.pool.image_digest, view.pool.image_check_time) == ("", None)
    assert view.counts == PoolCounts(stale=1)
    await add_warm(store, view.pool, 1)


async def test_no_looking_any_more_is_a_change_of_what_members_are_made_of(store: SqlStore) -> None:
    pool = await make_pool(store, image_check_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    await add_warm(store, await resized(store, pool, 1), 1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, image_check_secs=0), None)
    assert view.counts == PoolCounts(stale=1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, image_check_secs=60), None)
    assert view.counts == PoolCounts(warm=1)


async def test_pools_of_a_template_keep_what_they_know_of_its_image(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    looking, other = [await make_pool(store, template_ref="base", image_check_secs=secs) for secs in (30, 0)]
    await store.pool_image(looking.id, looking.spec.image, "sha256:one", b.T0)
    for change, digest in ((b.spec(memory_mb=1024), "sha256:one"), (b.spec("new"), "")):
        await store.update_template(NS, "base", None, lambda t, change=change: replace(t, spec=change), None)
        for pool in (looking, other):
            present = (await store.get_pool(NS, pool.id)).pool
            assert (present.spec, present.image_digest) == (change, digest if pool is looking else "")
            [snapshot] = await store.snapshot(frozenset({pool.id}))
            assert snapshot.spec_digest == present.member_digest()


async def resized(store: SqlStore, pool: Pool, number: int) -> Pool:
    """The pool as it is now, with another `warm_containers`."""
    return (await store.update_pool(NS, pool.id, None, lambda p: replace(p, warm_containers=number), None)).pool


async def test_a_deleted_pools_unclaimed_members_go(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 1, name="web", warm_containers=2)
    [creating] = await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    notified.clear()
    await store.delete_pool(NS, "web", 1, b.T0, None)
    members = await store.live_members()
    assert {member.state for member in members} == {MemberState.REMOVING}
    assert notified == [{pool.id, *(member.id for member in members)}]
    assert await store.member_ready(creating.id, "a:1", b.T0, 1.0) is None
    for ref in ("web", pool.id):
        with pytest.raises(NotFound):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.claim(b.claim_request(pool_ref=ref))
    assert await store.list_pools(NS, 10, "") == []


async def test_a_retry_is_answered_once(store: SqlStore) -> None:
    create, update, delete = (b.request_key("r", method) for method in ("Create", "Update", "Delete"))
    pool = (await store.create_pool(b.pool_draft("web"), create)).pool
    await add_warm(store, pool, 1)
    more = await store.update_pool(NS, "web", 1, lambda p: replace(p, warm_containers=5), update)
    assert await store.update_pool(NS, "web", 1, lambda p: replace(p, warm_containers=6), update) == more
    assert await store.create_pool(b.pool_draft("web"), create) == more
    await store.delete_pool(NS, "web", None, b.T0, delete)
    second = await make_pool(store, name="web")
    await store.delete_pool(NS, "web", None, b.T0, delete)
    assert (await store.get_pool(NS, "web")).pool.id == second.id
    assert (await store.create_pool(b.pool_draft("web"), create)).pool.id == pool.id
    with pytest.raises(InvalidArgument, match="request_id"):
        await store.create_pool(b.pool_draft("x"), replace(create, fingerprint="another"))
