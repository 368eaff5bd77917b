"""Activation of a warm instance by one message exchange over plain TCP, which takes a quarter of a gRPC call's time.

`AgentService.Configure` in proto/sandpool/agent/v1 specifies the agent's side and the message format. The server opens
the connection in advance, while no caller waits, and uses it once. If the exchange fails, the server sends the same
request over gRPC, which also reports the cause.
"""

import asyncio
import contextlib
import socket
from typing import Final, cast

_PREAMBLE: Final = b"SPH1"
_LENGTH_BYTES: Final = 4
_MAX_RESPONSE_BYTES: Final = 64 * 1024
"""A valid response has about a hundred bytes. The limit bounds the memory that a hostile agent can use."""
_CONNECT_SECS: Final = 1.0


class ActivationConnection(asyncio.Protocol):
    """An authenticated connection to an agent that accepts one request. Created by `open_activation_connection`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._response: asyncio.Future[bytes | None] | None = None
        self._read = bytearray()

    @property
    def usable(self) -> bool:
        """Whether a request can still be sent, as far as the server knows."""
        return self._transport is not None and self._response is None

    async def exchange(self, request: bytes, deadline_secs: float) -> bytes | None:
        """Send the request and return the response. Closes the connection in all cases.

        Returns None if the agent closes the connection or sends an invalid response. Raises `TimeoutError` after
        `deadline_secs`.
        """
        if self._transport is None or self._response is not None:
            return None
        self._response = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(_framed(request))
            async with asyncio.timeout(deadline_secs):
                return await self._response
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection. An active exchange returns None."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # A cast instead of isinstance: uvloop's transports do not inherit from asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Process a part of the response."""
        self._read += data
        size = len(self._read) - _LENGTH_BYTES
        expected = int.from_bytes(self._read[:_LENGTH_BYTES]) if size >= 0 else None
        if (
            self._response is None
            or size > _MAX_RESPONSE_BYTES
            or (expected is not None and not size <= expected <= _MAX_RESPONSE_BYTES)
        ):
            # A valid agent sends nothing before the request, and never more bytes than the announced length.
            self._finish(None)
        elif size == expected:
            self._finish(bytes(self._read[_LENGTH_BYTES:]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Finish an active exchange, because the agent or the network closed the connection."""
        self._transport = None
        self._finish(None)

    def _finish(self, response: bytes | None) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_result(response)
        self.close()


async def open_activation_connection(address: str, token: str) -> ActivationConnection | None:
    """Open a connection to the agent at `host:port`. Returns None if the agent cannot be reached within a second."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):  # Includes TimeoutError.
        async with asyncio.timeout(_CONNECT_SECS):
            transport, connection = await asyncio.get_running_loop().create_connection(
                ActivationConnection, host, int(port)
            )
        # The connection may be idle for days. If keep-alive does not detect a failure, the exchange does.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        transport.write(_PREAMBLE + _framed(token.encode()))
        return connection
    return None


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES) + content
