"""The PortService: tunnels are passed on to agents, exposed ports are the server's own."""

from types import SimpleNamespace

from sandpool.v1 import port_pb2, port_service_pb2
from sandpool.v1 import port_service_pb2 as messages
from sandpool_server.domain.model import ExposedPort
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import timestamp
from sandpool_server.rpc.relayed import relayed
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.inside import Inside


class PortServicer:
    """Answers PortService. Requests are valid when they get here; domain errors become statuses in `Calls`."""

    def __init__(self, ports: ExposedPorts, inside: Inside) -> None:
        self._ports = ports
        passed_on: SimpleNamespace = relayed(port_service_pb2.DESCRIPTOR.services_by_name["PortService"], inside)
        self.OpenTunnel = passed_on.OpenTunnel

    async def ExposePort(self, request: messages.ExposePortRequest, context: Context) -> messages.ExposePortResponse:
        """Serve a port from now on."""
        port, url = await self._ports.expose(request.sandbox_id, request.port)
        return messages.ExposePortResponse(exposed_port=_message(port, url))

    async def UnexposePort(
        self, request: messages.UnexposePortRequest, context: Context
    ) -> messages.UnexposePortResponse:
        """Serve a port no longer."""
        await self._ports.unexpose(request.sandbox_id, request.port)
        return messages.UnexposePortResponse()

    async def ListExposedPorts(
        self, request: messages.ListExposedPortsRequest, context: Context
    ) -> messages.ListExposedPortsResponse:
        """List a sandbox's exposed ports."""
        found = await self._ports.list(request.sandbox_id)
        return messages.ListExposedPortsResponse(exposed_ports=[_message(port, url) for port, url in found])


def _message(port: ExposedPort, url: str) -> port_pb2.ExposedPort:
    return port_pb2.ExposedPort(port=port.port, url=url, create_time=timestamp(port.create_time))
