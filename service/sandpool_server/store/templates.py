"""Operations on templates."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, case, func, insert, select, update

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.model import Template
from sandpool_server.interfaces import RequestKey
from sandpool_server.store import lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.tables import POOLS, TEMPLATES
from sandpool_server.store.writer import Transaction

_LIST = (
    select(TEMPLATES)
    .where(
        TEMPLATES.c.namespace == bindparam("namespace"),
        TEMPLATES.c.id > bindparam("after"),
        TEMPLATES.c.delete_time.is_(None),
    )
    .order_by(TEMPLATES.c.id)
    .limit(bindparam("limit"))
)


def create(tx: Transaction, template: Template, request: RequestKey | None) -> Template:
    """See `Store.create_template`."""
    if (done := lookups.replayed_resource_id(tx, template.namespace, request)) is not None:
        return rows.template_of(lookups.row_by_id(tx.connection, TEMPLATES, "template", done))
    lookups.check_secrets(tx.connection, template.namespace, template.spec.secret_names)
    with unique_name("template", TEMPLATES, template.name):
        tx.connection.execute(insert(TEMPLATES), rows.template_values(template))
    lookups.record_request(tx, template.namespace, request, template.id, template.create_time)
    return template


def get(connection: Connection, namespace: str, ref: str) -> Template:
    """See `Store.get_template`."""
    return rows.template_of(lookups.find_template(connection, namespace, ref))


def page(connection: Connection, namespace: str, limit: int, after: str) -> list[Template]:
    """See `Store.list_templates`."""
    found = connection.execute(_LIST, {"namespace": namespace, "after": after, "limit": limit})
    return [rows.template_of(row) for row in found]


def change(
    tx: Transaction,
    namespace: str,
    ref: str,
    version: int | None,
    function: Callable[[Template], Template],
    request: RequestKey | None,
    now: datetime,
) -> Template:
    """See `Store.update_template`."""
    if (done := lookups.replayed_resource_id(tx, namespace, request)) is not None:
        return rows.template_of(lookups.row_by_id(tx.connection, TEMPLATES, "template", done))
    old = get(tx.connection, namespace, ref)
    lookups.check_version("template", ref, old.version, version)
    new = replace(
        function(old), id=old.id, namespace=old.namespace, create_time=old.create_time, version=old.version + 1
    )
    if new.spec.secret_names != old.spec.secret_names:
        lookups.check_secrets(tx.connection, new.namespace, new.spec.secret_names)
    with unique_name("template", TEMPLATES, new.name):
        tx.connection.execute(
            update(TEMPLATES)
            .where(TEMPLATES.c.id == old.id)
            .values(
                name=new.name,
                spec=new.spec.to_json(),
                timeout_secs=new.timeout_secs,
                version=new.version,
                update_time=new.update_time,
            )
        )
    if (old.name, old.spec, old.timeout_secs) != (new.name, new.spec, new.timeout_secs):
        _update_pools(tx, old, new)
    lookups.record_request(tx, namespace, request, old.id, now)
    return new


def _update_pools(tx: Transaction, old: Template, new: Template) -> None:
    """Write the new values of the template to the pools that use it."""
    values: rows.Values = {
        "template_name": new.name,
        "timeout_secs": case((POOLS.c.own_timeout_secs.is_(None), new.timeout_secs), else_=POOLS.c.own_timeout_secs),
        "version": POOLS.c.version + 1,
        "update_time": new.update_time,
    }
    if new.spec != old.spec:
        values |= rows.NO_FAILURE
    uses_template = and_(POOLS.c.template_id == new.id, POOLS.c.delete_time.is_(None))
    for row in tx.connection.execute(select(POOLS).where(uses_template)).all():
        # The digest also depends on the image digest of each pool.
        own = rows.respecified_values(rows.pool_of(row), new.spec)
        tx.connection.execute(update(POOLS).where(POOLS.c.id == row.id).values({**values, **own}))
        tx.touched.add(row.id)


def pool_ids(connection: Connection, namespace: str, ref: str) -> tuple[str, ...]:
    """See `Store.template_pool_ids`."""
    template = lookups.find_template(connection, namespace, ref)
    uses_template = and_(POOLS.c.template_id == template.id, POOLS.c.delete_time.is_(None))
    return tuple(connection.execute(select(POOLS.c.id).where(uses_template).order_by(POOLS.c.id)).scalars())


def delete(
    tx: Transaction, namespace: str, ref: str, version: int | None, now: datetime, request: RequestKey | None
) -> None:
    """See `Store.delete_template`."""
    if lookups.replayed_resource_id(tx, namespace, request) is not None:
        return
    template = get(tx.connection, namespace, ref)
    lookups.check_version("template", ref, template.version, version)
    uses_template = and_(POOLS.c.template_id == template.id, POOLS.c.delete_time.is_(None))
    number = tx.connection.execute(select(func.count()).select_from(POOLS).where(uses_template)).scalar_one()
    if number:
        some = tx.connection.execute(
            select(POOLS.c.id, POOLS.c.name).where(uses_template).order_by(POOLS.c.id).limit(10)
        )
        raise FailedPrecondition(
            "TEMPLATE_IN_USE",
            f"template {template.name!r} is used by {number} pool{'s' if number > 1 else ''}: "
            f"{lookups.format_names([(row.id, row.name) for row in some], number)}; delete them first",
            "template",
            template.id,
        )
    tx.connection.execute(update(TEMPLATES).where(TEMPLATES.c.id == template.id).values(delete_time=now))
    lookups.record_request(tx, namespace, request, template.id, now)
