"""Programs in a page of Chromium that use the browser build of the TypeScript client."""

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
    """Return a port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Browser:
    """Runs programs in a page whose origin the server allows, or in a page of another origin."""

    def __init__(self, server: ServerProcess, port: int) -> None:
        self._server = server
        self.port = port
        self.address = f"http://{server.web_address}"
        self.grpc_address = server.address

    def run(self, program: str, port: int | None = None) -> Any:
        """Run the program and return its result. The program can use the variables `sandpool` and `address`."""
        chromium, node = shutil.which("chromium"), shutil.which("node")
        assert chromium is not None, "chromium is not installed; run `make test` to install it"
        assert node is not None, "node is not on PATH; run `make setup`"
        argv = [node, str(DRIVER), chromium, self.address, str(port or self.port), program]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def browser_of_a_server(data: Path) -> Iterator[Browser]:
    """Start a server and yield a browser whose origin the server allows."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with ServerProcess(data, web_address="127.0.0.1:0", web_cors_origins=origin) as server:
        yield Browser(server, port)
