"""Operations on secrets. The store contains names, times and ciphertexts, but never values."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Table, and_, bindparam, delete, insert, select, update

from sandpool_server.domain.errors import FailedPrecondition, NotFound
from sandpool_server.domain.model import Secret
from sandpool_server.interfaces import RequestKey
from sandpool_server.store import dialect, lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.tables import POOLS, SECRETS, TEMPLATES
from sandpool_server.store.writer import Transaction

_COLUMNS = (SECRETS.c.namespace, SECRETS.c.name, SECRETS.c.create_time, SECRETS.c.update_time)
_THIS = and_(SECRETS.c.namespace == bindparam("in_namespace"), SECRETS.c.name == bindparam("named"))
_GET = select(*_COLUMNS).where(_THIS)
_LIST = (
    select(*_COLUMNS)
    .where(SECRETS.c.namespace == bindparam("in_namespace"), SECRETS.c.name > bindparam("after"))
    .order_by(SECRETS.c.name)
    .limit(bindparam("limit"))
)


def create(tx: Transaction, secret: Secret, ciphertext: bytes, request: RequestKey | None) -> Secret:
    """See `SecretStore.create_secret`."""
    if (done := lookups.replayed_resource_id(tx, secret.namespace, request)) is not None:
        return _get(tx.connection, secret.namespace, done)
    with unique_name("secret", SECRETS, secret.name):
        tx.connection.execute(insert(SECRETS), rows.secret_values(secret, ciphertext))
    lookups.record_request(tx, secret.namespace, request, secret.name, secret.create_time)
    return secret


def change(
    tx: Transaction, namespace: str, name: str, ciphertext: bytes, now: datetime, request: RequestKey | None
) -> Secret:
    """See `SecretStore.update_secret`."""
    if (done := lookups.replayed_resource_id(tx, namespace, request)) is not None:
        return _get(tx.connection, namespace, done)
    row = tx.connection.execute(
        update(SECRETS).where(_THIS).values(ciphertext=ciphertext, update_time=now).returning(*_COLUMNS),
        {"in_namespace": namespace, "named": name},
    ).first()
    if row is None:
        raise NotFound("secret", name)
    lookups.record_request(tx, namespace, request, name, now)
    return rows.secret_of(row)


def get(connection: Connection, namespace: str, name: str) -> Secret:
    """See `SecretStore.get_secret`."""
    return _get(connection, namespace, name)


def page(connection: Connection, namespace: str, limit: int, after: str) -> list[Secret]:
    """See `SecretStore.list_secrets`."""
    found = connection.execute(_LIST, {"in_namespace": namespace, "after": after, "limit": limit})
    return [rows.secret_of(row) for row in found]


def remove(tx: Transaction, namespace: str, name: str, force: bool, now: datetime, request: RequestKey | None) -> None:
    """See `SecretStore.delete_secret`."""
    if lookups.replayed_resource_id(tx, namespace, request) is not None:
        return
    _get(tx.connection, namespace, name)
    if not force:
        _check_unused(tx.connection, namespace, name)
    tx.connection.execute(delete(SECRETS).where(_THIS), {"in_namespace": namespace, "named": name})
    lookups.record_request(tx, namespace, request, name, now)


def ciphertexts(connection: Connection, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
    """See `SecretStore.secret_ciphertexts`."""
    found = connection.execute(
        select(SECRETS.c.name, SECRETS.c.ciphertext).where(
            SECRETS.c.namespace == namespace, SECRETS.c.name.in_(list(names))
        )
    )
    return {row.name: row.ciphertext for row in found}


def rewrite(tx: Transaction, function: Callable[[bytes], bytes]) -> int:
    """See `SecretStore.rewrite_secrets`."""
    found = tx.connection.execute(select(SECRETS.c.namespace, SECRETS.c.name, SECRETS.c.ciphertext)).all()
    changed = [{"in_namespace": row.namespace, "named": row.name, "other": function(row.ciphertext)} for row in found]
    if changed:
        tx.connection.execute(update(SECRETS).where(_THIS).values(ciphertext=bindparam("other")), changed)
    return len(changed)


def _get(connection: Connection, namespace: str, name: str) -> Secret:
    row = connection.execute(_GET, {"in_namespace": namespace, "named": name}).first()
    if row is None:
        raise NotFound("secret", name)
    return rows.secret_of(row)


def _check_unused(connection: Connection, namespace: str, name: str) -> None:
    """Raise `FailedPrecondition` if pools or templates use the secret."""
    pools, templates = (_users_of(connection, table, namespace, name) for table in (POOLS, TEMPLATES))
    if pools or templates:
        users = " and ".join(
            f"{len(found)} {what}{'s' if len(found) > 1 else ''}: {lookups.format_names(found[:10], len(found))}"
            for what, found in (("pool", pools), ("template", templates))
            if found
        )
        raise FailedPrecondition(
            "SECRET_IN_USE",
            f"secret {name!r} is used by {users}; remove it from their secret_names first, or use force",
            "secret",
            name,
        )


def _users_of(connection: Connection, table: Table, namespace: str, name: str) -> list[tuple[str, str]]:
    """Return the ids and names of the pools or templates whose specification has the secret."""
    found = connection.execute(
        select(table.c.id, table.c.name)
        .where(
            table.c.namespace == namespace,
            table.c.delete_time.is_(None),
            dialect.json_list_has(table.c.spec, "secret_names", name),
        )
        .order_by(table.c.id)
    )
    return [(row.id, row.name) for row in found]
