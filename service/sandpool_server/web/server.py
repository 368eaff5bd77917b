"""The web port: an HTTP/1.1 server in the process and event loop of the gRPC server."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from sandpool_server.web.app import WebApp
from sandpool_server.web.sockets import MAX_MESSAGE_BYTES

_MAX_CONNECTIONS = 2048


class _Server(uvicorn.Server):
    """A uvicorn server that does not handle signals, because the application does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


class WebServer:
    """Serves an application on a socket."""

    def __init__(self, app: WebApp, listening: socket.socket, drain_secs: float) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            lifespan="off",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(drain_secs)),
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
        )
        self._server = _Server(config)
        self._listening = listening
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start serving. The socket is already listening."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listening]), name="web")

    async def stop(self) -> None:
        """Accept no more requests, and wait until active requests have finished or the drain timeout is exceeded."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._listening.close()
