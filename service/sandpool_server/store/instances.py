"""Operations of the control loop: snapshots for the planner, and changes of instances."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, repeat

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    type_coerce,
    update,
)

from sandpool_server.domain.lifecycle import COUNTED, InstanceState, check_transition
from sandpool_server.domain.model import Instance, PoolFailure, StartType, Termination
from sandpool_server.domain.plan import InstanceSnapshot, PoolSnapshot, desired_warm
from sandpool_server.store import pools, rows
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import INSTANCES, POOLS, utc_time
from sandpool_server.store.writer import Transaction

_EXISTING = INSTANCES.c.state.in_(sorted(COUNTED))
_STATES = {state.value: state for state in InstanceState}


def snapshot(connection: Connection, pool_ids: frozenset[str] | None) -> list[PoolSnapshot]:
    """See `Store.snapshot`."""
    selected = true() if pool_ids is None else POOLS.c.id.in_(pool_ids)
    found = connection.execute(select(POOLS).where(selected).order_by(POOLS.c.id)).all()
    # The times are read as the stored integers: the conversion by the type of the column is most of the cost.
    query = select(
        INSTANCES.c.pool_id,
        INSTANCES.c.id,
        INSTANCES.c.state,
        INSTANCES.c.spec_digest,
        type_coerce(INSTANCES.c.expire_time, BigInteger),
        type_coerce(INSTANCES.c.create_time, BigInteger),
    ).where(_EXISTING)
    if pool_ids is not None:
        of_pools = INSTANCES.c.pool_id.in_(pool_ids)
        query = query.where(or_(of_pools, INSTANCES.c.pool_id.is_(None)) if "" in pool_ids else of_pools)
    instances: defaultdict[str, list[InstanceSnapshot]] = defaultdict(list)
    for pool_id, instance_id, state, digest, expires, created in connection.execute(
        query.order_by(INSTANCES.c.id)
    ).all():
        instances[pool_id or ""].append(
            InstanceSnapshot(
                instance_id,
                _STATES[state],
                digest,
                None if expires is None else utc_time(expires),
                utc_time(created),
            )
        )
    snapshots = [
        _snapshot_of(pool, instances.get(pool.id, ())) for pool in found if not pool.delete_time or pool.id in instances
    ]
    if pool_ids is None or "" in pool_ids:
        snapshots.append(PoolSnapshot("", instances=tuple(instances.get("", ()))))
    return snapshots


def _snapshot_of(pool: AnyRow, instances: Sequence[InstanceSnapshot]) -> PoolSnapshot:
    return PoolSnapshot(
        id=pool.id,
        spec_digest=pool.spec_digest,
        warm_containers=pool.warm_containers or 0,
        max_containers=pool.max_containers,
        paused=pool.paused,
        drained=pool.drained,
        deleted=pool.delete_time is not None,
        warm_ttl_secs=pool.warm_ttl_secs,
        image=rows.spec_of(pool).image,
        image_refresh_interval_secs=pool.image_refresh_interval_secs,
        image_digest=pool.image_digest,
        image_check_time=pool.image_check_time,
        failure=rows.failure_of(pool),
        instances=tuple(instances),
    )


def add(
    tx: Transaction, pool_id: str, spec_digest: str, ids: Sequence[str], now: datetime, waiting: int
) -> list[Instance]:
    """See `Store.add_instances`."""
    pool = tx.connection.execute(select(POOLS).where(POOLS.c.id == pool_id)).first()
    if pool is None or rows.pool_of(pool).closed or pool.spec_digest != spec_digest:
        return []
    # The database counts the instances: claims wait for the end of this transaction.
    groups = tx.connection.execute(
        select(INSTANCES.c.state, INSTANCES.c.spec_digest, func.count())
        .where(_EXISTING, INSTANCES.c.pool_id == pool_id)
        .group_by(INSTANCES.c.state, INSTANCES.c.spec_digest)
    )
    groups_of_instances = [
        repeat(InstanceSnapshot("", _STATES[state], digest), count) for state, digest, count in groups
    ]
    current = _snapshot_of(pool, tuple(chain.from_iterable(groups_of_instances)))
    existing = sum(
        instance.state in (InstanceState.WARM, InstanceState.CREATING) and instance.spec_digest == spec_digest
        for instance in current.instances
    )
    number = desired_warm(current, waiting) - existing
    if pool.max_containers is not None:
        number = min(number, pool.max_containers - len(current.instances))
    instances = [
        Instance(
            id=instance_id,
            namespace=pool.namespace,
            pool_id=pool.id,
            template_id=pool.template_id or "",
            template_name=pool.template_name,
            spec=rows.spec_of(pool),
            state=InstanceState.CREATING,
            version=1,
            create_time=now,
            spec_digest=spec_digest,
        )
        for instance_id in ids[: max(0, number)]
    ]
    if instances:
        tx.connection.execute(insert(INSTANCES), [rows.instance_values(instance) for instance in instances])
        tx.touched.update(instance.id for instance in instances)
        tx.touched.add(pool_id)
    return instances


def ready(tx: Transaction, instance_id: str, address: str, start_secs: float) -> Instance | None:
    """See `Store.instance_ready`."""
    row = _row(tx.connection, instance_id)
    if row is None or row.state in (InstanceState.REMOVING, InstanceState.REMOVED):
        return None
    starting = row.state == InstanceState.STARTING
    state = InstanceState.ACTIVE if starting else InstanceState.WARM
    check_transition(InstanceState(row.state), state)
    values = {"state": state.value, "address": address, "start_secs": start_secs if starting else None}
    instance = _write(tx, row, values)
    if row.pool_id is not None:
        pools.set_failure(tx, row.pool_id, row.spec_digest, None)
    return instance


def launch_failed(tx: Transaction, instance_id: str, end: Termination, failure: PoolFailure | None) -> Instance | None:
    """See `Store.launch_failed`."""
    row = _row(tx.connection, instance_id)
    if row is None or row.state not in (InstanceState.CREATING, InstanceState.STARTING):
        return None
    check_transition(InstanceState(row.state), InstanceState.REMOVING)
    values = {"state": InstanceState.REMOVING.value}
    if row.claim_time is not None:
        values |= rows.termination_values(end)
    if failure is not None and row.pool_id is not None:
        pools.set_failure(tx, row.pool_id, row.spec_digest, failure)
    return _write(tx, row, values)


def _row(connection: Connection, instance_id: str) -> AnyRow | None:
    return connection.execute(select(INSTANCES).where(INSTANCES.c.id == instance_id)).first()


def _write(tx: Transaction, row: AnyRow, values: rows.Values) -> Instance:
    """Write these columns of the instance and return the changed instance."""
    written = tx.connection.execute(
        update(INSTANCES).where(INSTANCES.c.id == row.id).values(values).returning(INSTANCES)
    ).one()
    tx.touched |= {row.id, row.pool_id or ""} - {""}
    return rows.instance_of(written)


def end(
    tx: Transaction,
    ids: Sequence[str],
    states: frozenset[InstanceState],
    termination: Termination,
    expired_at: datetime | None,
) -> list[Instance]:
    """See `Store.end_instances`."""
    for state in states:
        check_transition(state, InstanceState.REMOVING)
    conditions: list[ColumnElement[bool]] = [INSTANCES.c.id.in_(list(ids)), INSTANCES.c.state.in_(sorted(states))]
    if expired_at is not None:
        conditions.append(INSTANCES.c.expire_time <= expired_at)
    found: list[AnyRow] = []
    for claimed, values in ((True, rows.termination_values(termination)), (False, {})):
        claim_condition = INSTANCES.c.claim_time.is_not(None) if claimed else INSTANCES.c.claim_time.is_(None)
        statement = update(INSTANCES).where(*conditions, claim_condition)
        statement = statement.values(state=InstanceState.REMOVING.value, **values)
        found += tx.connection.execute(statement.returning(INSTANCES)).all()
    for row in found:
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    return [rows.instance_of(row) for row in sorted(found, key=lambda row: row.id)]


def release(tx: Transaction, ids: Sequence[str]) -> list[Instance]:
    """See `Store.release`."""
    check_transition(InstanceState.ACTIVE, InstanceState.REMOVING)
    condition = and_(INSTANCES.c.id.in_(list(ids)), INSTANCES.c.state == InstanceState.ACTIVE.value)
    for row in tx.connection.execute(select(INSTANCES.c.pool_id, INSTANCES.c.start_type).where(condition)).all():
        if row.pool_id is not None:
            (tx.hits if row.start_type == StartType.WARM else tx.misses)[row.pool_id] -= 1
    values = {
        "state": InstanceState.REMOVING.value,
        **rows.claim_values(None),
        "request_fingerprint": "",
        "start_secs": None,
    }
    found = tx.connection.execute(update(INSTANCES).where(condition).values(values).returning(INSTANCES)).all()
    for row in found:
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    return [rows.instance_of(row) for row in sorted(found, key=lambda row: row.id)]


def removed(tx: Transaction, instance_id: str, now: datetime) -> None:
    """See `Store.instance_removed`."""
    row = _row(tx.connection, instance_id)
    if row is None or row.state == InstanceState.REMOVED:
        return
    check_transition(InstanceState(row.state), InstanceState.REMOVED)
    if row.claim_time is None:
        tx.connection.execute(delete(INSTANCES).where(INSTANCES.c.id == row.id))
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    else:
        _write(tx, row, {"state": InstanceState.REMOVED.value, "removed_time": now})


def live(connection: Connection) -> list[Instance]:
    """See `Store.live_instances`."""
    return [
        rows.instance_of(row) for row in connection.execute(select(INSTANCES).where(_EXISTING).order_by(INSTANCES.c.id))
    ]
