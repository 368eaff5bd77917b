"""Handing a ready member over by a bare exchange over TCP, which takes a quarter of a gRPC call's time.

The agent's side and the form of the messages: `AgentService.Configure` in proto/sandpool/agent/v1. A connection is
opened while nobody waits, and used once. Whatever goes wrong with it, the same request by gRPC is still possible and
says why.
"""

import asyncio
import contextlib
import socket
from typing import Final, cast

_PREAMBLE: Final = b"SPH1"
_LENGTH_BYTES: Final = 4
_MAX_ANSWER_BYTES: Final = 64 * 1024
"""An honest answer has a hundred; none of a hostile agent's shall cost the server more."""
_CONNECT_SECS: Final = 1.0


class HandOverLine(asyncio.Protocol):
    """A connection to an agent that has been told the token and waits for one request. Made by `open_line`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes | None] | None = None
        self._read = bytearray()

    @property
    def usable(self) -> bool:
        """Whether a request can still be sent, as far as is known."""
        return self._transport is not None and self._answer is None

    async def exchange(self, request: bytes, deadline_secs: float) -> bytes | None:
        """Send the line's one request and return the answer; None when the agent ends the line or talks nonsense.

        Raises `TimeoutError` after `deadline_secs`. The line is closed in any case.
        """
        if self._transport is None or self._answer is not None:
            return None
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(_framed(request))
            async with asyncio.timeout(deadline_secs):
                return await self._answer
        finally:
            self.close()

    def close(self) -> None:
        """Close it; an exchange under way returns None."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # Not by isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer, however it was cut on its way."""
        self._read += data
        size = len(self._read) - _LENGTH_BYTES
        wanted = int.from_bytes(self._read[:_LENGTH_BYTES]) if size >= 0 else None
        if (
            self._answer is None
            or size > _MAX_ANSWER_BYTES
            or (wanted is not None and not size <= wanted <= _MAX_ANSWER_BYTES)
        ):
            self._end(None)  # No honest agent speaks before it is asked, or says more than it announced.
        elif size == wanted:
            self._end(bytes(self._read[_LENGTH_BYTES:]))

    def connection_lost(self, exc: Exception | None) -> None:
        """The agent, or the network, has ended the line."""
        self._transport = None
        self._end(None)

    def _end(self, answer: bytes | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        self.close()


async def open_line(address: str, token: str) -> HandOverLine | None:
    """Open a line to the agent at `host:port`; None when it cannot be reached in a second."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):  # and with it TimeoutError
        async with asyncio.timeout(_CONNECT_SECS):
            transport, line = await asyncio.get_running_loop().create_connection(HandOverLine, host, int(port))
        # Days may pass until it is used. What was not noticed by then is at the exchange.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        transport.write(_PREAMBLE + _framed(token.encode()))
        return line
    return None


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES) + content
