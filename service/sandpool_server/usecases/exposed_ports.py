"""Ports of sandboxes that are served by HTTP: nothing is, unless somebody asks for it."""

from collections.abc import Callable

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.model import DEFAULT_NAMESPACE, ExposedPort, Member
from sandpool_server.ports import Clock, PortStore, Store
from sandpool_server.usecases.sandboxes import running

MOST_PORTS = 64
"""How many ports of one sandbox may be exposed at once."""

UrlOf = Callable[[str, int], str]
"""Where the port of a sandbox, by its identifier, is served."""


class ExposedPorts:
    """Exposed ports. Every method raises `NotFound` for a sandbox that does not exist.

    `url_of` is None when the server has no web port. `withdrawn` is called with sandbox and port when one is taken
    back.
    """

    def __init__(self, store: Store, ports: PortStore, clock: Clock, url_of: UrlOf | None) -> None:
        self._store = store
        self._ports = ports
        self._clock = clock
        self._url_of = url_of
        self.withdrawn: Callable[[str, int], None] = lambda sandbox_id, port: None

    async def expose(self, ref: str, port: int) -> tuple[ExposedPort, str]:
        """Serve a port from now on; returns it and its URL. Raises `FailedPrecondition` and `Exhausted`."""
        if self._url_of is None:
            raise FailedPrecondition(
                "WEB_PORT_OFF", "the server has no web port; start it with --web-address", "server", "web"
            )
        member = running(await self._get(ref))
        exposed = await self._ports.expose_port(DEFAULT_NAMESPACE, member.id, port, MOST_PORTS, self._clock.now())
        return exposed, self._url_of(member.id, port)

    async def unexpose(self, ref: str, port: int) -> None:
        """Serve a port no longer, and break the connections through it."""
        member = await self._get(ref)
        await self._ports.unexpose_port(member.id, port)
        self.withdrawn(member.id, port)

    async def list(self, ref: str) -> list[tuple[ExposedPort, str]]:
        """The exposed ports of a sandbox and their URLs, by number; none of one that has ended."""
        member = await self._get(ref)
        if self._url_of is None or member.end is not None:
            return []
        return [(port, self._url_of(member.id, port.port)) for port in await self._ports.exposed_ports(member.id)]

    async def is_exposed(self, sandbox_id: str, port: int) -> bool:
        """Whether the port of a sandbox, by its identifier, is to be served."""
        return await self._ports.exposed_port(sandbox_id, port) is not None

    async def _get(self, ref: str) -> Member:
        return await self._store.get_sandbox(DEFAULT_NAMESPACE, ref)
