"""Both clients with TLS before the server: an address with `https://` is all that they need, and whom to trust."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Certificates
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess
from tests.support.tls_front import tls_front

pytestmark = pytest.mark.engine

PYTHON = """
import json
from sandpool import RetryPolicy, SandboxClient, SandboxConnectionError
with SandboxClient(retry=RetryPolicy(max_attempts=1)) as client:
    try:
        with client.create("busybox:latest") as sandbox:
            print(json.dumps({"said": sandbox.run("echo hello").stdout}))
    except SandboxConnectionError as failure:
        print(json.dumps({"failure": str(failure)}))
"""
TYPESCRIPT = """
import { SandboxClient, SandboxConnectionError } from "sandpool";
const client = new SandboxClient({ maxRetries: 0 });
try {
  await using sandbox = await client.create({ image: "busybox:latest" });
  console.log(JSON.stringify({ said: (await sandbox.run("echo hello")).stdout }));
} catch (error) {
  if (!(error instanceof SandboxConnectionError)) throw error;
  console.log(JSON.stringify({ failure: error.message }));
}
client.close();
"""


@pytest.fixture
def front(server: ServerProcess, tmp_path: Path) -> Iterator[tuple[str, Certificates]]:
    with tls_front(server.address, tmp_path / "tls") as found:
        yield found


def told_by_python(address: str, **trusted: str) -> dict[str, str]:
    """What the program tells."""
    environment = {**os.environ, "SANDPOOL_ADDRESS": address, **trusted}
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_python(front: tuple[str, Certificates]):
    address, certificates = front
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificates.server / "ca.pem")}
    assert told_by_python(f"https://{address}", **trusted) == {"said": "hello\n"}
    assert address in told_by_python(f"https://{address}")["failure"], "who signed for it is unknown"
    assert address in told_by_python(f"http://{address}", **trusted)["failure"], "it does not speak without TLS"


def test_typescript(front: tuple[str, Certificates], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    address, certificates = front
    (tmp_path / "stranger").mkdir()
    stranger = NodeProject(tmp_path / "stranger", f"https://{address}")
    stranger.compile(TYPESCRIPT)
    assert address in stranger.output("program.js")["failure"], "who signed for it is unknown"
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificates.server / "ca.pem"))
    (tmp_path / "project").mkdir()
    assert NodeProject(tmp_path / "project", f"https://{address}").run(TYPESCRIPT) == {"said": "hello\n"}
