"""Exposed ports: ports of sandboxes that the server exposes by HTTP. No port is exposed by default."""

from collections.abc import Callable

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.model import DEFAULT_NAMESPACE, ExposedPort, Instance
from sandpool_server.interfaces import Clock, PortStore, Store
from sandpool_server.usecases.sandboxes import running

MAX_EXPOSED_PORTS = 64
"""The maximum number of exposed ports of a sandbox."""

UrlOf = Callable[[str, int], str]
"""A function that returns the URL of an exposed port. The arguments are the sandbox id and the port."""


class ExposedPorts:
    """Exposed ports. Every method with a `ref` raises `NotFound` if the sandbox does not exist.

    `url_of` is None if the server has no web port. `withdrawn` is a callback that is called with the sandbox id and the
    port after the port was unexposed.
    """

    def __init__(self, store: Store, ports: PortStore, clock: Clock, url_of: UrlOf | None) -> None:
        self._store = store
        self._ports = ports
        self._clock = clock
        self._url_of = url_of
        self.withdrawn: Callable[[str, int], None] = lambda sandbox_id, port: None

    async def expose(self, ref: str, port: int) -> tuple[ExposedPort, str]:
        """Expose a port and return it with its URL.

        Raises:
            FailedPrecondition: the server has no web port (PORT_EXPOSURE_DISABLED), or the sandbox is not running.
            Exhausted: (PORT_LIMIT) the sandbox has the maximum number of exposed ports.
        """
        if self._url_of is None:
            raise FailedPrecondition(
                "PORT_EXPOSURE_DISABLED",
                f"port {port} cannot be exposed: the server has no web port; start the server with --web-address",
                "server",
                "web",
            )
        instance = running(await self._get(ref))
        exposed = await self._ports.expose_port(
            DEFAULT_NAMESPACE, instance.id, port, MAX_EXPOSED_PORTS, self._clock.now()
        )
        return exposed, self._url_of(instance.id, port)

    async def unexpose(self, ref: str, port: int) -> None:
        """Unexpose a port and close the connections through it."""
        instance = await self._get(ref)
        await self._ports.unexpose_port(instance.id, port)
        self.withdrawn(instance.id, port)

    async def list(self, ref: str) -> list[tuple[ExposedPort, str]]:
        """Return the exposed ports of a sandbox and their URLs, sorted by number.

        The list is empty if the sandbox has terminated.
        """
        instance = await self._get(ref)
        if self._url_of is None or instance.end is not None:
            return []
        return [(port, self._url_of(instance.id, port.port)) for port in await self._ports.exposed_ports(instance.id)]

    async def is_exposed(self, sandbox_id: str, port: int) -> bool:
        """Return whether the port of the sandbox with this id is exposed."""
        return await self._ports.exposed_port(sandbox_id, port) is not None

    async def _get(self, ref: str) -> Instance:
        return await self._store.get_sandbox(DEFAULT_NAMESPACE, ref)
