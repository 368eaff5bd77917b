"""The use cases of pools."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from sandpool_server.domain.errors import FieldViolation, InvalidArgument, NotFound
from sandpool_server.domain.ids import POOL, new_id
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Pool, PoolView
from sandpool_server.interfaces import Clock, PoolDraft, Runtime, Store, Waiters
from sandpool_server.usecases.changes import ChangeHub, image_change
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.specs import changed_spec, spec_of
from sandpool_server.usecases.templates import request_key
from sandpool_server.usecases.values import UNSET, NewPool, PoolChanges, WatchEvent

_WATCH_PAGE = 200


class Pools:
    """Pools of warm instances. The methods raise the domain errors that `interfaces.Store` documents."""

    def __init__(self, store: Store, runtime: Runtime, clock: Clock, changes: ChangeHub, queue: Waiters) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._changes = changes
        self._queue = queue

    async def create(self, new: NewPool, request_id: str, fingerprint: str) -> PoolView:
        """Create a pool and return it. The control loop starts to create its instances."""
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
            image_refresh_interval_secs=new.image_refresh_interval_secs,
            warm_ttl_secs=new.warm_ttl_secs,
            drained=new.drained,
        )
        key = request_key("CreatePool", request_id, fingerprint)
        return self._with_runtime_state(await self._store.create_pool(draft, key))

    async def get(self, ref: str) -> PoolView:
        """Return a pool and the counts of its instances."""
        return self._with_runtime_state(await self._store.get_pool(DEFAULT_NAMESPACE, ref))

    async def list(self, limit: int, after: str) -> list[PoolView]:
        """Return up to `limit` pools whose id sorts after `after`, sorted by id."""
        return [
            self._with_runtime_state(view) for view in await self._store.list_pools(DEFAULT_NAMESPACE, limit, after)
        ]

    async def update(self, ref: str, changes: PoolChanges, etag: str, request_id: str, fingerprint: str) -> PoolView:
        """Change a pool and return it. Claims after this call never get an instance of an earlier specification."""
        now = self._clock.now()

        def change(pool: Pool) -> Pool:
            return replace(_changed_pool(pool, changes), update_time=now)

        key = request_key("UpdatePool", request_id, fingerprint)
        return self._with_runtime_state(
            await self._store.update_pool(DEFAULT_NAMESPACE, ref, version_of(etag), change, key)
        )

    async def delete(self, ref: str, etag: str, request_id: str, fingerprint: str, force: bool) -> None:
        """Delete a pool and its containers.

        With `force`, the sandboxes of the pool are terminated. Without it, the pool must have no sandboxes.
        """
        key = request_key("DeletePool", request_id, fingerprint)
        await self._store.delete_pool(DEFAULT_NAMESPACE, ref, version_of(etag), self._clock.now(), key, force)

    def _with_runtime_state(self, view: PoolView) -> PoolView:
        """Return the view with the state that is not in the database: waiters, image pull, disk enforcement."""
        return replace(
            view,
            waiting=self._queue.waiting(view.pool.id),
            pull=self._runtime.pulls().get(view.pool.spec.image),
            disk_enforcement=self._runtime.disk_enforcement,
        )

    async def watch(self, refs: tuple[str, ...]) -> AsyncGenerator[tuple[WatchEvent, PoolView | None], None]:
        """Yield the current state of the pools in `refs`, then a bookmark, then each change. No `refs` means all pools.

        Several changes in quick succession can be reported as one; the last state is always reported.

        Raises:
            NotFound: at the start of the iteration, if a pool does not exist.
        """
        with self._changes.subscribe() as subscription:
            known: dict[str, PoolView] = {}
            for view in [await self.get(ref) for ref in dict.fromkeys(refs)] if refs else await self._all():
                if view.pool.id not in known:
                    known[view.pool.id] = view
                    yield WatchEvent.CURRENT, view
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
    """Return the pool after the changes.

    Raises:
        InvalidArgument: the changes are not valid together with the other settings of the pool.
    """
    if pool.template_id and changes.spec:
        raise InvalidArgument(
            *(
                FieldViolation(
                    f"spec.{name}", f"is defined by the template {pool.template_name!r}; update the template instead"
                )
                for name in changes.spec
            )
        )
    warm = pool.warm_containers if changes.warm_containers is UNSET else changes.warm_containers
    most = pool.max_containers if changes.max_containers is UNSET else changes.max_containers
    if most is not None and warm is not None and warm > most:
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
        image_refresh_interval_secs=(
            pool.image_refresh_interval_secs
            if changes.image_refresh_interval_secs is UNSET
            else changes.image_refresh_interval_secs or 0
        ),
        warm_ttl_secs=pool.warm_ttl_secs if changes.warm_ttl_secs is UNSET else changes.warm_ttl_secs or 0,
        drained=pool.drained if changes.drained is UNSET else bool(changes.drained),
    )
