"""The database's part in exposed ports."""

from datetime import datetime
from typing import Protocol

from sandpool_server.domain.model import ExposedPort


class PortStore(Protocol):
    """Which ports of which sandboxes the web port serves. Each method is one transaction; see `Store`."""

    async def expose_port(self, namespace: str, member_id: str, port: int, most: int, now: datetime) -> ExposedPort:
        """Keep a port as exposed, or return it as it is kept. Raises `Exhausted` when the member has `most` already."""
        ...

    async def unexpose_port(self, member_id: str, port: int) -> None:
        """Forget an exposed port; one that is not exposed is fine."""
        ...

    async def exposed_ports(self, member_id: str) -> list[ExposedPort]:
        """A member's exposed ports, by number."""
        ...

    async def exposed_port(self, member_id: str, port: int) -> ExposedPort | None:
        """One exposed port, None for one that is not."""
        ...
