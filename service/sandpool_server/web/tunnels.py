"""Connections to ports of sandboxes, as HTTP's libraries want them: each is a tunnel through the sandbox's agent."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpcore

from sandpool.v1 import port_service_pb2
from sandpool_server.domain.errors import SandpoolError
from sandpool_server.usecases.inside import Inside

_METHOD = "/sandpool.v1.PortService/OpenTunnel"
_CHUNK = 64 * 1024


class Tunnel(httpcore.AsyncNetworkStream):
    """One connection to a port of a sandbox. Belongs to whoever opened it; reading and writing may go on at once."""

    def __init__(self, answers: AsyncGenerator[Any, None], requests: "asyncio.Queue[Any]") -> None:
        self._answers = answers
        self._requests = requests
        self._left = b""

    @classmethod
    async def open(cls, inside: Inside, sandbox_id: str, port: int, timeout_secs: float) -> "Tunnel":
        """Connect. Raises domain errors: no such sandbox, nothing listens, no answer."""
        target = port_service_pb2.TunnelTarget(sandbox_id=sandbox_id, port=port, connect_timeout_secs=timeout_secs)
        # A place for one: whoever writes waits until the message before has gone.
        requests: asyncio.Queue[Any] = asyncio.Queue(1)
        requests.put_nowait(port_service_pb2.OpenTunnelRequest(target=target))
        answers = inside.stream(sandbox_id, _METHOD, _taken(requests))
        try:
            await anext(answers)
        except BaseException:
            await answers.aclose()
            raise
        return cls(answers, requests)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, nothing at the end. Raises `httpcore.ReadError` and `httpcore.ReadTimeout`."""
        if not self._left:
            try:
                async with asyncio.timeout(timeout):
                    self._left = (await anext(self._answers)).data
            except StopAsyncIteration:
                return b""
            except TimeoutError as error:
                raise httpcore.ReadTimeout(str(error)) from error
            except SandpoolError as error:
                raise httpcore.ReadError(error.message) from error
        data, self._left = self._left[:max_bytes], self._left[max_bytes:]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes. Raises `httpcore.WriteTimeout`; that the other side has gone is told by reading."""
        try:
            async with asyncio.timeout(timeout):
                for begin in range(0, len(buffer), _CHUNK):
                    data = buffer[begin : begin + _CHUNK]
                    await self._requests.put(port_service_pb2.OpenTunnelRequest(data=data))
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error

    async def aclose(self) -> None:
        """Break the connection."""
        await self._answers.aclose()


async def _taken(requests: "asyncio.Queue[Any]") -> AsyncIterator[Any]:
    while True:
        yield await requests.get()


class TunnelBackend(httpcore.AsyncNetworkBackend):
    """Connects to `http://<sandbox>:<port>`: the host is a sandbox's identifier."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a tunnel. Raises domain errors, which nobody between here and the proxy looks into."""
        del local_address, socket_options
        return await Tunnel.open(self._inside, host, port, timeout or 10.0)


@asynccontextmanager
async def tunnel_socket(
    inside: Inside, sandbox_id: str, port: int, timeout_secs: float
) -> AsyncIterator[socket.socket]:
    """A tunnel as a connected socket, for libraries that want one. Raises as `Tunnel.open`."""
    tunnel = await Tunnel.open(inside, sandbox_id, port, timeout_secs)
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
