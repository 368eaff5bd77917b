"""The proxy of WebSockets to exposed ports.

It forwards messages between a WebSocket of the browser and a second WebSocket to the sandbox.
"""

import asyncio
from typing import Any

import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.web.asgi import Receive, Scope, Send, refuse
from sandpool_server.web.hosts import SandboxPort
from sandpool_server.web.tunnels import tunnel_socket

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Maximum size of a message in both directions."""

_NOT_FORWARDED = frozenset(
    b"host connection upgrade sec-websocket-key sec-websocket-version sec-websocket-extensions "
    b"sec-websocket-protocol".split()
)
_GOING_AWAY = 1001
_RESERVED_CODES = frozenset((1004, 1005, 1006, 1015))
"""Close codes that only describe a closed WebSocket and must not be sent."""


class WebSocketProxy:
    """Forwards WebSockets to sandboxes."""

    def __init__(self, data_plane: DataPlane, connect_secs: float) -> None:
        self._data_plane = data_plane
        self._connect_secs = connect_secs

    async def carry(self, where: SandboxPort, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a WebSocket until either side closes it. Raises domain errors if the sandbox cannot be reached."""
        await receive()  # the handshake
        async with tunnel_socket(self._data_plane, where.sandbox_id, where.port, self._connect_secs) as raw:
            try:
                connection = await connect(
                    _uri(scope),
                    sock=raw,
                    additional_headers=_headers(scope),
                    user_agent_header=None,
                    subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=self._connect_secs,
                    ping_interval=None,
                    proxy=None,
                )
            except (websockets.exceptions.WebSocketException, OSError, TimeoutError):
                await refuse(
                    scope, send, 502, f"port {where.port} of the sandbox does not accept the WebSocket connection"
                )
                return
            async with connection:
                await send({"type": "websocket.accept", "subprotocol": connection.subprotocol})
                await _both_ways(connection, receive, send)


def _uri(scope: Scope) -> str:
    """Return the URI with the host name that the browser uses. The library derives the `Host` header from it."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "sandbox")
    query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
    return f"ws://{host}{scope['raw_path'].decode('latin-1')}{query}"


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name not in _NOT_FORWARDED
    ]


async def _both_ways(connection: ClientConnection, receive: Receive, send: Send) -> None:
    ways = [
        asyncio.create_task(_to_sandbox(connection, receive), name="web-socket-in"),
        asyncio.create_task(_to_browser(connection, send), name="web-socket-out"),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _to_sandbox(connection: ClientConnection, receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] == "websocket.disconnect":
            await connection.close(_code(message.get("code")), message.get("reason") or "")
            return
        text = message.get("text")
        await connection.send(message.get("bytes") or b"" if text is None else text)


async def _to_browser(connection: ClientConnection, send: Send) -> None:
    try:
        async for data in connection:
            await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
    finally:
        # Close the browser's WebSocket in all cases.
        reason = connection.close_reason or ""
        await send({"type": "websocket.close", "code": _code(connection.close_code), "reason": reason})


def _code(code: int | None) -> int:
    """Return the close code to send after the other side was closed with `code`."""
    return code if code is not None and 1000 <= code < 5000 and code not in _RESERVED_CODES else _GOING_AWAY
