"""The proxy of HTTP requests and WebSockets to exposed ports of sandboxes.

Responses of sandboxes are passed on unchanged. They are untrusted, so each exposed port has its own host name and
origin, at which the server serves no other content.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore

from sandpool_server.domain.errors import FailedPrecondition, NotFound, SandpoolError
from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.web.asgi import Message, Receive, Scope, Send, refuse
from sandpool_server.web.hosts import SandboxPort
from sandpool_server.web.sockets import WebSocketProxy
from sandpool_server.web.tunnels import TunnelBackend

_CONNECT_SECS = 10.0
_RESPONSE_SECS = 300.0
"""Maximum time until a response starts, and between two parts of it."""
_IDLE_SECS = 15.0
_MAX_CONNECTIONS = 1024
_MAX_IDLE = 128
_MAX_PER_PORT = 256
"""Maximum number of concurrent requests and WebSockets of an exposed port; others are rejected."""

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"))


class BrokenResponse(Exception):
    """A response or a request ended before it was complete."""


class Proxy:
    """An ASGI application that serves all exposed ports. Call `close` at the end."""

    def __init__(self, ports: ExposedPorts, data_plane: DataPlane) -> None:
        self._ports = ports
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=TunnelBackend(data_plane),
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_IDLE_SECS,
        )
        self._sockets = WebSocketProxy(data_plane, _CONNECT_SECS)
        self._running: defaultdict[SandboxPort, set[asyncio.Task[None]]] = defaultdict(set)
        ports.withdrawn = self._withdraw

    async def close(self) -> None:
        """Close all connections."""
        for where in list(self._running):
            self._withdraw(where.sandbox_id, where.port)
        await self._pool.aclose()

    def _withdraw(self, sandbox_id: str, port: int) -> None:
        for task in self._running.get(SandboxPort(sandbox_id, port), ()):
            task.cancel()

    async def serve(self, where: SandboxPort, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket until it ends or the port is no longer exposed."""
        running = self._running[where]
        if len(running) >= _MAX_PER_PORT:
            await refuse(scope, send, 503, f"this port has {_MAX_PER_PORT} active requests; try again later")
            return
        work = asyncio.create_task(self._serve(where, scope, receive, send), name="web-proxy")
        running.add(work)
        try:
            # `wait` distinguishes the cancellation of the task from the cancellation of this coroutine.
            await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            running.discard(work)
            if not running:
                self._running.pop(where, None)
        if work.cancelled():
            raise BrokenResponse("the port is no longer exposed")
        work.result()

    async def _serve(self, where: SandboxPort, scope: Scope, receive: Receive, send: Send) -> None:
        sent = _Sent(send)
        try:
            if not await self._ports.is_exposed(where.sandbox_id, where.port):
                await refuse(
                    scope,
                    send,
                    404,
                    f"port {where.port} of {where.sandbox_id} is not exposed; expose it with PortService.ExposePort",
                )
            elif scope["type"] == "websocket":
                await self._sockets.carry(where, scope, receive, sent)
            else:
                await self._forward(where, scope, receive, sent)
        except (SandpoolError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            status, text = _status_and_text(error)
            if sent.begun:
                # It is too late for a status. Close the connection, so that the client detects an incomplete response.
                raise BrokenResponse(text) from None
            await refuse(scope, send, status, text)

    async def _forward(self, where: SandboxPort, scope: Scope, receive: Receive, send: "_Sent") -> None:
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        limits = {"connect": _CONNECT_SECS, "read": _RESPONSE_SECS, "write": _RESPONSE_SECS, "pool": 1.0}
        request = httpcore.Request(
            scope["method"],
            httpcore.URL(scheme=b"http", host=where.sandbox_id.encode(), port=where.port, target=target),
            headers=_forwarded(scope),
            content=_body(receive) if _has_body(scope) else None,
            extensions={"timeout": limits},
        )
        response = await self._pool.handle_async_request(request)
        try:
            headers = [(name, value) for name, value in response.headers if name.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for part in response.aiter_stream():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await response.aclose()


class _Sent:
    """Passes messages on and records whether a response has started."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _forwarded(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers for the sandbox: without hop-by-hop headers, and with the source of the request."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    dropped = _HOP_BY_HOP | _FORWARDED | _named_by_connection(headers)
    chunked = [(name, value) for name, value in headers if name == b"transfer-encoding"]
    host = next((value for name, value in headers if name == b"host"), b"")
    client = scope["client"][0].encode() if scope.get("client") else b"unknown"
    return [
        *((name, value) for name, value in headers if name not in dropped),
        *chunked,
        (b"x-forwarded-for", client),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
    ]


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the names of the headers that `Connection` lists. They apply only to the connection with the client."""
    return frozenset(
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    )


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body of the request. Raises `BrokenResponse` if the client disconnects."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BrokenResponse("the client disconnected")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _status_and_text(error: Any) -> tuple[int, str]:
    """Return the status and the text of the response for an error."""
    if isinstance(error, NotFound):
        return 404, error.message
    if isinstance(error, FailedPrecondition):
        return (502 if error.reason == "PORT_REFUSED" else 410), error.message
    if isinstance(error, httpcore.PoolTimeout):
        return 503, f"the server has {_MAX_CONNECTIONS} connections to sandboxes, the maximum; try again later"
    if isinstance(error, httpcore.TimeoutException):
        return 504, "the sandbox did not respond in time"
    if isinstance(error, SandpoolError):
        return 502, error.message
    return 502, "the response of the sandbox is not valid HTTP, or incomplete; check the server in the sandbox"
