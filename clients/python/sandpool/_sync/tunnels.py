# Made from _async/tunnels.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""Connections to ports inside a sandbox, and its ports that are served by HTTP."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Iterable
from functools import partial
from types import TracebackType

from sandpool._core import ports as port_calls
from sandpool._core.inside import ExposedPort
from sandpool._io.blocking import Duplex, Listener, Socket, Transport, both, opening
from sandpool._sync.base import HandleBase
from sandpool.errors import SandboxConnectionError, SandpoolError

_log = logging.getLogger("sandpool")
_LOOPBACK = "127.0.0.1"
_CONNECT_SECS = 10.0


class PortConnection:
    """One connection to a port inside a sandbox."""

    def __init__(self, duplex: Duplex[bytes | None]) -> None:
        self._duplex = duplex

    def __enter__(self) -> PortConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes; waits while the other side does not take them."""
        for part in port_calls.parts(data):
            self._duplex.send(port_calls.tunnel_data(part))

    def end(self) -> None:
        """Say that nothing more is sent; the other direction goes on."""
        self._duplex.end()

    def receive(self) -> bytes:
        """The next bytes; none at the end."""
        return self._duplex.receive() or b""

    def close(self) -> None:
        """Close it in both directions."""
        self._duplex.cancel()


def connect(
    transport: Transport, sandbox_id: str, port: int, connect_timeout: float, max_reconnects: int
) -> PortConnection:
    """Open a connection, trying again while the server or the port does not answer."""
    attempt = 0
    while True:
        attempt += 1
        duplex = transport.duplex(port_calls.open_tunnel(sandbox_id, port, connect_timeout))
        try:
            duplex.receive()  # says that the connection stands
            return PortConnection(duplex)
        except SandpoolError as failure:
            pause = transport.retry.pause(min(attempt, transport.retry.max_attempts - 1), connect_timeout)
            if not isinstance(failure, SandboxConnectionError) or attempt > max_reconnects or pause is None:
                raise port_calls.about_port(failure, port) from failure.__cause__
            transport.pause(pause)


class Tunnel:
    """A port of this machine behind which a port inside a sandbox is, for any number of connections at once.

    As a context manager it is closed at the end of the block. A connection that cannot be opened is closed at once;
    `last_error` says why, and so does the log.
    """

    def __init__(
        self, transport: Transport, sandbox_id: str, remote_port: int, max_reconnects: int, connect_timeout: float
    ) -> None:
        self._transport = transport
        self._sandbox_id = sandbox_id
        self._remote_port = remote_port
        self._max_reconnects = max_reconnects
        self._connect_timeout = connect_timeout
        self._listener = Listener(self._carry, "sandpool tunnel")
        self._open: set[PortConnection] = set()
        self._closed = False
        self._local_host = _LOOPBACK
        self.last_error: SandpoolError | None = None
        """Why a connection was closed last: a TunnelConnectionRefusedError where nothing listens in the sandbox."""

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.local_host}:{self.local_port} to port {self.remote_port}>"

    @property
    def local_host(self) -> str:
        """The address of this machine to connect to."""
        return self._local_host

    @property
    def local_port(self) -> int:
        """The port of this machine to connect to."""
        return self._listener.port

    @property
    def remote_port(self) -> int:
        """The port inside the sandbox."""
        return self._remote_port

    def open(self, local_host: str, local_port: int) -> Tunnel:
        """Begin to listen; `tunnel` does it. Raises OSError where the port is taken."""
        self._listener.open(local_host, local_port)
        self._local_host = local_host
        return self

    def close(self) -> None:
        """Take no more connections and close those that there are. A second time does nothing."""
        self._closed = True
        for connection in list(self._open):
            connection.close()
        self._listener.close()

    def _carry(self, socket: Socket) -> None:
        """Carry one connection's bytes both ways until both have ended."""
        try:
            connection = connect(
                self._transport, self._sandbox_id, self._remote_port, self._connect_timeout, self._max_reconnects
            )
            self._open.add(connection)
            try:
                both(partial(_up, socket, connection), partial(_down, connection, socket))
            finally:
                connection.close()
                self._open.discard(connection)
        except SandpoolError as failure:
            if self._closed:
                return
            self.last_error = failure
            _log.warning("a connection to port %d of %s ended: %s", self._remote_port, self._sandbox_id, failure)


def _up(socket: Socket, connection: PortConnection) -> None:
    while data := socket.read(port_calls.PART_BYTES):
        connection.send(data)
    connection.end()


def _down(connection: PortConnection, socket: Socket) -> None:
    try:
        while data := connection.receive():
            if not socket.write(data):
                connection.close()
                return
        socket.end()
    except SandpoolError:
        socket.close()  # which ends the other direction too
        raise


class PortMethods(HandleBase):
    """Ports inside a sandbox."""

    def tunnel(
        self,
        remote_port: int,
        *,
        local_port: int = 0,
        max_reconnects: int = 3,
        local_host: str = _LOOPBACK,
        connect_timeout: float = _CONNECT_SECS,
    ) -> Tunnel:
        """Make a port inside the sandbox reachable at a port of this machine.

        Args:
            remote_port: The port inside the sandbox, on any of its addresses, loopback included.
            local_port: The port of this machine; any that is free by default: see `Tunnel.local_port`.
            max_reconnects: How often opening a connection is tried again while nothing answers.
            local_host: The address to listen on; others than this machine can reach only another one than the default.
            connect_timeout: Seconds that one connection may take to stand.

        Raises:
            OSError: The local port is taken.
        """
        made = Tunnel(self._transport, self.sandbox_id, remote_port, max_reconnects, connect_timeout)
        return opening(made.open(local_host, local_port))

    def create_tunnel(
        self,
        remote_port: int,
        *,
        local_host: str = _LOOPBACK,
        local_port: int | None = None,
        connect_timeout: float = _CONNECT_SECS,
    ) -> Tunnel:
        """The same as `tunnel`."""
        return self.tunnel(
            remote_port, local_port=local_port or 0, local_host=local_host, connect_timeout=connect_timeout
        )

    def connect_port(self, port: int, *, connect_timeout: float = _CONNECT_SECS) -> PortConnection:
        """Open one connection to a port inside the sandbox, without a port of this machine.

        Raises:
            TunnelConnectionRefusedError: Nothing listens there.
            SandboxConnectionError: It is not accepted in time, or nothing answers.
        """
        return connect(self._transport, self.sandbox_id, port, connect_timeout, 0)

    def expose_ports(self, ports: int | Iterable[int], *, timeout: float | None = None) -> builtins.list[ExposedPort]:
        """Serve ports of the sandbox by HTTP, WebSockets included, each under a URL of its own, until it ends.

        Whoever knows the URL may use it. A port that is exposed already is answered as it is.

        Raises:
            TunnelPortNotAllowedError: The server has no web port.
        """
        return [
            self._transport.call(port_calls.expose_port(self.sandbox_id, port, timeout))
            for port in port_calls.numbers(ports)
        ]

    def unexpose_ports(self, ports: int | Iterable[int], *, timeout: float | None = None) -> None:
        """Serve ports no longer; connections through them are closed. One that is not exposed is fine."""
        for port in port_calls.numbers(ports):
            self._transport.call(port_calls.unexpose_port(self.sandbox_id, port, timeout))

    def get_port_access(self, *, timeout: float | None = None) -> builtins.list[ExposedPort]:
        """The ports that are exposed, by number."""
        return self._transport.call(port_calls.list_exposed_ports(self.sandbox_id, timeout))
