"""What the store deletes, and what it keeps."""

from datetime import timedelta

import pytest

from sandpool_server.domain.errors import NotFound
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.ports import SandboxFilter
from sandpool_server.store import SqlStore
from tests.store.steps import NS, claim_one, make_pool
from tests.support import builders as b

HOUR = timedelta(hours=1)
LONG_AGO = b.T0 - 100 * HOUR
GONE = SandboxFilter(states=frozenset({MemberState.GONE}))


async def end_at(store: SqlStore, member_id: str, hours: int) -> None:
    await store.delete_sandbox(NS, member_id, b.T0, None)
    await store.member_removed(member_id, b.T0 + hours * HOUR)


async def test_sandboxes_go_some_time_after_their_end(store: SqlStore) -> None:
    old, young, living = [await claim_one(store, name=name) for name in ("old", "young", "living")]
    await end_at(store, old.id, 1)
    await end_at(store, young.id, 3)
    assert await store.purge(b.T0 + 2 * HOUR, LONG_AGO) == 1
    with pytest.raises(NotFound):
        await store.get_sandbox(NS, "old")
    assert [member.id for member in await store.list_sandboxes(NS, GONE, 10, "")] == [young.id]
    assert [member.id for member in await store.live_members()] == [living.id]
    assert await store.purge(b.T0 + 2 * HOUR, LONG_AGO) == 0


async def test_those_that_a_retry_may_ask_for_stay(store: SqlStore) -> None:
    member = await claim_one(store, request_id="r")
    await end_at(store, member.id, 1)
    assert await store.purge(b.T0 + 2 * HOUR, b.T0) == 0
    assert (await store.claim(b.claim_request(request_id="r"))).members[0].id == member.id
    assert await store.list_sandboxes(NS, GONE, 10, "") == []  # but nobody is shown them
    with pytest.raises(NotFound):
        await store.get_sandbox(NS, member.id)
    assert await store.purge(b.T0 + 2 * HOUR, b.T0 + HOUR) == 1
    assert not (await store.claim(b.claim_request(request_id="r"))).replayed


async def test_deleted_pools_and_templates_go_when_nothing_belongs_to_them(store: SqlStore) -> None:
    template = await store.create_template(b.template("base"), None)
    pool = await make_pool(store, template_ref="base")
    member = await claim_one(store, pool_ref=pool.id)
    await end_at(store, member.id, 1)
    await store.delete_pool(NS, pool.id, None, b.T0, None)
    await store.delete_template(NS, template.id, None, b.T0, None)
    late = b.T0 + 9 * HOUR
    assert await store.purge(LONG_AGO, late) == 0  # the sandbox is still to be seen
    assert await store.purge(late, b.T0) == 1  # the sandbox; the others are too young
    assert await store.purge(late, late) == 2
    assert await store.purge(late, late) == 0


async def test_living_pools_and_templates_stay(store: SqlStore) -> None:
    await store.create_template(b.template("base"), None)
    await make_pool(store, 1, template_ref="base", name="web")
    late = b.T0 + 9 * HOUR
    assert await store.purge(late, late) == 0
    assert (await store.get_pool(NS, "web")).counts.warm == 1
    assert (await store.get_template(NS, "base")).name == "base"


async def test_answered_requests_go(store: SqlStore, clock: b.ManualClock) -> None:
    create, delete = b.request_key("r", "Create"), b.request_key("r", "Delete")
    pool = (await store.create_pool(b.pool_draft("web"), create)).pool
    await store.delete_pool(NS, "web", None, b.T0 + 2 * HOUR, delete)
    assert await store.purge(LONG_AGO, b.T0 + HOUR) == 1
    await store.delete_pool(NS, "web", None, b.T0, delete)  # still answered
    assert (await store.create_pool(b.pool_draft("web"), create)).pool.id != pool.id


async def test_a_retry_about_something_purged_is_not_found(store: SqlStore) -> None:
    key = b.request_key("r")
    member = await claim_one(store)
    await store.delete_sandbox(NS, member.id, b.T0, key)
    await store.member_removed(member.id, b.T0)
    assert await store.purge(b.T0 + HOUR, LONG_AGO) == 1
    with pytest.raises(NotFound):
        await store.delete_sandbox(NS, member.id, b.T0, key)
