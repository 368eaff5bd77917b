"""The ports of a sandbox: tunnels, single connections, and ports that are exposed by HTTP."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from functools import partial
from types import TracebackType

from sandpool._async.connection import Connection
from sandpool._core import ports as port_calls
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.ports import CONNECT_TIMEOUT
from sandpool._models.monitor import ExposedPort
from sandpool._transport.asyncio import Duplex, Listener, Opening, Socket, Transport, both, opening
from sandpool.errors import SandboxConnectionError, SandpoolError

_log = logging.getLogger("sandpool")
_LOOPBACK = "127.0.0.1"


class AsyncPortConnection:
    """One connection to a port inside a sandbox."""

    def __init__(self, duplex: Duplex[bytes | None]) -> None:
        self._duplex = duplex

    async def __aenter__(self) -> AsyncPortConnection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        """Send bytes. This waits while the other side does not accept them."""
        for part in port_calls.parts(data):
            await self._duplex.send(port_calls.tunnel_data(part))

    async def end(self) -> None:
        """Close the direction of sending. The other direction stays open."""
        await self._duplex.end()

    async def receive(self) -> bytes:
        """Return the next bytes, or no bytes at the end.

        Raises:
            SandboxConnectionError: The connection was reset.
        """
        return await self._duplex.receive() or b""

    async def close(self) -> None:
        """Close both directions. A second call does nothing."""
        await self._duplex.cancel()


async def connect(
    transport: Transport, sandbox_id: str, port: int, connect_timeout: float, *, retry: bool
) -> AsyncPortConnection:
    """Open a connection. With `retry`, try again while the server or the port does not respond."""
    attempt = 0
    while True:
        attempt += 1
        duplex = transport.duplex(port_calls.open_tunnel(sandbox_id, port, connect_timeout))
        try:
            await duplex.receive()  # The first response confirms that the connection is open.
            return AsyncPortConnection(duplex)
        except SandpoolError as failure:
            pause = transport.retry.pause(attempt, connect_timeout) if retry else None
            if not isinstance(failure, SandboxConnectionError) or pause is None:
                raise port_calls.with_port(failure, port) from failure.__cause__
            await transport.pause(pause)


class AsyncTunnel:
    """A local port that forwards any number of connections to a port inside a sandbox.

    As a context manager, the tunnel is closed at the end of the block. A connection that cannot be opened is closed
    immediately; `last_error` and the log contain the cause.
    """

    def __init__(self, transport: Transport, sandbox_id: str, remote_port: int, connect_timeout: float) -> None:
        self._transport = transport
        self._sandbox_id = sandbox_id
        self._remote_port = remote_port
        self._connect_timeout = connect_timeout
        self._listener = Listener(self._forward, "sandpool tunnel")
        self._connections: set[AsyncPortConnection] = set()
        self._closed = False
        self._local_host = _LOOPBACK
        self.last_error: SandpoolError | None = None
        """The error that closed the most recent failed connection, or None."""

    async def __aenter__(self) -> AsyncTunnel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.local_host}:{self.local_port} to port {self.remote_port}>"

    @property
    def local_host(self) -> str:
        """The local address to connect to."""
        return self._local_host

    @property
    def local_port(self) -> int:
        """The local port to connect to."""
        return self._listener.port

    @property
    def remote_port(self) -> int:
        """The port inside the sandbox."""
        return self._remote_port

    async def close(self) -> None:
        """Stop listening and close the open connections. A second call does nothing."""
        self._closed = True
        for connection in list(self._connections):
            await connection.close()
        await self._listener.close()

    async def _open(self, local_host: str, local_port: int) -> AsyncTunnel:
        await self._listener.open(local_host, local_port)
        self._local_host = local_host
        return self

    async def _forward(self, socket: Socket) -> None:
        """Forward the bytes of one connection in both directions until both have ended."""
        try:
            connection = await connect(
                self._transport, self._sandbox_id, self._remote_port, self._connect_timeout, retry=True
            )
            self._connections.add(connection)
            try:
                await both(partial(_send, socket, connection), partial(_receive, connection, socket))
            finally:
                await connection.close()
                self._connections.discard(connection)
        except SandpoolError as failure:
            if self._closed:
                return
            self.last_error = failure
            _log.warning("connection to port %d of sandbox %s closed: %s", self._remote_port, self._sandbox_id, failure)


async def _send(socket: Socket, connection: AsyncPortConnection) -> None:
    while data := await socket.read(port_calls.PART_BYTES):
        await connection.send(data)
    await connection.end()


async def _receive(connection: AsyncPortConnection, socket: Socket) -> None:
    try:
        while data := await connection.receive():
            if not await socket.write(data):
                await connection.close()
                return
        await socket.end()
    except SandpoolError:
        await socket.close()  # This ends the other direction too.
        raise


class AsyncPorts:
    """The ports of a sandbox.

    `request_timeout` is the time limit of the call with its retries in seconds; the default is the one of the client,
    and None means no limit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection.sandbox_id}>"

    async def expose(self, port: int, *, request_timeout: Timeout = UNSET) -> ExposedPort:
        """Expose a port by HTTP, including WebSockets, under a separate URL until the sandbox terminates.

        Every client that knows the URL can use it. A port that is exposed already is returned unchanged.

        Args:
            port: The port inside the sandbox.
            request_timeout: Time limit of the call in seconds.

        Raises:
            PortExposureDisabledError: The server has no web port.
            QuotaExceededError: 64 ports of the sandbox are exposed already.
        """
        connection = self._connection
        return await connection.transport.call(port_calls.expose_port(connection.sandbox_id, port, request_timeout))

    async def unexpose(self, port: int, *, request_timeout: Timeout = UNSET) -> None:
        """Stop exposing a port and close its connections. This succeeds if the port is not exposed.

        Args:
            port: The port inside the sandbox.
            request_timeout: Time limit of the call in seconds.
        """
        connection = self._connection
        await connection.transport.call(port_calls.unexpose_port(connection.sandbox_id, port, request_timeout))

    async def list(self, *, request_timeout: Timeout = UNSET) -> AsyncGenerator[ExposedPort, None]:
        """Iterate over the exposed ports, by number.

        Args:
            request_timeout: Time limit of the call in seconds.
        """
        connection = self._connection
        found = await connection.transport.call(port_calls.list_exposed_ports(connection.sandbox_id, request_timeout))
        for port in found:
            yield port

    def tunnel(
        self,
        remote_port: int,
        *,
        local_port: int = 0,
        local_host: str = _LOOPBACK,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> Opening[AsyncTunnel]:
        """Open a local port that forwards connections to a port inside the sandbox.

        Args:
            remote_port: The port on the addresses of the sandbox, including loopback.
            local_port: The local port. Default: any free port; see `Tunnel.local_port`.
            local_host: The local address to listen on. With the default, only this machine can connect.
            connect_timeout: Time limit for opening each connection in seconds.

        Raises:
            OSError: The local port is in use.
        """
        connection = self._connection
        tunnel = AsyncTunnel(connection.transport, connection.sandbox_id, remote_port, connect_timeout)
        return opening(tunnel._open(local_host, local_port))

    async def connect(self, port: int, *, connect_timeout: float = CONNECT_TIMEOUT) -> AsyncPortConnection:
        """Open one connection to a port inside the sandbox, without a local port.

        Args:
            port: The port on the addresses of the sandbox, including loopback.
            connect_timeout: Time limit for opening the connection in seconds.

        Raises:
            TunnelConnectionRefusedError: No process listens on the port.
            SandboxConnectionError: The connection was not accepted in time, or the server did not respond.
        """
        connection = self._connection
        return await connect(connection.transport, connection.sandbox_id, port, connect_timeout, retry=False)
