"""The interface to the exposed ports in the database."""

from datetime import datetime
from typing import Protocol

from sandpool_server.domain.model import ExposedPort


class PortStore(Protocol):
    """The ports of sandboxes that the server exposes by HTTP. Each method is one transaction; see `Store`."""

    async def expose_port(self, namespace: str, instance_id: str, port: int, most: int, now: datetime) -> ExposedPort:
        """Add an exposed port and return it. If it exists already, return the existing one.

        Raises:
            Exhausted: (PORT_LIMIT) the instance has `most` exposed ports already.
        """
        ...

    async def unexpose_port(self, instance_id: str, port: int) -> None:
        """Delete an exposed port. It is no error if the port is not exposed."""
        ...

    async def exposed_ports(self, instance_id: str) -> list[ExposedPort]:
        """Return the exposed ports of the instance, sorted by number."""
        ...

    async def exposed_port(self, instance_id: str, port: int) -> ExposedPort | None:
        """Return an exposed port; None if the port is not exposed."""
        ...
