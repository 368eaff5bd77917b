"""Operations of the control loop: what the planner sees, and what the executor writes."""

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

from sandpool_server.domain.lifecycle import COUNTED, MemberState, check_transition
from sandpool_server.domain.model import Member, MemberEnd, PoolFailure, PullPolicy, StartKind
from sandpool_server.domain.plan import MemberSnapshot, PoolSnapshot, wanted_warm
from sandpool_server.store import pools, rows
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import MEMBERS, POOLS, utc_time
from sandpool_server.store.writer import Transaction

_LIVING = MEMBERS.c.state.in_(sorted(COUNTED))
_STATES = {state.value: state for state in MemberState}


def snapshot(connection: Connection, pool_ids: frozenset[str] | None) -> list[PoolSnapshot]:
    """See `Store.snapshot`."""
    wanted = true() if pool_ids is None else POOLS.c.id.in_(pool_ids)
    found = connection.execute(select(POOLS).where(wanted).order_by(POOLS.c.id)).all()
    # As the plain numbers they are kept as: the way through the columns' type is most of the work on a thousand rows.
    query = select(
        MEMBERS.c.pool_id,
        MEMBERS.c.id,
        MEMBERS.c.state,
        MEMBERS.c.spec_digest,
        type_coerce(MEMBERS.c.expire_time, BigInteger),
        type_coerce(MEMBERS.c.create_time, BigInteger),
    ).where(_LIVING)
    if pool_ids is not None:
        of_pools = MEMBERS.c.pool_id.in_(pool_ids)
        query = query.where(or_(of_pools, MEMBERS.c.pool_id.is_(None)) if "" in pool_ids else of_pools)
    members: defaultdict[str, list[MemberSnapshot]] = defaultdict(list)
    for pool_id, member_id, state, digest, expires, created in connection.execute(query.order_by(MEMBERS.c.id)).all():
        members[pool_id or ""].append(
            MemberSnapshot(
                member_id,
                _STATES[state],
                digest,
                None if expires is None else utc_time(expires),
                utc_time(created),
            )
        )
    seen = [
        _snapshot_of(pool, members.get(pool.id, ())) for pool in found if not pool.delete_time or pool.id in members
    ]
    if pool_ids is None or "" in pool_ids:
        seen.append(PoolSnapshot("", members=tuple(members.get("", ()))))
    return seen


def _snapshot_of(pool: AnyRow, members: Sequence[MemberSnapshot]) -> PoolSnapshot:
    return PoolSnapshot(
        id=pool.id,
        spec_digest=pool.spec_digest,
        warm_containers=pool.warm_containers,
        max_containers=pool.max_containers,
        paused=pool.paused,
        drain=pool.drain,
        deleted=pool.delete_time is not None,
        max_age_secs=pool.max_age_secs,
        image=rows.spec_of(pool).image,
        image_check_secs=pool.image_check_secs,
        image_digest=pool.image_digest,
        image_check_time=pool.image_check_time,
        failure=rows.failure_of(pool),
        members=tuple(members),
    )


def add(
    tx: Transaction, pool_id: str, spec_digest: str, ids: Sequence[str], now: datetime, waiting: int
) -> list[Member]:
    """See `Store.add_members`."""
    pool = tx.connection.execute(select(POOLS).where(POOLS.c.id == pool_id)).first()
    if pool is None or rows.pool_of(pool).closed or pool.spec_digest != spec_digest:
        return []
    # Counted by the database, for claims wait while this transaction lasts.
    groups = tx.connection.execute(
        select(MEMBERS.c.state, MEMBERS.c.spec_digest, func.count())
        .where(_LIVING, MEMBERS.c.pool_id == pool_id)
        .group_by(MEMBERS.c.state, MEMBERS.c.spec_digest)
    )
    alike = [repeat(MemberSnapshot("", _STATES[state], digest), count) for state, digest, count in groups]
    seen = _snapshot_of(pool, tuple(chain.from_iterable(alike)))
    fresh = sum(
        member.state in (MemberState.WARM, MemberState.CREATING) and member.spec_digest == spec_digest
        for member in seen.members
    )
    number = wanted_warm(seen, waiting) - fresh
    if pool.max_containers is not None:
        number = min(number, pool.max_containers - len(seen.members))
    members = [
        Member(
            id=member_id,
            namespace=pool.namespace,
            pool_id=pool.id,
            template_id=pool.template_id or "",
            template_name=pool.template_name,
            spec=rows.spec_of(pool),
            state=MemberState.CREATING,
            version=1,
            create_time=now,
            spec_digest=spec_digest,
            pull_policy=PullPolicy(pool.pull_policy),
        )
        for member_id in ids[: max(0, number)]
    ]
    if members:
        tx.connection.execute(insert(MEMBERS), [rows.member_values(member) for member in members])
        tx.touched.update(member.id for member in members)
        tx.touched.add(pool_id)
    return members


def ready(tx: Transaction, member_id: str, address: str, start_secs: float) -> Member | None:
    """See `Store.member_ready`."""
    row = _row(tx.connection, member_id)
    if row is None or row.state in (MemberState.REMOVING, MemberState.GONE):
        return None
    starting = row.state == MemberState.STARTING
    state = MemberState.ACTIVE if starting else MemberState.WARM
    check_transition(MemberState(row.state), state)
    values = {"state": state.value, "address": address, "start_secs": start_secs if starting else None}
    member = _write(tx, row, values)
    if row.pool_id is not None:
        pools.set_failure(tx, row.pool_id, row.spec_digest, None)
    return member


def launch_failed(tx: Transaction, member_id: str, end: MemberEnd, failure: PoolFailure | None) -> Member | None:
    """See `Store.launch_failed`."""
    row = _row(tx.connection, member_id)
    if row is None or row.state not in (MemberState.CREATING, MemberState.STARTING):
        return None
    check_transition(MemberState(row.state), MemberState.REMOVING)
    values = {"state": MemberState.REMOVING.value}
    if row.claim_time is not None:
        values |= rows.end_values(end)
    if failure is not None and row.pool_id is not None:
        pools.set_failure(tx, row.pool_id, row.spec_digest, failure)
    return _write(tx, row, values)


def _row(connection: Connection, member_id: str) -> AnyRow | None:
    return connection.execute(select(MEMBERS).where(MEMBERS.c.id == member_id)).first()


def _write(tx: Transaction, row: AnyRow, values: rows.Values) -> Member:
    """Write these columns of the member and return it as it is then."""
    written = tx.connection.execute(
        update(MEMBERS).where(MEMBERS.c.id == row.id).values(values).returning(MEMBERS)
    ).one()
    tx.touched |= {row.id, row.pool_id or ""} - {""}
    return rows.member_of(written)


def end(
    tx: Transaction,
    ids: Sequence[str],
    states: frozenset[MemberState],
    how: MemberEnd,
    expired_at: datetime | None,
) -> list[Member]:
    """See `Store.end_members`."""
    for state in states:
        check_transition(state, MemberState.REMOVING)
    which: list[ColumnElement[bool]] = [MEMBERS.c.id.in_(list(ids)), MEMBERS.c.state.in_(sorted(states))]
    if expired_at is not None:
        which.append(MEMBERS.c.expire_time <= expired_at)
    found: list[AnyRow] = []
    for claimed, values in ((True, rows.end_values(how)), (False, {})):
        these = MEMBERS.c.claim_time.is_not(None) if claimed else MEMBERS.c.claim_time.is_(None)
        ended = update(MEMBERS).where(*which, these).values(state=MemberState.REMOVING.value, **values)
        found += tx.connection.execute(ended.returning(MEMBERS)).all()
    for row in found:
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    return [rows.member_of(row) for row in sorted(found, key=lambda row: row.id)]


def disown(tx: Transaction, ids: Sequence[str]) -> list[Member]:
    """See `Store.disown`."""
    check_transition(MemberState.ACTIVE, MemberState.REMOVING)
    these = and_(MEMBERS.c.id.in_(list(ids)), MEMBERS.c.state == MemberState.ACTIVE.value)
    for row in tx.connection.execute(select(MEMBERS.c.pool_id, MEMBERS.c.start).where(these)).all():
        if row.pool_id is not None:
            (tx.hits if row.start == StartKind.WARM else tx.misses)[row.pool_id] -= 1
    values = {
        "state": MemberState.REMOVING.value,
        **rows.claim_values(None),
        "request_fingerprint": "",
        "start_secs": None,
    }
    found = tx.connection.execute(update(MEMBERS).where(these).values(values).returning(MEMBERS)).all()
    for row in found:
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    return [rows.member_of(row) for row in sorted(found, key=lambda row: row.id)]


def removed(tx: Transaction, member_id: str, now: datetime) -> None:
    """See `Store.member_removed`."""
    row = _row(tx.connection, member_id)
    if row is None or row.state == MemberState.GONE:
        return
    check_transition(MemberState(row.state), MemberState.GONE)
    if row.claim_time is None:
        tx.connection.execute(delete(MEMBERS).where(MEMBERS.c.id == row.id))
        tx.touched |= {row.id, row.pool_id or ""} - {""}
    else:
        _write(tx, row, {"state": MemberState.GONE.value, "gone_time": now})


def living(connection: Connection) -> list[Member]:
    """See `Store.live_members`."""
    return [rows.member_of(row) for row in connection.execute(select(MEMBERS).where(_LIVING).order_by(MEMBERS.c.id))]
