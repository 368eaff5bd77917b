"""Operations on exposed ports."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from sandpool_server.domain.errors import Exhausted
from sandpool_server.domain.model import ExposedPort
from sandpool_server.store.tables import EXPOSED_PORTS
from sandpool_server.store.writer import Transaction

_RETRY_AFTER_SECS = 1.0

_OF_INSTANCE = EXPOSED_PORTS.c.instance_id == bindparam("instance")
_ALL = select(EXPOSED_PORTS).where(_OF_INSTANCE).order_by(EXPOSED_PORTS.c.port)
_ONE = select(EXPOSED_PORTS).where(_OF_INSTANCE, EXPOSED_PORTS.c.port == bindparam("number"))
_COUNT = select(func.count()).select_from(EXPOSED_PORTS).where(_OF_INSTANCE)
_REMOVE = delete(EXPOSED_PORTS).where(_OF_INSTANCE, EXPOSED_PORTS.c.port == bindparam("number"))


def expose(tx: Transaction, namespace: str, instance_id: str, port: int, most: int, now: datetime) -> ExposedPort:
    """See `PortStore.expose_port`."""
    if (existing := find(tx.connection, instance_id, port)) is not None:
        return existing
    if tx.connection.execute(_COUNT, {"instance": instance_id}).scalar_one() >= most:
        raise Exhausted(
            "PORT_LIMIT",
            f"sandbox {instance_id!r} has {most} exposed ports, the maximum; unexpose a port first",
            f"sandbox:{instance_id}",
            _RETRY_AFTER_SECS,
        )
    tx.connection.execute(
        insert(EXPOSED_PORTS), {"namespace": namespace, "instance_id": instance_id, "port": port, "create_time": now}
    )
    return ExposedPort(instance_id, port, now)


def remove(tx: Transaction, instance_id: str, port: int) -> None:
    """See `PortStore.unexpose_port`."""
    tx.connection.execute(_REMOVE, {"instance": instance_id, "number": port})


def page(connection: Connection, instance_id: str) -> list[ExposedPort]:
    """See `PortStore.exposed_ports`."""
    return [
        ExposedPort(row.instance_id, row.port, row.create_time)
        for row in connection.execute(_ALL, {"instance": instance_id})
    ]


def find(connection: Connection, instance_id: str, port: int) -> ExposedPort | None:
    """See `PortStore.exposed_port`."""
    row = connection.execute(_ONE, {"instance": instance_id, "number": port}).first()
    return None if row is None else ExposedPort(row.instance_id, row.port, row.create_time)
