"""Shared functions of the operations: lookups by reference, retries of requests, checks of versions and secrets."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, insert, literal_column, select

from sandpool_server.domain.errors import Aborted, FieldViolation, InvalidArgument, NotFound
from sandpool_server.domain.ids import POOL, TEMPLATE
from sandpool_server.interfaces import RequestKey
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import POOLS, REQUESTS, SECRETS, TEMPLATES
from sandpool_server.store.writer import Transaction

EMPTY: ColumnElement[str] = literal_column("''")
"""The empty string as a literal. The partial indexes have the condition `!= ''`; a bound value prevents their use."""


def _select_existing(table: Table, column: str) -> Prepared:
    where = and_(
        table.c.namespace == bindparam("namespace"),
        table.c[column] == bindparam("ref"),
        table.c[column] != EMPTY,
        table.c.delete_time.is_(None),
    )
    return Prepared(select(table).where(where))


_BY_ID = {table.name: _select_existing(table, "id") for table in (POOLS, TEMPLATES)}
_BY_NAME = {table.name: _select_existing(table, "name") for table in (POOLS, TEMPLATES)}
_BY_ID_WITH_DELETED = {table.name: select(table).where(table.c.id == bindparam("id")) for table in (POOLS, TEMPLATES)}
_REQUEST = select(REQUESTS.c.fingerprint, REQUESTS.c.resource_id).where(
    REQUESTS.c.namespace == bindparam("namespace"),
    REQUESTS.c.method == bindparam("method"),
    REQUESTS.c.request_id == bindparam("request_id"),
)
_INSERT_REQUEST = insert(REQUESTS)


def find_pool(connection: Connection, namespace: str, ref: str) -> AnyRow:
    """Return the row of the pool with this id or name. Raises `NotFound`."""
    return _find(connection, POOLS, "pool", POOL, namespace, ref)


def find_template(connection: Connection, namespace: str, ref: str) -> AnyRow:
    """Return the row of the template with this id or name. Raises `NotFound`."""
    return _find(connection, TEMPLATES, "template", TEMPLATE, namespace, ref)


def _find(connection: Connection, table: Table, resource_type: str, prefix: str, namespace: str, ref: str) -> AnyRow:
    values = {"namespace": namespace, "ref": ref}
    # A name can start with the prefix of an id but never has the form of an id, so at most one query finds a row.
    row: AnyRow | None = _BY_ID[table.name].first(connection, values) if ref.startswith(f"{prefix}-") else None
    row = row or _BY_NAME[table.name].first(connection, values)
    if row is None:
        raise NotFound(resource_type, ref)
    return row


def row_by_id(connection: Connection, table: Table, resource_type: str, resource_id: str) -> AnyRow:
    """Return the row of a pool or template, which may be deleted. Raises `NotFound` if it is purged."""
    row = connection.execute(_BY_ID_WITH_DELETED[table.name], {"id": resource_id}).first()
    if row is None:
        raise NotFound(resource_type, resource_id)
    return row


def check_secrets(connection: Connection, namespace: str, names: Sequence[str]) -> None:
    """Raise `NotFound` for the first of these secrets that does not exist."""
    if names:
        query = select(SECRETS.c.name).where(SECRETS.c.namespace == namespace, SECRETS.c.name.in_(list(names)))
        existing = set(connection.execute(query).scalars())
        for name in names:
            if name not in existing:
                raise NotFound("secret", name, "create it first")


def check_version(resource_type: str, ref: str, current: int, expected: int | None) -> None:
    """Raise `Aborted` if the caller expects another version than the current one. None accepts any version."""
    if expected is not None and expected != current:
        raise Aborted(resource_type, ref)


def replayed_resource_id(tx: Transaction, namespace: str, request: RequestKey | None) -> str | None:
    """Return the id of the resource of an earlier request with this key; None if the request is not a retry.

    Raises:
        InvalidArgument: the request id was used for a request with a different content.
    """
    if request is None:
        return None
    values = {"namespace": namespace, "method": request.method, "request_id": request.request_id}
    row = tx.connection.execute(_REQUEST, values).first()
    if row is None:
        return None
    check_fingerprint(row.fingerprint, request.fingerprint)
    return str(row.resource_id)


def record_request(
    tx: Transaction, namespace: str, request: RequestKey | None, resource_id: str, now: datetime
) -> None:
    """Record the request, so that `replayed_resource_id` detects a retry."""
    if request is not None:
        tx.connection.execute(
            _INSERT_REQUEST,
            {
                "namespace": namespace,
                "method": request.method,
                "request_id": request.request_id,
                "fingerprint": request.fingerprint,
                "resource_id": resource_id,
                "create_time": now,
            },
        )


def check_fingerprint(recorded: str, current: str) -> None:
    """Raise `InvalidArgument` if the fingerprints differ, that is if a request id is used for another request."""
    if recorded != current:
        raise InvalidArgument(
            FieldViolation("request_id", "was used for a different request; use a new id for each request")
        )


def format_names(some: Sequence[tuple[str, str]], number: int) -> str:
    """Return the ids and names of `some` of `number` resources as text for a message."""
    shown = ", ".join(f"{some_id} ({name})" if name else some_id for some_id, name in some)
    return f"{shown} and {number - len(some)} more" if number > len(some) else shown
