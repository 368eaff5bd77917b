"""What the web port serves under which host name: exposed ports under theirs, the API under its own."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware

from sandpool_server.web.asgi import Application, Receive, Scope, Send, refuse
from sandpool_server.web.hosts import Hosts
from sandpool_server.web.proxy import Proxy

_EXPOSED_HEADERS = ("grpc-status", "grpc-message", "grpc-status-details-bin")


class WebApp:
    """The ASGI application of the web port.

    Pages of other origins reach the API only when `cors_origins` names theirs. Their browsers ask before most calls,
    but not before all: so a request with another `Origin` is refused whatever it asks.
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
            await refuse(scope, send, 421, "nothing is served under this host name; --web-hosts names those of the API")
        elif origin and origin not in self._origins and origin != f"{scope['scheme']}://{host}":
            await refuse(scope, send, 403, "pages of this origin may not call; --web-cors-origins allows them to")
        elif scope["type"] == "websocket":
            await refuse(scope, send, 404, "there are no WebSockets here")
        else:
            await self._api(scope, receive, send)
