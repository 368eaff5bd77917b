"""Operations on sandboxes, that is on claimed instances."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, bindparam, or_, select, update

from sandpool_server.domain.errors import FailedPrecondition, NotFound
from sandpool_server.domain.ids import SANDBOX
from sandpool_server.domain.lifecycle import COUNTED, IN_USE, InstanceState, check_transition
from sandpool_server.domain.model import Instance, Termination, TerminationReason
from sandpool_server.interfaces import RequestKey, SandboxFilter
from sandpool_server.store import dialect, lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.lookups import EMPTY
from sandpool_server.store.tables import INSTANCES
from sandpool_server.store.writer import Transaction

# `purging` clears `removed_time` when the retention period of a sandbox expires. Such a row is hidden: it exists only
# for retries of its request.
_CLAIMED = select(INSTANCES).where(
    INSTANCES.c.namespace == bindparam("namespace"),
    INSTANCES.c.claim_time.is_not(None),
    or_(INSTANCES.c.state != InstanceState.REMOVED.value, INSTANCES.c.removed_time.is_not(None)),
)
_BY_ID = _CLAIMED.where(INSTANCES.c.id == bindparam("ref"))
_BY_NAME = (
    _CLAIMED.where(INSTANCES.c.name == bindparam("ref"), INSTANCES.c.name != EMPTY)
    .order_by(INSTANCES.c.state.in_(sorted(IN_USE)).desc(), INSTANCES.c.claim_time.desc(), INSTANCES.c.id.desc())
    .limit(1)
)


def get(connection: Connection, namespace: str, ref: str) -> Instance:
    """See `Store.get_sandbox`."""
    values = {"namespace": namespace, "ref": ref}
    row = connection.execute(_BY_ID, values).first() if ref.startswith(f"{SANDBOX}-") else None
    row = row or connection.execute(_BY_NAME, values).first()
    if row is None:
        raise NotFound("sandbox", ref)
    return rows.instance_of(row)


def page(connection: Connection, namespace: str, which: SandboxFilter, limit: int, after: str) -> list[Instance]:
    """See `Store.list_sandboxes`."""
    states = which.states or COUNTED
    query = _CLAIMED.where(INSTANCES.c.id > after, INSTANCES.c.state.in_(sorted(states)))
    if which.pool_ref:
        query = query.where(INSTANCES.c.pool_id == lookups.find_pool(connection, namespace, which.pool_ref).id)
    if which.template_ref:
        template = lookups.find_template(connection, namespace, which.template_ref)
        query = query.where(INSTANCES.c.template_id == template.id)
    for key, value in sorted(which.metadata.items()):
        query = query.where(dialect.json_has(INSTANCES.c.metadata, key, value))
    found = connection.execute(query.order_by(INSTANCES.c.id).limit(limit), {"namespace": namespace})
    return [rows.instance_of(row) for row in found]


def change(
    tx: Transaction,
    namespace: str,
    ref: str,
    version: int | None,
    function: Callable[[Instance], Instance],
    request: RequestKey | None,
    now: datetime,
) -> Instance:
    """See `Store.update_sandbox`."""
    if (done := lookups.replayed_resource_id(tx, namespace, request)) is not None:
        return get(tx.connection, namespace, done)
    old = get(tx.connection, namespace, ref)
    if old.state not in IN_USE:
        raise FailedPrecondition(
            "SANDBOX_TERMINATED",
            f"sandbox {ref!r} has terminated and cannot be changed; create a new one",
            "sandbox",
            old.id,
        )
    lookups.check_version("sandbox", ref, old.version, version)
    claim = function(old).claim
    if claim is None:
        raise ValueError("the change must not remove the claim of the sandbox")
    values = {
        "name": claim.name,
        "metadata": dict(claim.metadata),
        "timeout_secs": claim.timeout_secs,
        "expire_time": claim.expire_time,
        "version": old.version + 1,
    }
    with unique_name("sandbox", INSTANCES, claim.name):
        row = tx.connection.execute(
            update(INSTANCES).where(INSTANCES.c.id == old.id).values(values).returning(INSTANCES)
        ).one()
    lookups.record_request(tx, namespace, request, old.id, now)
    tx.touched |= {old.id, old.pool_id} - {""}
    return rows.instance_of(row)


def delete(tx: Transaction, namespace: str, ref: str, now: datetime, request: RequestKey | None) -> Instance:
    """See `Store.delete_sandbox`."""
    if (done := lookups.replayed_resource_id(tx, namespace, request)) is not None:
        return get(tx.connection, namespace, done)
    instance = get(tx.connection, namespace, ref)
    lookups.record_request(tx, namespace, request, instance.id, now)
    if instance.state not in IN_USE:
        return instance
    check_transition(instance.state, InstanceState.REMOVING)
    values = {
        "state": InstanceState.REMOVING.value,
        **rows.termination_values(Termination(TerminationReason.DELETED, now)),
    }
    row = tx.connection.execute(
        update(INSTANCES).where(INSTANCES.c.id == instance.id).values(values).returning(INSTANCES)
    ).one()
    tx.touched |= {instance.id, instance.pool_id} - {""}
    return rows.instance_of(row)
