"""Pools in the store."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Pool, PoolCondition, PoolCounts, TerminationReason
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.store import SqlStore
from tests.store.steps import NS, add_warm, claim_one, counts, make_pool
from tests.support import builders as b


async def test_reads_pool_by_id_and_by_name(store: SqlStore, notified: list[frozenset[str]]) -> None:
    draft = b.pool_draft(
        "web",
        timeout_secs=7,
        warm_containers=3,
        max_containers=5,
        paused=True,
        image_refresh_interval_secs=30,
        warm_ttl_secs=60,
        drained=True,
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
        image_refresh_interval_secs=30,
        warm_ttl_secs=60,
        drained=True,
    )
    assert view.counts == PoolCounts()
    assert view.condition is PoolCondition.DRAINED
    assert await store.get_pool(NS, draft.id) == view
    assert await store.get_pool(NS, "web") == view
    assert notified == [{draft.id}]


@pytest.mark.parametrize(("own", "expected"), [(None, 60), (0, 0), (5, 5)])
async def test_pool_inherits_from_template(store: SqlStore, own: int | None, expected: int) -> None:
    template = await store.create_template(b.template("base", spec=b.spec("x", cpus=3), timeout_secs=60), None)
    pool = (await store.create_pool(b.pool_draft(template_ref="base", timeout_secs=own), None)).pool
    assert (pool.template_id, pool.template_name, pool.spec) == (template.id, "base", template.spec)
    assert (pool.timeout_secs, pool.own_timeout_secs) == (expected, own)


async def test_rejects_unknown_pool_and_template(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="template 'none'"):
        await store.create_pool(b.pool_draft(template_ref="none"), None)
    for ref in ("none", b.pool_id()):
        with pytest.raises(NotFound, match=f"pool {ref!r}"):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.update_pool(NS, ref, None, lambda pool: pool, None)
        with pytest.raises(NotFound):
            await store.delete_pool(NS, ref, None, b.T0, None)


async def test_namespaces_are_separate(store: SqlStore) -> None:
    pool = await make_pool(store, name="web", namespace="other")
    for ref in ("web", pool.id):
        with pytest.raises(NotFound):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.claim(b.claim_request(pool_ref=ref))
    assert await store.list_pools(NS, 10, "") == []
    assert (await make_pool(store, name="web")).name == "web"


async def test_name_is_unique_among_existing_pools(store: SqlStore) -> None:
    await make_pool(store, name="web")
    nameless = [await make_pool(store) for _ in range(2)]
    with pytest.raises(AlreadyExists) as caught:
        await make_pool(store, name="web")
    assert (caught.value.resource_type, caught.value.resource_name) == ("pool", "web")
    with pytest.raises(AlreadyExists):
        await store.update_pool(NS, nameless[0].id, None, lambda pool: replace(pool, name="web"), None)
    await store.delete_pool(NS, "web", None, b.T0, None)
    await make_pool(store, name="web")


async def test_lists_pools_in_order_of_ids(store: SqlStore) -> None:
    created = [await make_pool(store, i) for i in range(4)]
    await store.delete_pool(NS, created[2].id, None, b.T0, None)
    pages = [await store.list_pools(NS, 2, ""), await store.list_pools(NS, 2, created[1].id)]
    assert [[view.pool.id for view in page] for page in pages] == [[created[0].id, created[1].id], [created[3].id]]
    assert [view.counts.warm for page in pages for view in page] == [0, 1, 3]


async def test_counts_instances_by_state(store: SqlStore) -> None:
    pool = await make_pool(store, 3, warm_containers=9)
    await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(2), b.T0)
    claimed = await store.claim(b.claim_request(4, pool_ref=pool.id))
    await store.delete_sandbox(NS, claimed.instances[0].id, b.T0, None)
    expected = PoolCounts(warm=0, creating=2, starting=1, active=2, removing=1)
    assert await counts(store, pool.id) == expected
    await store.instance_removed(claimed.instances[0].id, b.T0)
    assert await counts(store, pool.id) == replace(expected, removing=0)


async def test_changed_spec_makes_unclaimed_instances_outdated(store: SqlStore) -> None:
    pool = await make_pool(store, 2, warm_containers=9)
    await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await claim_one(store, pool_ref=pool.id)
    view = await store.update_pool(NS, pool.id, 1, lambda p: replace(p, spec=b.spec("other")), None)
    assert view.counts == PoolCounts(stale=2, active=1)
    assert view == await store.get_pool(NS, pool.id)


async def test_update_increments_version(store: SqlStore, notified: list[frozenset[str]]) -> None:
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
            image_refresh_interval_secs=5,
            warm_ttl_secs=6,
            drained=True,
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


async def test_pool_can_use_timeout_of_template_again(store: SqlStore) -> None:
    await store.create_template(b.template("base", timeout_secs=60), None)
    pool = await make_pool(store, template_ref="base", timeout_secs=5)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, own_timeout_secs=None), None)
    assert (view.pool.timeout_secs, view.pool.own_timeout_secs) == (60, None)


async def test_update_does_not_change_counters(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    await store.claim(b.claim_request(2, pool_ref=pool.id))
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, hits=99, misses=99), None)
    assert (view.pool.hits, view.pool.misses) == (1, 1)


@pytest.mark.parametrize(
    ("change", "cleared"),
    [
        (lambda pool: replace(pool, spec=b.spec("other")), True),
        (lambda pool: replace(pool, paused=False), True),
        (lambda pool: replace(pool, spec=replace(pool.spec, pull_policy=PullPolicy.ALWAYS)), True),
        (lambda pool: replace(pool, paused=False, drained=True), False),
        (lambda pool: replace(pool, warm_containers=7), False),
    ],
    ids=["spec", "unpaused", "pull policy", "drained instead", "size"],
)
async def test_changes_that_clear_failure(store: SqlStore, change: object, cleared: bool) -> None:
    pool = await make_pool(store, warm_containers=1)
    [instance] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(instance.id, b.end(), b.failure())
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, paused=True), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure == b.failure()
    view = await store.update_pool(NS, pool.id, None, change, None)  # type: ignore[arg-type]
    assert view.pool.failure == (None if cleared else b.failure())


async def test_new_spec_of_template_clears_failure_of_pool(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base", warm_containers=1)
    [instance] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.launch_failed(instance.id, b.end(), b.failure())
    await store.update_template(NS, "base", None, lambda t: replace(t, timeout_secs=3), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure is not None
    await store.update_template(NS, "base", None, lambda t: replace(t, spec=b.spec("other")), None)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


async def test_rejects_deletion_of_pool_in_use(store: SqlStore) -> None:
    pool = await make_pool(store, 1, name="web")
    named = await claim_one(store, pool_ref="web", name="mine")
    others = (await store.claim(b.claim_request(11, pool_ref="web"))).instances
    with pytest.raises(FailedPrecondition) as caught:
        await store.delete_pool(NS, "web", None, b.T0, None)
    assert caught.value.reason == "POOL_IN_USE"
    assert "12 sandboxes" in caught.value.message
    assert f"{named.id} (mine)" in caught.value.message
    assert sum(instance.id in caught.value.message for instance in (named, *others)) == 10
    assert (await store.get_pool(NS, "web")).pool.id == pool.id


async def test_forced_deletion_terminates_sandboxes(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, name="web", warm_containers=3)
    await store.add_instances(pool.id, pool.instance_digest(), b.sandbox_ids(1), b.T0)
    active = await claim_one(store, pool_ref="web", name="mine")
    other = await make_pool(store, 1)
    starting = (await store.claim(b.claim_request(2, pool_ref="web"))).instances[1]
    failed = await claim_one(store, pool_ref="web")
    await store.launch_failed(failed.id, b.end(TerminationReason.FAILED), None)
    notified.clear()
    now = b.T0 + timedelta(hours=1)

    await store.delete_pool(NS, "web", None, now, None, force=True)

    instances = {instance.id: instance for instance in await store.live_instances()}
    of_pool = {one: instance for one, instance in instances.items() if instance.pool_id == pool.id}
    assert len(of_pool) == 5
    assert {instance.state for instance in of_pool.values()} == {InstanceState.REMOVING}
    assert notified == [{pool.id, *of_pool} - {failed.id}]
    for sandbox in (active, starting):
        assert of_pool[sandbox.id].end == b.end(TerminationReason.DELETED, time=now)
    assert of_pool[failed.id].end == b.end(TerminationReason.FAILED)
    assert sum(instance.end is None for instance in of_pool.values()) == 1
    assert await counts(store, other.id) == PoolCounts(warm=1)
    with pytest.raises(NotFound):
        await store.get_pool(NS, "web")


async def test_forced_deletion_requires_current_version(store: SqlStore) -> None:
    pool = await make_pool(store)
    with pytest.raises(Aborted):
        await store.delete_pool(NS, pool.id, 7, b.T0, None, force=True)
    await store.delete_pool(NS, pool.id, 1, b.T0, None, force=True)


# --- digest of the image ----------------------------------------------------------------------------------------------


async def test_moved_tag_makes_instances_outdated(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 2, image_refresh_interval_secs=30, warm_containers=2)
    now = b.T0 + timedelta(seconds=30)
    await store.pool_failed(pool.id, pool.instance_digest(), b.failure())
    notified.clear()

    await store.pool_image(pool.id, pool.spec.image, "sha256:one", now)

    view = await store.get_pool(NS, pool.id)
    expected = replace(pool, image_digest="sha256:one", image_check_time=now)
    assert view.pool == expected
    assert view.counts == PoolCounts(stale=2)
    assert notified == [{pool.id}]
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.spec_digest == expected.instance_digest() != pool.instance_digest()
    assert (snapshot.image_digest, snapshot.image_check_time) == ("sha256:one", now)
    # Outdated instances are not claimed, and new instances use the new image.
    cold = await claim_one(store, pool_ref=pool.id)
    assert cold.state is InstanceState.STARTING
    assert await store.add_instances(pool.id, pool.instance_digest(), b.sandbox_ids(1), b.T0) == []
    await add_warm(store, view.pool, 1)
    assert (await claim_one(store, pool_ref=pool.id)).state is InstanceState.ACTIVE
    # The cold start used the current image, so its success clears the failure.
    await store.pool_failed(pool.id, expected.instance_digest(), b.failure())
    await store.instance_ready(cold.id, "a:1", b.T0, 1.0)
    assert (await store.get_pool(NS, pool.id)).pool.failure is None


@pytest.mark.parametrize("digest", [None, "sha256:one"], ids=["not found", "the same"])
async def test_image_check_without_change_updates_only_check_time(store: SqlStore, digest: str | None) -> None:
    pool = await make_pool(store, image_refresh_interval_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    pool = (await store.get_pool(NS, pool.id)).pool
    await store.pool_failed(pool.id, pool.instance_digest(), b.failure())
    now = b.T0 + timedelta(seconds=30)
    await store.pool_image(pool.id, pool.spec.image, digest, now)
    view = await store.get_pool(NS, pool.id)
    assert view.pool == replace(pool, image_check_time=now, failure=b.failure())


async def test_ignores_check_of_another_image(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool, deleted = (
        await make_pool(store, image_refresh_interval_secs=30),
        await make_pool(store, image_refresh_interval_secs=30),
    )
    await store.delete_pool(NS, deleted.id, None, b.T0, None)
    notified.clear()
    await store.pool_image(pool.id, "another", "sha256:one", b.T0)
    await store.pool_image(deleted.id, deleted.spec.image, "sha256:one", b.T0)
    await store.pool_image(b.pool_id(), pool.spec.image, "sha256:one", b.T0)
    assert (await store.get_pool(NS, pool.id)).pool == pool
    assert notified == []


async def test_changed_image_clears_digest(store: SqlStore) -> None:
    pool = await make_pool(store, image_refresh_interval_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    larger = replace(pool.spec, memory_mb=1024)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=larger), None)
    assert (view.pool.image_digest, view.pool.image_check_time) == ("sha256:one", b.T0)
    await add_warm(store, (await resized(store, pool, 1)), 1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=b.spec("new")), None)
    assert (view.pool.image_digest, view.pool.image_check_time) == ("", None)
    assert view.counts == PoolCounts(stale=1)
    await add_warm(store, view.pool, 1)


async def test_disabled_image_refresh_changes_instance_digest(store: SqlStore) -> None:
    pool = await make_pool(store, image_refresh_interval_secs=30)
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    await add_warm(store, await resized(store, pool, 1), 1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, image_refresh_interval_secs=0), None)
    assert view.counts == PoolCounts(stale=1)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, image_refresh_interval_secs=60), None)
    assert view.counts == PoolCounts(warm=1)


async def test_template_update_keeps_digest_of_unchanged_image(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    refreshing, other = [
        await make_pool(store, template_ref="base", image_refresh_interval_secs=secs) for secs in (30, 0)
    ]
    await store.pool_image(refreshing.id, refreshing.spec.image, "sha256:one", b.T0)
    for change, digest in ((b.spec(memory_mb=1024), "sha256:one"), (b.spec("new"), "")):
        await store.update_template(NS, "base", None, lambda t, change=change: replace(t, spec=change), None)
        for pool in (refreshing, other):
            current = (await store.get_pool(NS, pool.id)).pool
            assert (current.spec, current.image_digest) == (change, digest if pool is refreshing else "")
            [snapshot] = await store.snapshot(frozenset({pool.id}))
            assert snapshot.spec_digest == current.instance_digest()


async def resized(store: SqlStore, pool: Pool, number: int) -> Pool:
    """Return the current pool with another `warm_containers`."""
    return (await store.update_pool(NS, pool.id, None, lambda p: replace(p, warm_containers=number), None)).pool


async def test_deletion_of_pool_removes_unclaimed_instances(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 1, name="web", warm_containers=2)
    [creating] = await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    notified.clear()
    await store.delete_pool(NS, "web", 1, b.T0, None)
    instances = await store.live_instances()
    assert {instance.state for instance in instances} == {InstanceState.REMOVING}
    assert notified == [{pool.id, *(instance.id for instance in instances)}]
    assert await store.instance_ready(creating.id, "a:1", b.T0, 1.0) is None
    for ref in ("web", pool.id):
        with pytest.raises(NotFound):
            await store.get_pool(NS, ref)
        with pytest.raises(NotFound):
            await store.claim(b.claim_request(pool_ref=ref))
    assert await store.list_pools(NS, 10, "") == []


async def test_retry_is_executed_once(store: SqlStore) -> None:
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
