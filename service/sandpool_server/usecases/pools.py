"""What the calls on pools mean."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from sandpool_server.domain.errors import FieldViolation, InvalidArgument, NotFound
from sandpool_server.domain.ids import POOL, new_id
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Pool, PoolView, PullPolicy
from sandpool_server.ports import Clock, Line, PoolDraft, Runtime, Store
from sandpool_server.usecases.changes import ChangeHub, image_change
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.specs import changed_spec, spec_of
from sandpool_server.usecases.templates import request_key
from sandpool_server.usecases.values import UNSET, NewPool, PoolChanges, WatchEvent

_WATCH_PAGE = 200


class Pools:
    """Pools of ready containers. Every method raises domain errors, as `ports.Store` says."""

    def __init__(self, store: Store, runtime: Runtime, clock: Clock, changes: ChangeHub, line: Line) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._changes = changes
        self._line = line

    async def create(self, new: NewPool, request_id: str, fingerprint: str) -> PoolView:
        """Keep a new pool; the control loop begins to fill it."""
        now = self._clock.now()
        draft = PoolDraft(
            id=new_id(POOL, now, self._clock.random_bits()),
            namespace=DEFAULT_NAMESPACE,
            name=new.name,
            template_ref=new.template_name,
            spec=None if new.template_name else spec_of(new.spec),
            timeout_secs=new.timeout_secs if new.template_name else new.timeout_secs or 0,
            warm_containers=new.warm_containers,
            max_containers=new.max_containers,
            paused=new.paused,
            create_time=now,
            pull_policy=new.pull_policy,
            image_check_secs=new.image_check_secs,
            max_age_secs=new.max_age_secs,
            drain=new.drain,
        )
        return self._seen(await self._store.create_pool(draft, request_key("CreatePool", request_id, fingerprint)))

    async def get(self, ref: str) -> PoolView:
        """Read one pool and count its members."""
        return self._seen(await self._store.get_pool(DEFAULT_NAMESPACE, ref))

    async def list(self, limit: int, after: str) -> list[PoolView]:
        """Up to `limit` pools whose id sorts after `after`."""
        return [self._seen(view) for view in await self._store.list_pools(DEFAULT_NAMESPACE, limit, after)]

    async def update(self, ref: str, changes: PoolChanges, etag: str, request_id: str, fingerprint: str) -> PoolView:
        """Change a pool; unclaimed members of another spec are never handed out from the moment this returns."""
        now = self._clock.now()

        def change(pool: Pool) -> Pool:
            return replace(_changed_pool(pool, changes), update_time=now)

        key = request_key("UpdatePool", request_id, fingerprint)
        return self._seen(await self._store.update_pool(DEFAULT_NAMESPACE, ref, version_of(etag), change, key))

    async def delete(self, ref: str, etag: str, request_id: str, fingerprint: str, force: bool) -> None:
        """Delete a pool of which no sandbox is in use, or with `force` any, ending those, and its containers."""
        key = request_key("DeletePool", request_id, fingerprint)
        await self._store.delete_pool(DEFAULT_NAMESPACE, ref, version_of(etag), self._clock.now(), key, force)

    def _seen(self, view: PoolView) -> PoolView:
        """The view with what only this process knows."""
        return replace(
            view,
            waiting=self._line.waiting(view.pool.id),
            pull=self._runtime.pulls().get(view.pool.spec.image),
            disk_enforcement=self._runtime.disk_enforcement,
        )

    async def watch(self, refs: tuple[str, ...]) -> AsyncGenerator[tuple[WatchEvent, PoolView | None], None]:
        """The pools of `refs` (none: all) as they are, a bookmark, and then each as it changes.

        Changes in quick succession may come as one; the last state always comes. Raises `NotFound` at the start.
        """
        with self._changes.subscribe() as subscription:
            known: dict[str, PoolView] = {}
            for view in [await self.get(ref) for ref in dict.fromkeys(refs)] if refs else await self._all():
                if view.pool.id not in known:
                    known[view.pool.id] = view
                    yield WatchEvent.PRESENT, view
            yield WatchEvent.BOOKMARK, None
            while True:
                changed = await subscription.next()
                pulled = {i for i, view in known.items() if image_change(view.pool.spec.image) in changed}
                for pool_id in sorted(pulled | {i for i in changed if i.startswith(f"{POOL}-")}):
                    if refs and pool_id not in known:
                        continue
                    try:
                        view = await self.get(pool_id)
                    except NotFound:
                        if (last := known.pop(pool_id, None)) is not None:
                            yield WatchEvent.DELETED, last
                        continue
                    if view != known.get(pool_id):
                        known[pool_id] = view
                        yield WatchEvent.CHANGED, view

    async def _all(self) -> tuple[PoolView, ...]:
        views: tuple[PoolView, ...] = ()
        while page := await self.list(_WATCH_PAGE, views[-1].pool.id if views else ""):
            views += tuple(page)
        return views


def _changed_pool(pool: Pool, changes: PoolChanges) -> Pool:
    """The pool after the changes. Raises `InvalidArgument` where they do not go together with the rest of it."""
    if pool.template_id and (given := changes.spec.given()):
        raise InvalidArgument(
            *(
                FieldViolation(name, f"comes from the template {pool.template_name!r}; change the template instead")
                for name in given
            )
        )
    warm = pool.warm_containers if changes.warm_containers is UNSET else changes.warm_containers or 0
    most = pool.max_containers if changes.max_containers is UNSET else changes.max_containers
    if most is not None and warm > most:
        field = "max_containers" if changes.warm_containers is UNSET else "warm_containers"
        raise InvalidArgument(
            FieldViolation(field, f"warm_containers ({warm}) must not exceed max_containers ({most}); change both")
        )
    timeout = pool.own_timeout_secs if changes.timeout_secs is UNSET else changes.timeout_secs
    return replace(
        pool,
        name=pool.name if changes.name is UNSET else changes.name or "",
        spec=changed_spec(pool.spec, changes.spec),
        own_timeout_secs=timeout if pool.template_id else timeout or 0,
        warm_containers=warm,
        max_containers=most,
        paused=pool.paused if changes.paused is UNSET else bool(changes.paused),
        pull_policy=(pool.pull_policy if changes.pull_policy is UNSET else changes.pull_policy or PullPolicy.MISSING),
        image_check_secs=(
            pool.image_check_secs if changes.image_check_secs is UNSET else changes.image_check_secs or 0
        ),
        max_age_secs=pool.max_age_secs if changes.max_age_secs is UNSET else changes.max_age_secs or 0,
        drain=pool.drain if changes.drain is UNSET else bool(changes.drain),
    )
