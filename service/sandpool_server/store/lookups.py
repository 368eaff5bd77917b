"""Finding things by reference, answered requests, and the version check: what all operations share."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, insert, literal_column, select

from sandpool_server.domain.errors import Aborted, FieldViolation, InvalidArgument, NotFound
from sandpool_server.domain.ids import POOL, TEMPLATE
from sandpool_server.ports import RequestKey
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import POOLS, REQUESTS, SECRETS, TEMPLATES
from sandpool_server.store.writer import Transaction

EMPTY: ColumnElement[str] = literal_column("''")
"""The empty string as a literal: partial indexes say `!= ''`, and a bound value would not let them be used."""


def _living(table: Table, column: str) -> Prepared:
    where = and_(
        table.c.namespace == bindparam("namespace"),
        table.c[column] == bindparam("ref"),
        table.c[column] != EMPTY,
        table.c.delete_time.is_(None),
    )
    return Prepared(select(table).where(where))


_BY_ID = {table.name: _living(table, "id") for table in (POOLS, TEMPLATES)}
_BY_NAME = {table.name: _living(table, "name") for table in (POOLS, TEMPLATES)}
_BY_ID_ALONE = {table.name: select(table).where(table.c.id == bindparam("id")) for table in (POOLS, TEMPLATES)}
_REQUEST = select(REQUESTS.c.fingerprint, REQUESTS.c.resource_id).where(
    REQUESTS.c.namespace == bindparam("namespace"),
    REQUESTS.c.method == bindparam("method"),
    REQUESTS.c.request_id == bindparam("request_id"),
)
_REMEMBER = insert(REQUESTS)


def find_pool(connection: Connection, namespace: str, ref: str) -> AnyRow:
    """The living pool of that id or name. Raises `NotFound`."""
    return _find(connection, POOLS, "pool", POOL, namespace, ref)


def find_template(connection: Connection, namespace: str, ref: str) -> AnyRow:
    """The living template of that id or name. Raises `NotFound`."""
    return _find(connection, TEMPLATES, "template", TEMPLATE, namespace, ref)


def _find(connection: Connection, table: Table, resource_type: str, prefix: str, namespace: str, ref: str) -> AnyRow:
    values = {"namespace": namespace, "ref": ref}
    # A name may begin like an id but is never shaped like one: so at most one of the two finds something.
    row: AnyRow | None = _BY_ID[table.name].first(connection, values) if ref.startswith(f"{prefix}-") else None
    row = row or _BY_NAME[table.name].first(connection, values)
    if row is None:
        raise NotFound(resource_type, ref)
    return row


def row_by_id(connection: Connection, table: Table, resource_type: str, resource_id: str) -> AnyRow:
    """The row of a pool or template, deleted or not. Raises `NotFound` once it is purged."""
    row = connection.execute(_BY_ID_ALONE[table.name], {"id": resource_id}).first()
    if row is None:
        raise NotFound(resource_type, resource_id)
    return row


def check_secrets(connection: Connection, namespace: str, names: Sequence[str]) -> None:
    """Raise `NotFound` for the first of these secrets that does not exist."""
    if names:
        known = select(SECRETS.c.name).where(SECRETS.c.namespace == namespace, SECRETS.c.name.in_(list(names)))
        there = set(connection.execute(known).scalars())
        for name in names:
            if name not in there:
                raise NotFound("secret", name, "create it first")


def check_version(resource_type: str, ref: str, present: int, seen: int | None) -> None:
    """Raise `Aborted` when the caller saw another version than the present one."""
    if seen is not None and seen != present:
        raise Aborted(resource_type, ref)


def answered(tx: Transaction, namespace: str, request: RequestKey | None) -> str | None:
    """The id of the resource that an earlier call of this request was about; None for a new request.

    Raises `InvalidArgument` when the earlier call was another one.
    """
    if request is None:
        return None
    values = {"namespace": namespace, "method": request.method, "request_id": request.request_id}
    row = tx.connection.execute(_REQUEST, values).first()
    if row is None:
        return None
    check_fingerprint(row.fingerprint, request.fingerprint)
    return str(row.resource_id)


def remember(tx: Transaction, namespace: str, request: RequestKey | None, resource_id: str, now: datetime) -> None:
    """Keep that this request was answered, for `answered`."""
    if request is not None:
        tx.connection.execute(
            _REMEMBER,
            {
                "namespace": namespace,
                "method": request.method,
                "request_id": request.request_id,
                "fingerprint": request.fingerprint,
                "resource_id": resource_id,
                "create_time": now,
            },
        )


def check_fingerprint(kept: str, given: str) -> None:
    """Raise `InvalidArgument` when a request id comes back with another request."""
    if kept != given:
        raise InvalidArgument(
            FieldViolation("request_id", "was used for another request before; choose a new one for each request")
        )


def named(some: Sequence[tuple[str, str]], number: int) -> str:
    """Ids with their names, for a message: `some` of `number` things."""
    shown = ", ".join(f"{some_id} ({name})" if name else some_id for some_id, name in some)
    return f"{shown} and {number - len(some)} more" if number > len(some) else shown
