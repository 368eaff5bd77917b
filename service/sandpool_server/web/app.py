"""The ASGI application of the web port, which selects an exposed port or the API by host name."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware

from sandpool_server.web.asgi import Application, Receive, Scope, Send, refuse
from sandpool_server.web.hosts import Hosts
from sandpool_server.web.proxy import Proxy

_EXPOSED_HEADERS = ("grpc-status", "grpc-message", "grpc-status-details-bin")
_MAX_SHOWN = 200
"""Maximum length of a header's value in an error message."""


class WebApp:
    """The ASGI application of the web port.

    Web pages of other origins can call the API only if `cors_origins` contains their origin. Browsers send a preflight
    request before most cross-origin requests, but not before all. The server therefore rejects all requests with
    another `Origin`.
    """

    def __init__(self, hosts: Hosts, proxy: Proxy, api: Application, cors_origins: Sequence[str]) -> None:
        self._hosts = hosts
        self._proxy = proxy
        self._origins = frozenset(cors_origins)
        self._api: Application = CORSMiddleware(
            api,
            allow_origins=list(cors_origins),
            allow_methods=["POST"],
            allow_headers=["*"],
            expose_headers=list(_EXPOSED_HEADERS),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if (where := self._hosts.sandbox_port(host)) is not None:
            await self._proxy.serve(where, scope, receive, send)
        elif not self._hosts.is_api(host):
            await refuse(
                scope, send, 421, f"unknown host name {host[:_MAX_SHOWN]!r}; add host names of the API with --web-hosts"
            )
        elif origin and origin not in self._origins and origin != f"{scope['scheme']}://{host}":
            await refuse(
                scope,
                send,
                403,
                f"the origin {origin[:_MAX_SHOWN]!r} may not call the API; add origins with --web-cors-origins",
            )
        elif scope["type"] == "websocket":
            await refuse(scope, send, 404, "the API has no WebSockets; use Connect or gRPC-Web")
        else:
            await self._api(scope, receive, send)
