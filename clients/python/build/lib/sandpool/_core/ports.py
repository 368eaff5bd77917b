"""Calls about ports of a sandbox."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sandpool import errors
from sandpool._core import convert_inside as convert
from sandpool._core import methods
from sandpool._core.call import Call, Repeat
from sandpool._core.inside import ExposedPort
from sandpool.v1 import port_service_pb2 as pb

PART_BYTES: Final = 64 * 1024
"""How much one message of a tunnel carries."""


def open_tunnel(sandbox_id: str, port: int, connect_timeout: float) -> Call[pb.OpenTunnelResponse, bytes | None]:
    """Open a connection; answers None when it stands, and then its bytes."""
    target = pb.TunnelTarget(sandbox_id=sandbox_id, port=port, connect_timeout_secs=connect_timeout)
    return Call(
        methods.OPEN_TUNNEL,
        pb.OpenTunnelRequest(target=target),
        lambda answer: answer.data if answer.HasField("data") else None,
        repeat=Repeat.NEVER,
    )


def tunnel_data(data: bytes) -> pb.OpenTunnelRequest:
    """A message with the next bytes."""
    return pb.OpenTunnelRequest(data=data)


def parts(data: bytes) -> list[bytes]:
    """Data in parts that one message carries."""
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


def about_port(error: errors.SandpoolError, port: int) -> errors.SandpoolError:
    """An error of a tunnel, which knows its port."""
    if isinstance(error, errors.TunnelConnectionRefusedError):
        error.port = port
    return error


def numbers(ports: int | Iterable[int]) -> list[int]:
    """One port or several."""
    return [ports] if isinstance(ports, int) else list(ports)


def expose_port(sandbox_id: str, port: int, timeout: float | None) -> Call[pb.ExposePortResponse, ExposedPort]:
    """Serve a port; one that is served is answered."""
    request = pb.ExposePortRequest(sandbox_id=sandbox_id, port=port)
    return Call(methods.EXPOSE_PORT, request, lambda answer: convert.exposed_port(answer.exposed_port), timeout=timeout)


def unexpose_port(sandbox_id: str, port: int, timeout: float | None) -> Call[pb.UnexposePortResponse, None]:
    """Serve a port no longer."""
    request = pb.UnexposePortRequest(sandbox_id=sandbox_id, port=port)
    return Call(methods.UNEXPOSE_PORT, request, lambda _: None, timeout=timeout)


def list_exposed_ports(sandbox_id: str, timeout: float | None) -> Call[pb.ListExposedPortsResponse, list[ExposedPort]]:
    """The ports that are served."""
    request = pb.ListExposedPortsRequest(sandbox_id=sandbox_id)
    return Call(
        methods.LIST_EXPOSED_PORTS,
        request,
        lambda answer: [convert.exposed_port(item) for item in answer.exposed_ports],
        timeout=timeout,
    )
