"""Calls about the ports of a sandbox."""

from __future__ import annotations

from typing import Final

from sandpool import errors
from sandpool._core import convert_sandbox_io as convert
from sandpool._core import methods
from sandpool._core.arguments import Timeout, duration
from sandpool._core.call import Call, Repeat
from sandpool._models.monitor import ExposedPort
from sandpool.v1 import port_service_pb2 as pb

PART_BYTES: Final = 64 * 1024
"""The size of the data in one message of a tunnel."""
CONNECT_TIMEOUT: Final = 10.0
"""The default time limit for opening a connection, in seconds."""


def open_tunnel(sandbox_id: str, port: int, connect_timeout: float) -> Call[pb.OpenTunnelResponse, bytes | None]:
    """Open a connection. The call yields None when the connection is open, and then its bytes."""
    target = pb.TunnelTarget(
        sandbox_id=sandbox_id, port=port, connect_timeout=duration("connect_timeout", connect_timeout)
    )
    return Call(
        methods.OPEN_TUNNEL,
        pb.OpenTunnelRequest(target=target),
        lambda response: response.data if response.HasField("data") else None,
        repeat=Repeat.NEVER,
    )


def tunnel_data(data: bytes) -> pb.OpenTunnelRequest:
    """Return a message with the next bytes."""
    return pb.OpenTunnelRequest(data=data)


def parts(data: bytes) -> list[bytes]:
    """Split data into parts that fit into one message each."""
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


def with_port(error: errors.SandpoolError, port: int) -> errors.SandpoolError:
    """Set the port of an error of a tunnel."""
    if isinstance(error, errors.TunnelConnectionRefusedError):
        error.port = port
    return error


def expose_port(sandbox_id: str, port: int, timeout: Timeout) -> Call[pb.ExposePortResponse, ExposedPort]:
    """Expose a port. If it is exposed already, the server returns it unchanged."""
    request = pb.ExposePortRequest(sandbox_id=sandbox_id, port=port)
    return Call(
        methods.EXPOSE_PORT, request, lambda response: convert.exposed_port(response.exposed_port), timeout=timeout
    )


def unexpose_port(sandbox_id: str, port: int, timeout: Timeout) -> Call[pb.UnexposePortResponse, None]:
    """Stop exposing a port."""
    request = pb.UnexposePortRequest(sandbox_id=sandbox_id, port=port)
    return Call(methods.UNEXPOSE_PORT, request, lambda _: None, timeout=timeout)


def list_exposed_ports(sandbox_id: str, timeout: Timeout) -> Call[pb.ListExposedPortsResponse, list[ExposedPort]]:
    """Read the exposed ports."""
    request = pb.ListExposedPortsRequest(sandbox_id=sandbox_id)
    return Call(
        methods.LIST_EXPOSED_PORTS,
        request,
        lambda response: [convert.exposed_port(item) for item in response.exposed_ports],
        timeout=timeout,
    )
