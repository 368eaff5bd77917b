"""Operations on pools."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, InstanceState
from sandpool_server.domain.model import Pool, PoolFailure, PoolView, Termination, TerminationReason
from sandpool_server.interfaces import PoolDraft, RequestKey
from sandpool_server.store import lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.tables import INSTANCES, POOLS, TEMPLATES
from sandpool_server.store.writer import Transaction

_UNCLAIMED = frozenset({InstanceState.CREATING, InstanceState.WARM})

_LIST = (
    select(POOLS)
    .where(POOLS.c.namespace == bindparam("namespace"), POOLS.c.id > bindparam("after"), POOLS.c.delete_time.is_(None))
    .order_by(POOLS.c.id)
    .limit(bindparam("limit"))
)
_COUNT = (
    select(INSTANCES.c.pool_id, INSTANCES.c.state, INSTANCES.c.spec_digest, func.count().label("number"))
    .where(INSTANCES.c.state.in_(sorted(COUNTED)), INSTANCES.c.pool_id.in_(bindparam("ids", expanding=True)))
    .group_by(INSTANCES.c.pool_id, INSTANCES.c.state, INSTANCES.c.spec_digest)
)
_ADD_TALLY = Prepared(
    update(POOLS)
    .where(POOLS.c.id == bindparam("pool"))
    .values(hits=POOLS.c.hits + bindparam("more_hits"), misses=POOLS.c.misses + bindparam("more_misses"))
)


def create(tx: Transaction, draft: PoolDraft, request: RequestKey | None) -> PoolView:
    """See `Store.create_pool`."""
    if (done := lookups.replayed_resource_id(tx, draft.namespace, request)) is not None:
        return view(tx.connection, lookups.row_by_id(tx.connection, POOLS, "pool", done))
    template = lookups.find_template(tx.connection, draft.namespace, draft.template_ref) if draft.template_ref else None
    spec = rows.spec_of(template) if template else draft.spec
    if spec is None:
        raise ValueError("a draft of a pool must have a specification or a template")
    lookups.check_secrets(tx.connection, draft.namespace, spec.secret_names)
    inherited = template.timeout_secs if template else 0
    pool = Pool(
        id=draft.id,
        namespace=draft.namespace,
        name=draft.name,
        template_id=template.id if template else "",
        template_name=template.name if template else "",
        spec=spec,
        timeout_secs=inherited if draft.timeout_secs is None else draft.timeout_secs,
        own_timeout_secs=draft.timeout_secs,
        warm_containers=draft.warm_containers,
        max_containers=draft.max_containers,
        paused=draft.paused,
        version=1,
        create_time=draft.create_time,
        update_time=draft.create_time,
        image_refresh_interval_secs=draft.image_refresh_interval_secs,
        warm_ttl_secs=draft.warm_ttl_secs,
        drained=draft.drained,
    )
    with unique_name("pool", POOLS, pool.name):
        tx.connection.execute(insert(POOLS), rows.pool_values(pool))
    lookups.record_request(tx, pool.namespace, request, pool.id, draft.create_time)
    tx.touched.add(pool.id)
    return PoolView(pool, rows.counts_of("", ()))


def get(connection: Connection, namespace: str, ref: str) -> PoolView:
    """See `Store.get_pool`."""
    return view(connection, lookups.find_pool(connection, namespace, ref))


def page(connection: Connection, namespace: str, limit: int, after: str) -> list[PoolView]:
    """See `Store.list_pools`."""
    found = connection.execute(_LIST, {"namespace": namespace, "after": after, "limit": limit}).all()
    return _views(connection, found)


def view(connection: Connection, row: rows.AnyRow) -> PoolView:
    """Return the pool in a row with the counts of its instances."""
    return _views(connection, [row])[0]


def _views(connection: Connection, found: Iterable[rows.AnyRow]) -> list[PoolView]:
    pools = list(found)
    groups: defaultdict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for row in connection.execute(_COUNT, {"ids": [pool.id for pool in pools]}):
        groups[row.pool_id].append((row.state, row.spec_digest, row.number))
    return [PoolView(rows.pool_of(pool), rows.counts_of(pool.spec_digest, groups[pool.id])) for pool in pools]


def change(
    tx: Transaction,
    namespace: str,
    ref: str,
    version: int | None,
    function: Callable[[Pool], Pool],
    request: RequestKey | None,
    now: datetime,
) -> PoolView:
    """See `Store.update_pool`."""
    if (done := lookups.replayed_resource_id(tx, namespace, request)) is not None:
        return view(tx.connection, lookups.row_by_id(tx.connection, POOLS, "pool", done))
    old = rows.pool_of(lookups.find_pool(tx.connection, namespace, ref))
    lookups.check_version("pool", ref, old.version, version)
    new = function(old)
    if new.spec.secret_names != old.spec.secret_names:
        lookups.check_secrets(tx.connection, namespace, new.spec.secret_names)
    values = {
        "name": new.name,
        **rows.respecified_values(replace(old, image_refresh_interval_secs=new.image_refresh_interval_secs), new.spec),
        "timeout_secs": _timeout_in_force(tx.connection, new),
        "own_timeout_secs": new.own_timeout_secs,
        "warm_containers": new.warm_containers,
        "max_containers": new.max_containers,
        "paused": new.paused,
        "image_refresh_interval_secs": new.image_refresh_interval_secs,
        "warm_ttl_secs": new.warm_ttl_secs,
        "drained": new.drained,
        "version": old.version + 1,
        "update_time": new.update_time,
    }
    if new.spec != old.spec or (old.closed and not new.closed):
        values |= rows.NO_FAILURE
    with unique_name("pool", POOLS, new.name):
        row = tx.connection.execute(update(POOLS).where(POOLS.c.id == old.id).values(values).returning(POOLS)).one()
    lookups.record_request(tx, namespace, request, old.id, now)
    tx.touched.add(old.id)
    return view(tx.connection, row)


def _timeout_in_force(connection: Connection, pool: Pool) -> float:
    if pool.own_timeout_secs is not None:
        return pool.own_timeout_secs
    if not pool.template_id:
        return 0
    return float(lookups.row_by_id(connection, TEMPLATES, "template", pool.template_id).timeout_secs)


def delete(
    tx: Transaction,
    namespace: str,
    ref: str,
    version: int | None,
    now: datetime,
    request: RequestKey | None,
    force: bool,
) -> None:
    """See `Store.delete_pool`."""
    if lookups.replayed_resource_id(tx, namespace, request) is not None:
        return
    pool = rows.pool_of(lookups.find_pool(tx.connection, namespace, ref))
    lookups.check_version("pool", ref, pool.version, version)
    in_use = and_(INSTANCES.c.state.in_(sorted(IN_USE)), INSTANCES.c.pool_id == pool.id)
    number = tx.connection.execute(select(func.count()).select_from(INSTANCES).where(in_use)).scalar_one()
    if number and not force:
        some = tx.connection.execute(
            select(INSTANCES.c.id, INSTANCES.c.name).where(in_use).order_by(INSTANCES.c.id).limit(10)
        )
        raise FailedPrecondition(
            "POOL_IN_USE",
            f"pool {pool.name or pool.id!r} has {number} sandbox{'es' if number > 1 else ''} in use: "
            f"{lookups.format_names([(row.id, row.name) for row in some], number)}; delete them first, or use force",
            "pool",
            pool.id,
        )
    tx.connection.execute(update(POOLS).where(POOLS.c.id == pool.id).values(delete_time=now))
    deleted = rows.termination_values(Termination(TerminationReason.DELETED, now))
    for states, values in ((_UNCLAIMED, {}), (IN_USE, deleted)) if number else ((_UNCLAIMED, {}),):
        changed = tx.connection.execute(
            update(INSTANCES)
            .where(INSTANCES.c.state.in_(sorted(states)), INSTANCES.c.pool_id == pool.id)
            .values(state=InstanceState.REMOVING.value, **values)
            .returning(INSTANCES.c.id)
        )
        tx.touched.update(changed.scalars())
    tx.touched.add(pool.id)
    lookups.record_request(tx, namespace, request, pool.id, now)


def image(tx: Transaction, pool_id: str, name: str, digest: str | None, now: datetime) -> None:
    """See `Store.pool_image`."""
    row = tx.connection.execute(select(POOLS).where(POOLS.c.id == pool_id, POOLS.c.delete_time.is_(None))).first()
    if row is None:
        return
    old = rows.pool_of(row)
    if old.spec.image != name:
        return
    new = replace(old, image_check_time=now, image_digest=old.image_digest if digest is None else digest)
    values = rows.respecified_values(new, new.spec)
    if new.instance_digest() != old.instance_digest():
        values |= rows.NO_FAILURE
    tx.connection.execute(update(POOLS).where(POOLS.c.id == pool_id).values(values))
    tx.touched.add(pool_id)


def set_failure(tx: Transaction, pool_id: str, spec_digest: str, failure: PoolFailure | None) -> None:
    """Write or clear the failure of the pool, if the pool is not deleted and has the digest `spec_digest`."""
    written = tx.connection.execute(
        update(POOLS)
        .where(POOLS.c.id == pool_id, POOLS.c.spec_digest == spec_digest, POOLS.c.delete_time.is_(None))
        .values(rows.failure_values(failure))
    )
    if written.rowcount:
        tx.touched.add(pool_id)


def write_tally(tx: Transaction) -> None:
    """Add the hits and misses of a batch to their pools, with one write per pool."""
    tally = [
        {"pool": pool_id, "more_hits": tx.hits[pool_id], "more_misses": tx.misses[pool_id]}
        for pool_id in sorted(tx.hits.keys() | tx.misses.keys())
    ]
    for values in tally:
        _ADD_TALLY.run(tx.connection, values)
