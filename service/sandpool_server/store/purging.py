"""Deleting what nobody needs any more."""

from datetime import datetime

from sqlalchemy import ColumnElement, Table, and_, delete, exists, null, or_, update

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.store.tables import MEMBERS, POOLS, REQUESTS, TEMPLATES
from sandpool_server.store.writer import Transaction


def purge(tx: Transaction, ended_before: datetime, requests_before: datetime) -> int:
    """See `Store.purge`."""
    answered_long_ago = or_(MEMBERS.c.request_id == "", MEMBERS.c.claim_time < requests_before)
    gone = MEMBERS.c.state == MemberState.GONE.value
    over = and_(gone, or_(MEMBERS.c.gone_time < ended_before, MEMBERS.c.gone_time.is_(None)))
    sandboxes = _delete(tx, MEMBERS, and_(over, answered_long_ago))
    # The others stay for a retry of their request alone: without `gone_time` nobody is shown them any more.
    hidden = update(MEMBERS).where(gone, MEMBERS.c.gone_time < ended_before).values(gone_time=null())
    tx.touched.update(tx.connection.execute(hidden.returning(MEMBERS.c.id)).scalars())
    requests = tx.connection.execute(delete(REQUESTS).where(REQUESTS.c.create_time < requests_before)).rowcount
    # Pools before templates: a pool's row names its template.
    pools = _delete(
        tx, POOLS, and_(POOLS.c.delete_time < requests_before, ~exists().where(MEMBERS.c.pool_id == POOLS.c.id))
    )
    templates = _delete(
        tx,
        TEMPLATES,
        and_(
            TEMPLATES.c.delete_time < requests_before,
            ~exists().where(POOLS.c.template_id == TEMPLATES.c.id),
            ~exists().where(MEMBERS.c.template_id == TEMPLATES.c.id),
        ),
    )
    tx.touched.update(sandboxes, pools)
    return len(sandboxes) + requests + len(pools) + len(templates)


def _delete(tx: Transaction, table: Table, where: ColumnElement[bool]) -> list[str]:
    """Delete rows and return their ids."""
    return list(tx.connection.execute(delete(table).where(where).returning(table.c.id)).scalars())
