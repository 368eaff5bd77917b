"""Random histories of a pool: whatever happens in whatever order, the counts stay true."""

import asyncio
import tempfile
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool_server.domain.errors import Exhausted
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.domain.model import EndReason
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS
from tests.support import builders as b

_STEP = st.one_of(
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(st.just("add"), st.integers(1, 3)),
    st.tuples(st.just("respec"), st.integers(0, 1)),
    st.tuples(st.just("limit"), st.integers(1, 6)),
    st.tuples(st.sampled_from(["ready", "fail", "end", "remove"]), st.integers(0, 9)),
)


class History:
    """Applies steps to a store and to a book of its own, and compares."""

    def __init__(self, store: SqlStore, pool_id: str) -> None:
        self.store = store
        self.pool_id = pool_id
        self.owned: set[str] = set()
        self.hits = self.misses = 0

    async def step(self, what: str, number: int) -> None:
        store, view = self.store, await self.store.get_pool(NS, self.pool_id)
        members = {member.id: member for member in await store.live_members()}
        one = sorted(members)[number % len(members)] if members else b.sandbox_id()
        match what:
            case "claim":
                await self.claim(number)
            case "add":
                digest = view.pool.spec.digest()
                added = await store.add_members(self.pool_id, digest, b.sandbox_ids(number), b.T0)
                assert view.counts.total + len(added) <= max(view.counts.total, view.pool.max_containers or 0)
                assert view.counts.warm + view.counts.creating + len(added) <= max(
                    view.wanted, view.counts.warm + view.counts.creating
                )
            case "respec":
                new = b.spec(f"image-{number}")
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, spec=new), None)
            case "limit":
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, max_containers=number), None)
            case "ready" if one in members and members[one].state in (MemberState.CREATING, MemberState.STARTING):
                assert await store.member_ready(one, ADDRESS, b.T0, 1.0) is not None
            case "fail":
                await store.launch_failed(one, b.end(EndReason.FAILED), b.failure())
            case "end":
                await store.end_members([one], IN_USE | {MemberState.WARM}, b.end())
            case "remove" if one in members and members[one].state is MemberState.REMOVING:
                await store.member_removed(one, b.T0)

    async def claim(self, number: int) -> None:
        view = await self.store.get_pool(NS, self.pool_id)
        missing = max(0, number - view.counts.warm)
        fits = view.counts.total + missing <= (view.pool.max_containers or 0)
        try:
            result = await self.store.claim(b.claim_request(number, pool_ref=self.pool_id))
        except Exhausted:
            assert missing
            assert not fits
            return
        assert fits or not missing
        ids = {member.id for member in result.members}
        assert len(ids) == number
        assert not ids & self.owned
        assert {member.spec for member in result.members} == {view.pool.spec}
        self.owned |= ids
        self.hits += number - missing
        self.misses += missing

    async def check(self) -> None:
        view = await self.store.get_pool(NS, self.pool_id)
        members = await self.store.live_members()
        assert view.counts.total == len(members)
        assert view.counts.active == sum(member.state is MemberState.ACTIVE for member in members)
        assert (view.pool.hits, view.pool.misses) == (self.hits, self.misses)
        assert {member.id for member in members if member.claim} <= self.owned
        [snapshot] = await self.store.snapshot(frozenset({self.pool_id}))
        assert [member.id for member in snapshot.members] == sorted(member.id for member in members)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEP, min_size=5, max_size=30))
def test_the_counts_stay_true(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = SqlStore(f"sqlite:///{folder}/x.db", lambda _: None, b.ManualClock())
            await store.open()
            pool = (await store.create_pool(b.pool_draft(warm_containers=3, max_containers=5), None)).pool
            history = History(store, pool.id)
            for what, number in steps:
                await history.step(what, number)
                await history.check()
            await store.close()

    asyncio.run(run())
