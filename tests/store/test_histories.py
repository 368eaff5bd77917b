"""Random histories of a pool and its successors: whatever happens in whatever order, the counts stay true."""

import asyncio
import tempfile
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool_server.domain.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.domain.model import EndReason, Member, Pool, StartKind
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS
from tests.support import builders as b

_STEP = st.one_of(
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(st.just("add"), st.integers(1, 3)),
    st.tuples(st.just("respec"), st.integers(0, 1)),
    st.tuples(st.just("limit"), st.integers(1, 6)),
    st.tuples(st.just("take"), st.integers(1, 3)),
    st.tuples(st.just("image"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["ready", "fail", "end", "remove", "disown"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["keep secret", "delete secret", "name secret"]), st.integers(0, 1)),
    st.tuples(st.just("force"), st.just(0)),
)


class History:
    """Applies steps to a store and to a book of its own, and compares."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.pool_id = ""
        self.owned: set[str] = set()
        self.disowned: set[str] = set()
        self.secret = False
        self.hits = self.misses = 0

    async def step(self, what: str, number: int) -> None:
        store, view = self.store, await self.store.get_pool(NS, self.pool_id)
        members = {member.id: member for member in await store.live_members()}
        one = sorted(members)[number % len(members)] if members else b.sandbox_id()
        match what:
            case "claim":
                await self.claim(number)
            case "add":
                digest = view.pool.member_digest()
                added = await store.add_members(self.pool_id, digest, b.sandbox_ids(number), b.T0)
                assert view.counts.total + len(added) <= max(view.counts.total, view.pool.max_containers or 0)
                assert view.counts.warm + view.counts.creating + len(added) <= max(
                    view.wanted, view.counts.warm + view.counts.creating
                )
            case "respec":
                new = replace(view.pool.spec, image=f"image-{number}")
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, spec=new), None)
            case "take":
                await self.take(number)
            case "image":
                await store.pool_image(self.pool_id, view.pool.spec.image, f"sha256:{number}", b.T0)
            case "disown":
                await self.disown(one, members.get(one))
            case "keep secret" | "delete secret" | "name secret":
                await self.change_secret(what, number, view.pool)
            case "force":
                await store.delete_pool(NS, self.pool_id, None, b.T0, None, force=True)
                gone = [one for one in await store.live_members() if one.pool_id == self.pool_id]
                assert {one.state for one in gone} <= {MemberState.REMOVING}
                await self.begin()
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

    async def take(self, number: int) -> None:
        """Claim what is ready, and nothing else."""
        view = await self.store.get_pool(NS, self.pool_id)
        try:
            result = await self.store.claim(b.claim_request(number, pool_ref=self.pool_id, cold=False))
        except Exhausted:
            assert view.counts.warm < number
            return
        assert view.counts.warm >= number
        ids = {member.id for member in result.members}
        assert not ids & self.owned
        self.owned |= ids
        self.hits += number

    async def disown(self, one: str, member: Member | None) -> None:
        disowned = await self.store.disown([one])
        active = member is not None and member.state is MemberState.ACTIVE
        assert [member.id for member in disowned] == ([one] if active else [])
        if active and member is not None and member.claim is not None:
            self.disowned.add(one)
            if member.claim.start is StartKind.WARM:
                self.hits -= 1
            else:
                self.misses -= 1

    async def change_secret(self, what: str, number: int, pool: Pool) -> None:
        """Make the secret, delete it (by force or not), name it or not; compare with what must come of it."""
        store, force = self.store, bool(number)
        named = bool(pool.spec.secret_names)
        try:
            if what == "keep secret":
                await store.create_secret(b.secret("S"), b"x", None)
                assert not self.secret
                self.secret = True
            elif what == "delete secret":
                await store.delete_secret(NS, "S", force, b.T0, None)
                assert self.secret
                assert force or not named
                self.secret = False
            else:
                new = replace(pool.spec, secret_names=("S",) * number)
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, spec=new), None)
                assert self.secret or new == pool.spec or not number
        except AlreadyExists:
            assert what == "keep secret"
            assert self.secret
        except FailedPrecondition:
            assert what == "delete secret"
            assert self.secret
            assert named
            assert not force
        except NotFound:
            assert not self.secret

    async def begin(self) -> None:
        """Go on with a new pool."""
        draft = b.pool_draft(warm_containers=3, max_containers=5, image_check_secs=30)
        self.pool_id = (await self.store.create_pool(draft, None)).pool.id
        self.hits = self.misses = 0

    async def check(self) -> None:
        view = await self.store.get_pool(NS, self.pool_id)
        everyone = await self.store.live_members()
        assert {member.id for member in everyone if member.claim} <= self.owned - self.disowned
        members = [member for member in everyone if member.pool_id == self.pool_id]
        assert view.counts.total == len(members)
        assert view.counts.active == sum(member.state is MemberState.ACTIVE for member in members)
        assert (view.pool.hits, view.pool.misses) == (self.hits, self.misses)
        [snapshot] = await self.store.snapshot(frozenset({self.pool_id}))
        assert [member.id for member in snapshot.members] == sorted(member.id for member in members)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEP, min_size=5, max_size=30))
def test_the_counts_stay_true(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = SqlStore(f"sqlite:///{folder}/x.db", lambda _: None, b.ManualClock())
            await store.open()
            history = History(store)
            await history.begin()
            for what, number in steps:
                await history.step(what, number)
                await history.check()
            await store.close()

    asyncio.run(run())
