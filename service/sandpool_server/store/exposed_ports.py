"""Operations on the ports of sandboxes that the web port serves."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from sandpool_server.domain.errors import Exhausted
from sandpool_server.domain.model import ExposedPort
from sandpool_server.store.tables import EXPOSED_PORTS
from sandpool_server.store.writer import Transaction

_RETRY_AFTER_SECS = 1.0

_OF_MEMBER = EXPOSED_PORTS.c.member_id == bindparam("member")
_ALL = select(EXPOSED_PORTS).where(_OF_MEMBER).order_by(EXPOSED_PORTS.c.port)
_ONE = select(EXPOSED_PORTS).where(_OF_MEMBER, EXPOSED_PORTS.c.port == bindparam("number"))
_COUNT = select(func.count()).select_from(EXPOSED_PORTS).where(_OF_MEMBER)
_REMOVE = delete(EXPOSED_PORTS).where(_OF_MEMBER, EXPOSED_PORTS.c.port == bindparam("number"))


def expose(tx: Transaction, namespace: str, member_id: str, port: int, most: int, now: datetime) -> ExposedPort:
    """See `PortStore.expose_port`."""
    if (known := find(tx.connection, member_id, port)) is not None:
        return known
    if tx.connection.execute(_COUNT, {"member": member_id}).scalar_one() >= most:
        raise Exhausted(
            "PORT_LIMIT",
            f"{most} ports of the sandbox are exposed already; take one back",
            f"sandbox:{member_id}",
            _RETRY_AFTER_SECS,
        )
    tx.connection.execute(
        insert(EXPOSED_PORTS), {"namespace": namespace, "member_id": member_id, "port": port, "create_time": now}
    )
    return ExposedPort(member_id, port, now)


def remove(tx: Transaction, member_id: str, port: int) -> None:
    """See `PortStore.unexpose_port`."""
    tx.connection.execute(_REMOVE, {"member": member_id, "number": port})


def page(connection: Connection, member_id: str) -> list[ExposedPort]:
    """See `PortStore.exposed_ports`."""
    return [
        ExposedPort(row.member_id, row.port, row.create_time) for row in connection.execute(_ALL, {"member": member_id})
    ]


def find(connection: Connection, member_id: str, port: int) -> ExposedPort | None:
    """See `PortStore.exposed_port`."""
    row = connection.execute(_ONE, {"member": member_id, "number": port}).first()
    return None if row is None else ExposedPort(row.member_id, row.port, row.create_time)
