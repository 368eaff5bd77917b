"""Programs in a page of a real Chromium, which use the browser's build of the TypeScript client."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.node_project import PACKAGE
from tests.support.server_process import ServerProcess

DRIVER = PACKAGE / "tests" / "browser" / "drive.mjs"


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Browser:
    """Runs programs in a page of an origin that the server knows, or of another."""

    def __init__(self, server: ServerProcess, port: int) -> None:
        self._server = server
        self.port = port

    def run(self, program: str, port: int | None = None) -> Any:
        """What the program returns; `sandpool` and `address` are there for it."""
        chromium, node = shutil.which("chromium"), shutil.which("node")
        assert chromium is not None, "there is no chromium; `make test` installs it"
        assert node is not None, "there is no node on PATH; run `make setup`"
        words = [node, str(DRIVER), chromium, f"http://{self._server.web_address}", str(port or self.port), program]
        done = subprocess.run(words, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def browser_of_a_server(data: Path) -> Iterator[Browser]:
    """A browser whose pages a server of its own knows by their origin."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with ServerProcess(data, web_address="127.0.0.1:0", web_cors_origins=origin) as server:
        yield Browser(server, port)
