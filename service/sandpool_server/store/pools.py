"""Operations on pools."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, MemberState
from sandpool_server.domain.model import EndReason, MemberEnd, Pool, PoolFailure, PoolView
from sandpool_server.ports import PoolDraft, RequestKey
from sandpool_server.store import lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.tables import MEMBERS, POOLS, TEMPLATES
from sandpool_server.store.writer import Transaction

_UNCLAIMED = frozenset({MemberState.CREATING, MemberState.WARM})

_LIST = (
    select(POOLS)
    .where(POOLS.c.namespace == bindparam("namespace"), POOLS.c.id > bindparam("after"), POOLS.c.delete_time.is_(None))
    .order_by(POOLS.c.id)
    .limit(bindparam("limit"))
)
_COUNT = (
    select(MEMBERS.c.pool_id, MEMBERS.c.state, MEMBERS.c.spec_digest, func.count().label("number"))
    .where(MEMBERS.c.state.in_(sorted(COUNTED)), MEMBERS.c.pool_id.in_(bindparam("ids", expanding=True)))
    .group_by(MEMBERS.c.pool_id, MEMBERS.c.state, MEMBERS.c.spec_digest)
)
_TALLY = Prepared(
    update(POOLS)
    .where(POOLS.c.id == bindparam("pool"))
    .values(hits=POOLS.c.hits + bindparam("more_hits"), misses=POOLS.c.misses + bindparam("more_misses"))
)


def create(tx: Transaction, draft: PoolDraft, request: RequestKey | None) -> PoolView:
    """See `Store.create_pool`."""
    if (done := lookups.answered(tx, draft.namespace, request)) is not None:
        return view(tx.connection, lookups.row_by_id(tx.connection, POOLS, "pool", done))
    template = lookups.find_template(tx.connection, draft.namespace, draft.template_ref) if draft.template_ref else None
    spec = rows.spec_of(template) if template else draft.spec
    if spec is None:
        raise ValueError("a pool's draft has either a specification or a template")
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
        pull_policy=draft.pull_policy,
        image_check_secs=draft.image_check_secs,
        max_age_secs=draft.max_age_secs,
        drain=draft.drain,
    )
    with unique_name("pool", POOLS, pool.name):
        tx.connection.execute(insert(POOLS), rows.pool_values(pool))
    lookups.remember(tx, pool.namespace, request, pool.id, draft.create_time)
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
    """The pool in a row with its members counted."""
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
    if (done := lookups.answered(tx, namespace, request)) is not None:
        return view(tx.connection, lookups.row_by_id(tx.connection, POOLS, "pool", done))
    old = rows.pool_of(lookups.find_pool(tx.connection, namespace, ref))
    lookups.check_version("pool", ref, old.version, version)
    new = function(old)
    if new.spec.secret_names != old.spec.secret_names:
        lookups.check_secrets(tx.connection, namespace, new.spec.secret_names)
    values = {
        "name": new.name,
        **rows.respecified_values(replace(old, image_check_secs=new.image_check_secs), new.spec),
        "timeout_secs": _timeout_in_force(tx.connection, new),
        "own_timeout_secs": new.own_timeout_secs,
        "warm_containers": new.warm_containers,
        "max_containers": new.max_containers,
        "paused": new.paused,
        "pull_policy": new.pull_policy.value,
        "image_check_secs": new.image_check_secs,
        "max_age_secs": new.max_age_secs,
        "drain": new.drain,
        "version": old.version + 1,
        "update_time": new.update_time,
    }
    if (new.spec, new.pull_policy) != (old.spec, old.pull_policy) or (old.closed and not new.closed):
        values |= rows.NO_FAILURE
    with unique_name("pool", POOLS, new.name):
        row = tx.connection.execute(update(POOLS).where(POOLS.c.id == old.id).values(values).returning(POOLS)).one()
    lookups.remember(tx, namespace, request, old.id, now)
    tx.touched.add(old.id)
    return view(tx.connection, row)


def _timeout_in_force(connection: Connection, pool: Pool) -> int:
    if pool.own_timeout_secs is not None:
        return pool.own_timeout_secs
    if not pool.template_id:
        return 0
    return int(lookups.row_by_id(connection, TEMPLATES, "template", pool.template_id).timeout_secs)


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
    if lookups.answered(tx, namespace, request) is not None:
        return
    pool = rows.pool_of(lookups.find_pool(tx.connection, namespace, ref))
    lookups.check_version("pool", ref, pool.version, version)
    using = and_(MEMBERS.c.state.in_(sorted(IN_USE)), MEMBERS.c.pool_id == pool.id)
    number = tx.connection.execute(select(func.count()).select_from(MEMBERS).where(using)).scalar_one()
    if number and not force:
        some = tx.connection.execute(select(MEMBERS.c.id, MEMBERS.c.name).where(using).order_by(MEMBERS.c.id).limit(10))
        raise FailedPrecondition(
            "POOL_IN_USE",
            f"pool {pool.name or pool.id!r} has {number} sandbox{'es' if number > 1 else ''} in use: "
            f"{lookups.named([(row.id, row.name) for row in some], number)}; delete them first, or set force",
            "pool",
            pool.id,
        )
    tx.connection.execute(update(POOLS).where(POOLS.c.id == pool.id).values(delete_time=now))
    ends = rows.end_values(MemberEnd(EndReason.DELETED, now))
    for states, end in ((_UNCLAIMED, {}), (IN_USE, ends)) if number else ((_UNCLAIMED, {}),):
        ended = tx.connection.execute(
            update(MEMBERS)
            .where(MEMBERS.c.state.in_(sorted(states)), MEMBERS.c.pool_id == pool.id)
            .values(state=MemberState.REMOVING.value, **end)
            .returning(MEMBERS.c.id)
        )
        tx.touched.update(ended.scalars())
    tx.touched.add(pool.id)
    lookups.remember(tx, namespace, request, pool.id, now)


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
    if new.member_digest() != old.member_digest():
        values |= rows.NO_FAILURE
    tx.connection.execute(update(POOLS).where(POOLS.c.id == pool_id).values(values))
    tx.touched.add(pool_id)


def set_failure(tx: Transaction, pool_id: str, spec_digest: str, failure: PoolFailure | None) -> None:
    """Write or forget the failure of the pool, if that lives and its members are still made of what the digest says."""
    written = tx.connection.execute(
        update(POOLS)
        .where(POOLS.c.id == pool_id, POOLS.c.spec_digest == spec_digest, POOLS.c.delete_time.is_(None))
        .values(rows.failure_values(failure))
    )
    if written.rowcount:
        tx.touched.add(pool_id)


def write_tally(tx: Transaction) -> None:
    """Add the hits and misses of all operations of a batch to their pools, one write for each pool."""
    tally = [
        {"pool": pool_id, "more_hits": tx.hits[pool_id], "more_misses": tx.misses[pool_id]}
        for pool_id in sorted(tx.hits.keys() | tx.misses.keys())
    ]
    for more in tally:
        _TALLY.run(tx.connection, more)
