"""Implementation of PortService. Tunnels are proxied to agents; the server itself manages exposed ports."""

from types import SimpleNamespace

from sandpool.v1 import port_pb2, port_service_pb2
from sandpool.v1 import port_service_pb2 as messages
from sandpool_server.domain.model import ExposedPort
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import timestamp
from sandpool_server.rpc.proxied import proxied
from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.usecases.exposed_ports import ExposedPorts


class PortServicer:
    """Implements PortService. `Calls` validates requests and converts domain errors to statuses."""

    def __init__(self, ports: ExposedPorts, data_plane: DataPlane) -> None:
        self._ports = ports
        servicer: SimpleNamespace = proxied(port_service_pb2.DESCRIPTOR.services_by_name["PortService"], data_plane)
        self.OpenTunnel = servicer.OpenTunnel

    async def ExposePort(self, request: messages.ExposePortRequest, context: Context) -> messages.ExposePortResponse:
        """Expose a port on the web port."""
        port, url = await self._ports.expose(request.sandbox_id, request.port)
        return messages.ExposePortResponse(exposed_port=_message(port, url))

    async def UnexposePort(
        self, request: messages.UnexposePortRequest, context: Context
    ) -> messages.UnexposePortResponse:
        """Stop exposing a port."""
        await self._ports.unexpose(request.sandbox_id, request.port)
        return messages.UnexposePortResponse()

    async def ListExposedPorts(
        self, request: messages.ListExposedPortsRequest, context: Context
    ) -> messages.ListExposedPortsResponse:
        """List the exposed ports of a sandbox."""
        found = await self._ports.list(request.sandbox_id)
        return messages.ListExposedPortsResponse(exposed_ports=[_message(port, url) for port, url in found])


def _message(port: ExposedPort, url: str) -> port_pb2.ExposedPort:
    return port_pb2.ExposedPort(port=port.port, url=url, create_time=timestamp(port.create_time))
