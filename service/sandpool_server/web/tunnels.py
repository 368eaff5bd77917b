"""Connections to ports of sandboxes for HTTP libraries. Each connection is a tunnel through the sandbox's agent."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpcore

from sandpool.v1 import port_service_pb2
from sandpool_server.domain.errors import SandpoolError
from sandpool_server.usecases.data_plane import DataPlane

_METHOD = "/sandpool.v1.PortService/OpenTunnel"
_CHUNK = 64 * 1024


class Tunnel(httpcore.AsyncNetworkStream):
    """A connection to a port of a sandbox. Its owner may read and write concurrently."""

    def __init__(self, responses: AsyncGenerator[Any, None], requests: "asyncio.Queue[Any]") -> None:
        self._responses = responses
        self._requests = requests
        self._left = b""

    @classmethod
    async def open(cls, data_plane: DataPlane, sandbox_id: str, port: int, timeout_secs: float) -> "Tunnel":
        """Connect to a port of a sandbox.

        Raises domain errors if the sandbox does not exist, no process listens on the port, or the agent does not
        respond.
        """
        target = port_service_pb2.TunnelTarget(sandbox_id=sandbox_id, port=port)
        target.connect_timeout.FromNanoseconds(round(timeout_secs * 1e9))
        # The queue contains at most one request, so a write waits until the previous request is sent.
        requests: asyncio.Queue[Any] = asyncio.Queue(1)
        requests.put_nowait(port_service_pb2.OpenTunnelRequest(target=target))
        responses = data_plane.stream(sandbox_id, _METHOD, _items(requests))
        try:
            await anext(responses)
        except BaseException:
            await responses.aclose()
            raise
        return cls(responses, requests)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes; an empty value at the end. Raises `httpcore.ReadError` and `httpcore.ReadTimeout`."""
        if not self._left:
            try:
                async with asyncio.timeout(timeout):
                    self._left = (await anext(self._responses)).data
            except StopAsyncIteration:
                return b""
            except TimeoutError as error:
                raise httpcore.ReadTimeout(str(error)) from error
            except SandpoolError as error:
                raise httpcore.ReadError(error.message) from error
        data, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. Raises `httpcore.WriteTimeout`. A closed connection is reported by `read`, not by `write`."""
        try:
            async with asyncio.timeout(timeout):
                for begin in range(0, len(buffer), _CHUNK):
                    data = buffer[begin : begin + _CHUNK]
                    await self._requests.put(port_service_pb2.OpenTunnelRequest(data=data))
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._responses.aclose()


async def _items(requests: "asyncio.Queue[Any]") -> AsyncIterator[Any]:
    while True:
        yield await requests.get()


class TunnelBackend(httpcore.AsyncNetworkBackend):
    """Connects to `http://<sandbox>:<port>`, where the host is the id of a sandbox."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a tunnel. Raises domain errors, which httpcore passes on to the proxy."""
        del local_address, socket_options
        return await Tunnel.open(self._data_plane, host, port, timeout or 10.0)


@asynccontextmanager
async def tunnel_socket(
    data_plane: DataPlane, sandbox_id: str, port: int, timeout_secs: float
) -> AsyncIterator[socket.socket]:
    """Return a context manager with a tunnel as a connected socket. Raises the errors of `Tunnel.open`."""
    tunnel = await Tunnel.open(data_plane, sandbox_id, port, timeout_secs)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    pumps = [
        asyncio.create_task(_pump_in(tunnel, ours), name="web-tunnel-in"),
        asyncio.create_task(_pump_out(tunnel, ours), name="web-tunnel-out"),
    ]
    try:
        yield theirs
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await tunnel.aclose()
        ours.close()
        theirs.close()


async def _pump_in(tunnel: Tunnel, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, httpcore.ReadError):
        while data := await tunnel.read(_CHUNK):
            await loop.sock_sendall(ours, data)
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_WR)


async def _pump_out(tunnel: Tunnel, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(ours, _CHUNK):
            await tunnel.write(data)
