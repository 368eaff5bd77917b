"""The deletion of rows whose retention period has expired."""

from datetime import datetime

from sqlalchemy import ColumnElement, Table, and_, delete, exists, null, or_, update

from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.store.tables import INSTANCES, POOLS, REQUESTS, TEMPLATES
from sandpool_server.store.writer import Transaction


def purge(tx: Transaction, ended_before: datetime, requests_before: datetime) -> int:
    """See `Store.purge`."""
    request_expired = or_(INSTANCES.c.request_id == "", INSTANCES.c.claim_time < requests_before)
    removed = INSTANCES.c.state == InstanceState.REMOVED.value
    retention_expired = and_(removed, or_(INSTANCES.c.removed_time < ended_before, INSTANCES.c.removed_time.is_(None)))
    sandboxes = _delete(tx, INSTANCES, and_(retention_expired, request_expired))
    # The other rows stay only for retries of their request. Rows without `removed_time` are not visible to users.
    hidden = update(INSTANCES).where(removed, INSTANCES.c.removed_time < ended_before).values(removed_time=null())
    tx.touched.update(tx.connection.execute(hidden.returning(INSTANCES.c.id)).scalars())
    requests = tx.connection.execute(delete(REQUESTS).where(REQUESTS.c.create_time < requests_before)).rowcount
    # Pools before templates, because the row of a pool refers to its template.
    pools = _delete(
        tx, POOLS, and_(POOLS.c.delete_time < requests_before, ~exists().where(INSTANCES.c.pool_id == POOLS.c.id))
    )
    templates = _delete(
        tx,
        TEMPLATES,
        and_(
            TEMPLATES.c.delete_time < requests_before,
            ~exists().where(POOLS.c.template_id == TEMPLATES.c.id),
            ~exists().where(INSTANCES.c.template_id == TEMPLATES.c.id),
        ),
    )
    tx.touched.update(sandboxes, pools)
    return len(sandboxes) + requests + len(pools) + len(templates)


def _delete(tx: Transaction, table: Table, where: ColumnElement[bool]) -> list[str]:
    """Delete rows and return their ids."""
    return list(tx.connection.execute(delete(table).where(where).returning(table.c.id)).scalars())
