"""Random histories of a pool and its successors: the counts are correct after every step."""

import asyncio
import tempfile
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpool_server.domain.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound
from sandpool_server.domain.lifecycle import IN_USE, InstanceState
from sandpool_server.domain.model import Instance, Pool, StartType, TerminationReason
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS
from tests.support import builders as b

_STEP = st.one_of(
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(st.just("add"), st.integers(1, 3)),
    st.tuples(st.just("change spec"), st.integers(0, 1)),
    st.tuples(st.just("limit"), st.integers(1, 6)),
    st.tuples(st.just("claim warm"), st.integers(1, 3)),
    st.tuples(st.just("image"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["ready", "fail", "end", "remove", "release"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["create secret", "delete secret", "reference secret"]), st.integers(0, 1)),
    st.tuples(st.just("force delete"), st.just(0)),
)


class History:
    """Applies steps to a store and to a model of its expected state, and compares both."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.pool_id = ""
        self.owned: set[str] = set()
        self.released: set[str] = set()
        self.secret = False
        self.hits = self.misses = 0

    async def step(self, what: str, number: int) -> None:
        store, view = self.store, await self.store.get_pool(NS, self.pool_id)
        instances = {instance.id: instance for instance in await store.live_instances()}
        one = sorted(instances)[number % len(instances)] if instances else b.sandbox_id()
        match what:
            case "claim":
                await self.claim(number)
            case "add":
                digest = view.pool.instance_digest()
                added = await store.add_instances(self.pool_id, digest, b.sandbox_ids(number), b.T0)
                assert view.counts.total + len(added) <= max(view.counts.total, view.pool.max_containers or 0)
                assert view.counts.warm + view.counts.creating + len(added) <= max(
                    view.desired, view.counts.warm + view.counts.creating
                )
            case "change spec":
                new = replace(view.pool.spec, image=f"image-{number}")
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, spec=new), None)
            case "claim warm":
                await self.claim_warm(number)
            case "image":
                await store.pool_image(self.pool_id, view.pool.spec.image, f"sha256:{number}", b.T0)
            case "release":
                await self.release(one, instances.get(one))
            case "create secret" | "delete secret" | "reference secret":
                await self.change_secret(what, number, view.pool)
            case "force delete":
                await store.delete_pool(NS, self.pool_id, None, b.T0, None, force=True)
                remaining = [one for one in await store.live_instances() if one.pool_id == self.pool_id]
                assert {one.state for one in remaining} <= {InstanceState.REMOVING}
                await self.begin()
            case "limit":
                await store.update_pool(NS, self.pool_id, None, lambda pool: replace(pool, max_containers=number), None)
            case "ready" if one in instances and instances[one].state in (
                InstanceState.CREATING,
                InstanceState.STARTING,
            ):
                assert await store.instance_ready(one, ADDRESS, b.T0, 1.0) is not None
            case "fail":
                await store.launch_failed(one, b.end(TerminationReason.FAILED), b.failure())
            case "end":
                await store.end_instances([one], IN_USE | {InstanceState.WARM}, b.end())
            case "remove" if one in instances and instances[one].state is InstanceState.REMOVING:
                await store.instance_removed(one, b.T0)

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
        ids = {instance.id for instance in result.instances}
        assert len(ids) == number
        assert not ids & self.owned
        assert {instance.spec for instance in result.instances} == {view.pool.spec}
        self.owned |= ids
        self.hits += number - missing
        self.misses += missing

    async def claim_warm(self, number: int) -> None:
        """Claim only warm instances."""
        view = await self.store.get_pool(NS, self.pool_id)
        try:
            result = await self.store.claim(b.claim_request(number, pool_ref=self.pool_id, cold=False))
        except Exhausted:
            assert view.counts.warm < number
            return
        assert view.counts.warm >= number
        ids = {instance.id for instance in result.instances}
        assert not ids & self.owned
        self.owned |= ids
        self.hits += number

    async def release(self, one: str, instance: Instance | None) -> None:
        released = await self.store.release([one])
        active = instance is not None and instance.state is InstanceState.ACTIVE
        assert [instance.id for instance in released] == ([one] if active else [])
        if active and instance is not None and instance.claim is not None:
            self.released.add(one)
            if instance.claim.start_type is StartType.WARM:
                self.hits -= 1
            else:
                self.misses -= 1

    async def change_secret(self, what: str, number: int, pool: Pool) -> None:
        """Create, delete (with or without force), or reference the secret, and check the expected result."""
        store, force = self.store, bool(number)
        named = bool(pool.spec.secret_names)
        try:
            if what == "create secret":
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
            assert what == "create secret"
            assert self.secret
        except FailedPrecondition:
            assert what == "delete secret"
            assert self.secret
            assert named
            assert not force
        except NotFound:
            assert not self.secret

    async def begin(self) -> None:
        """Continue with a new pool."""
        draft = b.pool_draft(warm_containers=3, max_containers=5, image_refresh_interval_secs=30)
        self.pool_id = (await self.store.create_pool(draft, None)).pool.id
        self.hits = self.misses = 0

    async def check(self) -> None:
        view = await self.store.get_pool(NS, self.pool_id)
        all_instances = await self.store.live_instances()
        assert {instance.id for instance in all_instances if instance.claim} <= self.owned - self.released
        instances = [instance for instance in all_instances if instance.pool_id == self.pool_id]
        assert view.counts.total == len(instances)
        assert view.counts.active == sum(instance.state is InstanceState.ACTIVE for instance in instances)
        assert (view.pool.hits, view.pool.misses) == (self.hits, self.misses)
        [snapshot] = await self.store.snapshot(frozenset({self.pool_id}))
        assert [instance.id for instance in snapshot.instances] == sorted(instance.id for instance in instances)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEP, min_size=5, max_size=30))
def test_counts_are_correct_after_every_step(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = SqlStore(f"sqlite:///{directory}/x.db", lambda _: None, b.ManualClock())
            await store.open()
            history = History(store)
            await history.begin()
            for what, number in steps:
                await history.step(what, number)
                await history.check()
            await store.close()

    asyncio.run(run())
