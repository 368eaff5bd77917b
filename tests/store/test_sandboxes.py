"""The store's contract on sandboxes."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool_server.domain.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.domain.model import Member
from sandpool_server.ports import SandboxFilter
from sandpool_server.store import SqlStore
from tests.store.steps import NS, claim_one, make_pool
from tests.support import builders as b


def with_timeout(timeout_secs: int, **fields: object):
    def change(member: Member) -> Member:
        assert member.claim is not None
        return replace(member, claim=replace(member.claim, timeout_secs=timeout_secs, **fields))

    return change


async def end_fully(store: SqlStore, member_id: str) -> None:
    await store.delete_sandbox(NS, member_id, b.T0, None)
    await store.member_removed(member_id, b.T0)


async def test_a_name_means_the_living_one_and_else_the_newest(store: SqlStore) -> None:
    first = await claim_one(store, name="mine")
    await end_fully(store, first.id)
    second = await claim_one(store, name="mine", now=b.T0 + timedelta(1))
    assert (await store.get_sandbox(NS, "mine")).id == second.id
    await end_fully(store, second.id)
    gone = await store.get_sandbox(NS, "mine")
    assert (gone.id, gone.state) == (second.id, MemberState.GONE)
    third = await claim_one(store, name="mine", now=b.T0 - timedelta(1))
    assert (await store.get_sandbox(NS, "mine")).id == third.id
    assert (await store.get_sandbox(NS, first.id)).id == first.id


async def test_only_claimed_members_of_the_namespace_are_sandboxes(store: SqlStore) -> None:
    pool = await make_pool(store, 1)
    [warm] = await store.live_members()
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


async def test_lists_filter_and_page(store: SqlStore) -> None:
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
    assert await found(states=frozenset({MemberState.GONE, MemberState.REMOVING})) == [d.id, e.id]
    assert await found(pool_ref="web") == await found(pool_ref=pool.id) == [a.id, c.id]
    assert await found(template_ref="base") == await found(template_ref=template.id) == [a.id, c.id]
    assert await found(metadata={"team": "a"}) == [a.id, c.id]
    assert await found(metadata={"team": "a", "x": "1"}) == [a.id]
    assert await found(metadata={"team": "a", "x": "2"}) == []
    assert await found(pool_ref="web", states=frozenset({MemberState.ACTIVE}), metadata={"team": "a"}) == [a.id]
    with pytest.raises(NotFound, match="pool 'none'"):
        await found(pool_ref="none")
    with pytest.raises(NotFound, match="template 'none'"):
        await found(template_ref="none")


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(metadata=st.dictionaries(_TEXT.filter(bool), _TEXT, min_size=1, max_size=4), other=_TEXT)
async def test_any_metadata_is_kept_and_found(store: SqlStore, metadata: dict[str, str], other: str) -> None:
    member = await claim_one(store, metadata=metadata)
    assert (await store.get_sandbox(NS, member.id)) == member
    before = member.id[:-1] + chr(ord(member.id[-1]) - 1) + "~"

    async def is_found(which: dict[str, str]) -> bool:
        found = await store.list_sandboxes(NS, SandboxFilter(metadata=which), 10, before)
        return member.id in [one.id for one in found]

    assert await is_found(metadata)
    for key, value in metadata.items():
        assert await is_found({key: value})
        assert await is_found({key: other}) == (value == other)
    assert await is_found({other: "1"}) == (metadata.get(other) == "1")


async def test_an_update_changes_the_claim(store: SqlStore, notified: list[frozenset[str]]) -> None:
    pool = await make_pool(store, 1)
    member = await claim_one(store, pool_ref=pool.id, timeout_secs=5)
    notified.clear()
    changed = await store.update_sandbox(NS, member.id, 1, with_timeout(60, name="mine", metadata={"k": "v"}), None)
    assert member.claim is not None
    claim = replace(member.claim, timeout_secs=60, name="mine", metadata={"k": "v"})
    assert changed == replace(member, claim=claim, version=2)
    assert await store.get_sandbox(NS, "mine") == changed
    assert notified == [{member.id, pool.id}]
    [snapshot] = await store.snapshot(frozenset({pool.id}))
    assert snapshot.members[0].expire_time == b.T0 + timedelta(seconds=60)
    with pytest.raises(Aborted):
        await store.update_sandbox(NS, member.id, 1, with_timeout(1), None)


async def test_a_name_in_use_is_refused(store: SqlStore) -> None:
    await claim_one(store, name="mine")
    other = await claim_one(store)
    with pytest.raises(AlreadyExists, match="mine"):
        await store.update_sandbox(NS, other.id, None, with_timeout(0, name="mine"), None)
    assert await store.get_sandbox(NS, other.id) == other


async def test_one_that_has_ended_is_not_changed(store: SqlStore) -> None:
    member = await claim_one(store)
    await store.delete_sandbox(NS, member.id, b.T0, None)
    for _ in range(2):
        with pytest.raises(FailedPrecondition) as caught:
            await store.update_sandbox(NS, member.id, None, with_timeout(1), None)
        assert caught.value.reason == "SANDBOX_ENDED"
        await store.member_removed(member.id, b.T0)


@pytest.mark.parametrize("warm", [0, 1], ids=["starting", "active"])
async def test_a_deleted_one_says_so_and_stays_as_it_is(
    store: SqlStore, notified: list[frozenset[str]], warm: int
) -> None:
    pool = await make_pool(store, warm)
    member = await claim_one(store, pool_ref=pool.id)
    notified.clear()
    deleted = await store.delete_sandbox(NS, member.id, b.T0, None)
    assert deleted == replace(member, state=MemberState.REMOVING, end=b.end())
    assert await store.delete_sandbox(NS, member.id, b.T0 + timedelta(1), None) == deleted
    assert notified == [{member.id, pool.id}]
    await store.member_removed(member.id, b.T0)
    gone = await store.delete_sandbox(NS, member.id, b.T0 + timedelta(1), None)
    assert gone == replace(deleted, state=MemberState.GONE)


async def test_a_retry_is_answered_once(store: SqlStore) -> None:
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
