"""Sandboxes in the store."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool_server.domain.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import IN_USE, InstanceState
from sandpool_server.domain.model import Instance
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.store import SqlStore
from tests.store.steps import NS, claim_one, make_pool
from tests.support import builders as b


def with_timeout(timeout_secs: int, **fields: object):
    def change(instance: Instance) -> Instance:
        assert instance.claim is not None
        return replace(instance, claim=replace(instance.claim, timeout_secs=timeout_secs, **fields))

    return change


async def end_fully(store: SqlStore, instance_id: str) -> None:
    await store.delete_sandbox(NS, instance_id, b.T0, None)
    await store.instance_removed(instance_id, b.T0)


async def test_name_refers_to_running_or_newest_sandbox(store: SqlStore) -> None:
    first = await claim_one(store, name="mine")
    await end_fully(store, first.id)
    second = await claim_one(store, name="mine", now=b.T0 + timedelta(1))
    assert (await store.get_sandbox(NS, "mine")).id == second.id
    await end_fully(store, second.id)
    removed = await store.get_sandbox(NS, "mine")
    assert (removed.id, removed.state) == (second.id, InstanceState.REMOVED)
    third = await claim_one(store, name="mine", now=b.T0 - timedelta(1))
    assert (await store.get_sandbox(NS, "mine")).id == third.id
    assert (await store.get_sandbox(NS, first.id)).id == first.id


async def test_only_claimed_instances_of_the_namespace_are_sandboxes(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    [warm] = await store.live_instances()
    other = await claim_one(store, namespace="other", name="mine")
    for ref in (warm.id, other.id, "mine", "none"):
        with pytest.raises(NotFound, match=f"sandbox {ref!r}"):
            await store.get_sandbox(NS, ref)
        with pytest.raises(NotFound):
            await store.delete_sandbox(NS, ref, b.T0, None)
        with pytest.raises(NotFound):
            await store.update_sandbox(NS, ref, None, with_timeout(1), None)
    assert await store.list_sandboxes(NS, SandboxFilter(), 10, "") == []
    assert warm.pool_id == pool.id


async def test_lists_sandboxes_with_filters_and_pages(store: SqlStore) -> None:
    template = await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 1, template_ref="base", name="web")
    a = await claim_one(store, pool_ref="web", metadata={"team": "a", "x": "1"})
    c = await claim_one(store, template_ref="base", metadata={"team": "a"})
    d = await claim_one(store, metadata={"team": "d"})
    e = await claim_one(store)
    await end_fully(store, e.id)
    await store.delete_sandbox(NS, d.id, b.T0, None)

    async def found(limit: int = 10, after: str = "", **which: object) -> list[str]:
        return [m.id for m in await store.list_sandboxes(NS, SandboxFilter(**which), limit, after)]  # type: ignore[arg-type]

    assert await found() == [a.id, c.id, d.id]
    assert await found(2) == [a.id, c.id]
    assert await found(2, c.id) == [d.id]
    assert await found(states=frozenset({InstanceState.REMOVED, InstanceState.REMOVING})) == [d.id, e.id]
    assert await found(pool_ref="web") == await found(pool_ref=pool.id) == [a.id, c.id]
    assert await found(template_ref="base") == await found(template_ref=template.id) == [a.id, c.id]
    assert await found(metadata={"team": "a"}) == [a.id, c.id]
    assert await found(metadata={"team": "a", "x": "1"}) == [a.id]
    assert await found(metadata={"team": "a", "x": "2"}) == []
    assert await found(pool_ref="web", states=frozenset({InstanceState.ACTIVE}), metadata={"team": "a"}) == [a.id]
    with pytest.raises(NotFound, match="pool 'none'"):
        await found(pool_ref="none")
    with pytest.raises(NotFound, match="template 'none'"):
        await found(template_ref="none")


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(metadata=st.dictionaries(_TEXT.filter(bool), _TEXT, min_size=1, max_size=4), other=_TEXT)
async def test_stores_and_finds_any_metadata(store: SqlStore, metadata: dict[str, str], other: str) -> None:
    instance = await claim_one(store, metadata=metadata)
    assert (await store.get_sandbox(NS, instance.id)) == instance
    before = instance.id[:-1] + chr(ord(instance.id[-1]) - 1) + "~"

    async def is_found(which: dict[str, str]) -> bool:
        found = await store.list_sandboxes(NS, SandboxFilter(metadata=which), 10, before)
        return instance.id in [one.id for one in found]

    assert await is_found(metadata)
    for key, value in metadata.items():
        assert await is_found({key: value})
        assert await is_found({key: other}) == (value == other)
    assert await is_found({other: "1"}) == (metadata.get(other) == "1")


async def test_update_changes_claim(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 1)
    instance = await claim_one(store, pool_ref=pool.id, timeout_secs=5)
    notified.clear()
    changed = await store.update_sandbox(NS, instance.id, 1, with_timeout(60, name="mine", metadata={"k": "v"}), None)
    assert instance.claim is not None
    claim = replace(instance.claim, timeout_secs=60, name="mine", metadata={"k": "v"})
    assert changed == replace(instance, claim=claim, version=2)
    assert await store.get_sandbox(NS, "mine") == changed
    assert notified == [{instance.id, pool.id}]
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.instances[0].expire_time == b.T0 + timedelta(seconds=60)
    with pytest.raises(Aborted):
        await store.update_sandbox(NS, instance.id, 1, with_timeout(1), None)


async def test_rejects_name_in_use(store: SqlStore) -> None:
    await claim_one(store, name="mine")
    other = await claim_one(store)
    with pytest.raises(AlreadyExists, match="mine"):
        await store.update_sandbox(NS, other.id, None, with_timeout(0, name="mine"), None)
    assert await store.get_sandbox(NS, other.id) == other


async def test_rejects_update_of_terminated_sandbox(store: SqlStore) -> None:
    instance = await claim_one(store)
    await store.delete_sandbox(NS, instance.id, b.T0, None)
    for _ in range(2):
        with pytest.raises(FailedPrecondition) as caught:
            await store.update_sandbox(NS, instance.id, None, with_timeout(1), None)
        assert caught.value.reason == "SANDBOX_TERMINATED"
        await store.instance_removed(instance.id, b.T0)


@pytest.mark.parametrize("warm", [0, 1], ids=["starting", "active"])
async def test_repeated_deletion_changes_nothing(store: SqlStore, notified: list[frozenset[str]], warm: int) -> None:
    pool = await make_pool(store, warm)
    instance = await claim_one(store, pool_ref=pool.id)
    notified.clear()
    deleted = await store.delete_sandbox(NS, instance.id, b.T0, None)
    assert deleted == replace(instance, state=InstanceState.REMOVING, end=b.end())
    assert await store.delete_sandbox(NS, instance.id, b.T0 + timedelta(1), None) == deleted
    assert notified == [{instance.id, pool.id}]
    await store.instance_removed(instance.id, b.T0)
    removed = await store.delete_sandbox(NS, instance.id, b.T0 + timedelta(1), None)
    assert removed == replace(deleted, state=InstanceState.REMOVED)


async def test_retry_is_executed_once(store: SqlStore) -> None:
    update, delete = (b.request_key("r", method) for method in ("Update", "Delete"))
    first = await claim_one(store, name="mine")
    changed = await store.update_sandbox(NS, "mine", 1, with_timeout(9), update)
    assert await store.update_sandbox(NS, "mine", 1, with_timeout(10), update) == changed
    deleted = await store.delete_sandbox(NS, "mine", b.T0, delete)
    second = await claim_one(store, name="mine")
    assert await store.delete_sandbox(NS, "mine", b.T0, delete) == deleted
    assert (await store.get_sandbox(NS, "mine")).state in IN_USE
    assert (await store.get_sandbox(NS, "mine")).id == second.id
    assert first.id == deleted.id
    with pytest.raises(InvalidArgument, match="request_id"):
        await store.delete_sandbox(NS, "mine", b.T0, replace(delete, fingerprint="another"))
