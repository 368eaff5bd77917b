"""Purging of old rows in the store."""

from datetime import timedelta

import pytest

from sandpool_server.domain.errors import NotFound
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.store import SqlStore
from tests.store.steps import NS, claim_one, make_pool
from tests.support import builders as b

HOUR = timedelta(hours=1)
LONG_AGO = b.T0 - 100 * HOUR
REMOVED = SandboxFilter(states=frozenset({InstanceState.REMOVED}))


async def end_at(store: SqlStore, instance_id: str, hours: int) -> None:
    await store.delete_sandbox(NS, instance_id, b.T0, None)
    await store.instance_removed(instance_id, b.T0 + hours * HOUR)


async def test_purges_terminated_sandboxes_after_retention_period(store: SqlStore) -> None:
    old, young, running = [await claim_one(store, name=name) for name in ("old", "young", "running")]
    await end_at(store, old.id, 1)
    await end_at(store, young.id, 3)
    assert await store.purge(b.T0 + 2 * HOUR, LONG_AGO) == 1
    with pytest.raises(NotFound):
        await store.get_sandbox(NS, "old")
    assert [instance.id for instance in await store.list_sandboxes(NS, REMOVED, 10, "")] == [young.id]
    assert [instance.id for instance in await store.live_instances()] == [running.id]
    assert await store.purge(b.T0 + 2 * HOUR, LONG_AGO) == 0


async def test_keeps_sandboxes_for_possible_retries(store: SqlStore) -> None:
    instance = await claim_one(store, request_id="r")
    await end_at(store, instance.id, 1)
    assert await store.purge(b.T0 + 2 * HOUR, b.T0) == 0
    assert (await store.claim(b.claim_request(request_id="r"))).instances[0].id == instance.id
    assert await store.list_sandboxes(NS, REMOVED, 10, "") == []  # lists do not contain it
    with pytest.raises(NotFound):
        await store.get_sandbox(NS, instance.id)
    assert await store.purge(b.T0 + 2 * HOUR, b.T0 + HOUR) == 1
    assert not (await store.claim(b.claim_request(request_id="r"))).replayed


async def test_purges_deleted_pools_and_templates_without_dependents(store: SqlStore) -> None:
    template = await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base")
    instance = await claim_one(store, pool_ref=pool.id)
    await end_at(store, instance.id, 1)
    await store.delete_pool(NS, pool.id, None, b.T0, None)
    await store.delete_template(NS, template.id, None, b.T0, None)
    late = b.T0 + 9 * HOUR
    assert await store.purge(LONG_AGO, late) == 0  # the sandbox is still visible
    assert await store.purge(late, b.T0) == 1  # only the sandbox: the pool and the template are too young
    assert await store.purge(late, late) == 2
    assert await store.purge(late, late) == 0


async def test_keeps_existing_pools_and_templates(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    await make_pool(store, 1, template_ref="base", name="web")
    late = b.T0 + 9 * HOUR
    assert await store.purge(late, late) == 0
    assert (await store.get_pool(NS, "web")).counts.warm == 1
    assert (await store.get_template(NS, "base")).name == "base"


async def test_purges_old_requests(store: SqlStore, clock: b.ManualClock) -> None:
    create, delete = b.request_key("r", "Create"), b.request_key("r", "Delete")
    pool = (await store.create_pool(b.pool_draft("web"), create)).pool
    await store.delete_pool(NS, "web", None, b.T0 + 2 * HOUR, delete)
    assert await store.purge(LONG_AGO, b.T0 + HOUR) == 1
    await store.delete_pool(NS, "web", None, b.T0, delete)  # the request is still stored
    assert (await store.create_pool(b.pool_draft("web"), create)).pool.id != pool.id


async def test_retry_for_purged_sandbox_is_not_found(store: SqlStore) -> None:
    key = b.request_key("r")
    instance = await claim_one(store)
    await store.delete_sandbox(NS, instance.id, b.T0, key)
    await store.instance_removed(instance.id, b.T0)
    assert await store.purge(b.T0 + HOUR, LONG_AGO) == 1
    with pytest.raises(NotFound):
        await store.delete_sandbox(NS, instance.id, b.T0, key)
