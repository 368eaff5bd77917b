"""HTTP and WebSockets to exposed ports of sandboxes.

What a sandbox answers is passed on as it is; it is hostile, and that is why it has a host name, and so an origin, of
its own. Nothing of the server's own is ever served under such a name.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore

from sandpool_server.domain.errors import FailedPrecondition, NotFound, SandpoolError
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.inside import Inside
from sandpool_server.web.asgi import Message, Receive, Scope, Send, refuse
from sandpool_server.web.hosts import SandboxPort
from sandpool_server.web.sockets import WebSocketProxy
from sandpool_server.web.tunnels import TunnelBackend

_CONNECT_SECS = 10.0
_ANSWER_SECS = 300.0
"""How long a sandbox may take to begin its answer, and between two parts of it."""
_IDLE_SECS = 15.0
_MOST_CONNECTIONS = 1024
_MOST_IDLE = 128
_MOST_OF_A_PORT = 256
"""How many requests and WebSockets one port may have at once; more are refused."""

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"))


class BrokenAnswer(Exception):
    """An answer, or a request, ended in the middle."""


class Proxy:
    """An ASGI application behind which all exposed ports are. `close` it at the end."""

    def __init__(self, ports: ExposedPorts, inside: Inside) -> None:
        self._ports = ports
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=TunnelBackend(inside),
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=_MOST_IDLE,
            keepalive_expiry=_IDLE_SECS,
        )
        self._sockets = WebSocketProxy(inside, _CONNECT_SECS)
        self._running: defaultdict[SandboxPort, set[asyncio.Task[None]]] = defaultdict(set)
        ports.withdrawn = self._withdraw

    async def close(self) -> None:
        """Break every connection."""
        for where in list(self._running):
            self._withdraw(where.sandbox_id, where.port)
        await self._pool.aclose()

    def _withdraw(self, sandbox_id: str, port: int) -> None:
        for task in self._running.get(SandboxPort(sandbox_id, port), ()):
            task.cancel()

    async def serve(self, where: SandboxPort, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or carry one WebSocket, until it ends or the port is taken back."""
        running = self._running[where]
        if len(running) >= _MOST_OF_A_PORT:
            await refuse(scope, send, 503, "too many requests to this port are under way; try again")
            return
        work = asyncio.create_task(self._serve(where, scope, receive, send), name="web-proxy")
        running.add(work)
        try:
            # `wait`, unlike awaiting the task, tells its cancellation from one of ours.
            await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            running.discard(work)
            if not running:
                self._running.pop(where, None)
        if work.cancelled():
            raise BrokenAnswer("the port is served no longer")
        work.result()

    async def _serve(self, where: SandboxPort, scope: Scope, receive: Receive, send: Send) -> None:
        sent = _Sent(send)
        try:
            if not await self._ports.is_exposed(where.sandbox_id, where.port):
                await refuse(scope, send, 404, "nothing is served here; expose the port with PortService.ExposePort")
            elif scope["type"] == "websocket":
                await self._sockets.carry(where, scope, receive, sent)
            else:
                await self._forward(where, scope, receive, sent)
        except (SandpoolError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            status, text = _told(error)
            if sent.begun:
                # Too late for a status: the connection is broken, so that nobody takes the part for the whole.
                raise BrokenAnswer(text) from None
            await refuse(scope, send, status, text)

    async def _forward(self, where: SandboxPort, scope: Scope, receive: Receive, send: "_Sent") -> None:
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        limits = {"connect": _CONNECT_SECS, "read": _ANSWER_SECS, "write": _ANSWER_SECS, "pool": 1.0}
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
    """Passes messages on and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


def _forwarded(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers for the sandbox: without those of the connection, and with where the request came from."""
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
    """The headers that `Connection` lists: they are for us alone."""
    return frozenset(
        name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")
    )


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """The request's body. Raises `BrokenAnswer` when its sender goes away."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BrokenAnswer("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _told(error: Any) -> tuple[int, str]:
    """The status and the text for what kept us from an answer."""
    if isinstance(error, NotFound):
        return 404, error.message
    if isinstance(error, FailedPrecondition):
        return (502 if error.reason == "PORT_REFUSED" else 410), error.message
    if isinstance(error, httpcore.PoolTimeout):
        return 503, "the server has too many connections to sandboxes; try again"
    if isinstance(error, httpcore.TimeoutException):
        return 504, "the sandbox did not answer in time"
    if isinstance(error, SandpoolError):
        return 502, error.message
    return 502, "the sandbox's answer is no HTTP, or broke off"
