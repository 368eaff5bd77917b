"""Operations on sandboxes: members that somebody has claimed."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, bindparam, or_, select, update

from sandpool_server.domain.errors import FailedPrecondition, NotFound
from sandpool_server.domain.ids import SANDBOX
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, MemberState, check_transition
from sandpool_server.domain.model import EndReason, Member, MemberEnd
from sandpool_server.ports import RequestKey, SandboxFilter
from sandpool_server.store import dialect, lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.lookups import EMPTY
from sandpool_server.store.tables import MEMBERS
from sandpool_server.store.writer import Transaction

# A row that is gone and does not say when is kept for a retry of its request alone; see `purging`.
_CLAIMED = select(MEMBERS).where(
    MEMBERS.c.namespace == bindparam("namespace"),
    MEMBERS.c.claim_time.is_not(None),
    or_(MEMBERS.c.state != MemberState.GONE.value, MEMBERS.c.gone_time.is_not(None)),
)
_BY_ID = _CLAIMED.where(MEMBERS.c.id == bindparam("ref"))
_BY_NAME = (
    _CLAIMED.where(MEMBERS.c.name == bindparam("ref"), MEMBERS.c.name != EMPTY)
    .order_by(MEMBERS.c.state.in_(sorted(IN_USE)).desc(), MEMBERS.c.claim_time.desc(), MEMBERS.c.id.desc())
    .limit(1)
)


def get(connection: Connection, namespace: str, ref: str) -> Member:
    """See `Store.get_sandbox`."""
    values = {"namespace": namespace, "ref": ref}
    row = connection.execute(_BY_ID, values).first() if ref.startswith(f"{SANDBOX}-") else None
    row = row or connection.execute(_BY_NAME, values).first()
    if row is None:
        raise NotFound("sandbox", ref)
    return rows.member_of(row)


def page(connection: Connection, namespace: str, which: SandboxFilter, limit: int, after: str) -> list[Member]:
    """See `Store.list_sandboxes`."""
    states = which.states or COUNTED
    query = _CLAIMED.where(MEMBERS.c.id > after, MEMBERS.c.state.in_(sorted(states)))
    if which.pool_ref:
        query = query.where(MEMBERS.c.pool_id == lookups.find_pool(connection, namespace, which.pool_ref).id)
    if which.template_ref:
        template = lookups.find_template(connection, namespace, which.template_ref)
        query = query.where(MEMBERS.c.template_id == template.id)
    for key, value in sorted(which.metadata.items()):
        query = query.where(dialect.json_has(MEMBERS.c.metadata, key, value))
    found = connection.execute(query.order_by(MEMBERS.c.id).limit(limit), {"namespace": namespace})
    return [rows.member_of(row) for row in found]


def change(
    tx: Transaction,
    namespace: str,
    ref: str,
    version: int | None,
    function: Callable[[Member], Member],
    request: RequestKey | None,
    now: datetime,
) -> Member:
    """See `Store.update_sandbox`."""
    if (done := lookups.answered(tx, namespace, request)) is not None:
        return get(tx.connection, namespace, done)
    old = get(tx.connection, namespace, ref)
    if old.state not in IN_USE:
        raise FailedPrecondition(
            "SANDBOX_ENDED", f"sandbox {ref!r} has ended and cannot be changed any more", "sandbox", old.id
        )
    lookups.check_version("sandbox", ref, old.version, version)
    claim = function(old).claim
    if claim is None:
        raise ValueError("a change does not take a sandbox's claim away")
    values = {
        "name": claim.name,
        "metadata": dict(claim.metadata),
        "timeout_secs": claim.timeout_secs,
        "expire_time": claim.expire_time,
        "version": old.version + 1,
    }
    with unique_name("sandbox", MEMBERS, claim.name):
        row = tx.connection.execute(
            update(MEMBERS).where(MEMBERS.c.id == old.id).values(values).returning(MEMBERS)
        ).one()
    lookups.remember(tx, namespace, request, old.id, now)
    tx.touched |= {old.id, old.pool_id} - {""}
    return rows.member_of(row)


def delete(tx: Transaction, namespace: str, ref: str, now: datetime, request: RequestKey | None) -> Member:
    """See `Store.delete_sandbox`."""
    if (done := lookups.answered(tx, namespace, request)) is not None:
        return get(tx.connection, namespace, done)
    member = get(tx.connection, namespace, ref)
    lookups.remember(tx, namespace, request, member.id, now)
    if member.state not in IN_USE:
        return member
    check_transition(member.state, MemberState.REMOVING)
    values = {"state": MemberState.REMOVING.value, **rows.end_values(MemberEnd(EndReason.DELETED, now))}
    row = tx.connection.execute(
        update(MEMBERS).where(MEMBERS.c.id == member.id).values(values).returning(MEMBERS)
    ).one()
    tx.touched |= {member.id, member.pool_id} - {""}
    return rows.member_of(row)
