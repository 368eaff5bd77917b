"""Fixtures for the tests of the setup: directories, and a fake engine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tools.dev.console import Console
from tools.dev.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Temporary directories of a clone, a cache and a machine."""
    found = Paths(repo=tmp_path / "clone", cache=tmp_path / "cache", runtime=tmp_path / "run")
    for directory in (found.repo, found.cache, found.runtime):
        directory.mkdir()
    return found


@pytest.fixture
def console(paths: Paths) -> Console:
    return Console(paths.build / "logs")


class StandIn(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A fake engine with `images`. Pulls of `pullable` images succeed. `calls` are the received POST requests."""

    daemon_threads = False

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self.images: set[str] = set()
        self.pullable: set[str] = set()
        self.calls: list[str] = []
        self.stall = threading.Event()
        self.stalling = False
        super().__init__(str(path), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def address_string(self) -> str:
        return "engine"

    def log_message(self, format: str, *arguments: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path == "/_ping":
            return self._respond(200, b"OK")
        name = self.path.removeprefix("/images/").removesuffix("/json").replace("%3A", ":")
        if name in self.server.images:
            return self._respond(200, b"{}")
        return self._respond(404, json.dumps({"message": f"No such image: {name}"}).encode())

    def do_POST(self) -> None:
        self.server.calls.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.stalling:
            self.send_response(200)
            self.end_headers()
            self.server.stall.wait(30)
            return None
        name = self.path.partition("fromImage=")[2].replace("&tag=", ":")
        if name and name not in self.server.pullable:
            return self._respond(200, b'{"status":"trying"}\r\n{"error":"manifest unknown"}\r\n')
        return self._respond(200, b'{"status":"done"}\r\n')

    def _respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    """A fake engine that listens on a temporary socket."""
    server = StandIn(tmp_path / "engine.sock")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stall.set()
    server.shutdown()
    thread.join()
    server.server_close()
