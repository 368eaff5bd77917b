"""Both clients with a TLS proxy in front of the server: an `https://` address and a trusted certificate suffice."""

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
        with client.create(image="busybox:latest") as sandbox:
            print(json.dumps({"stdout": sandbox.run("echo hello").stdout}))
    except SandboxConnectionError as failure:
        print(json.dumps({"failure": str(failure)}))
"""
TYPESCRIPT = """
import { SandboxClient, SandboxConnectionError } from "sandpool";
const client = new SandboxClient({ retry: { maxAttempts: 1 } });
try {
  await using sandbox = await client.create({ image: "busybox:latest" });
  console.log(JSON.stringify({ stdout: (await sandbox.run("echo hello")).stdout }));
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


def run_python(address: str, **variables: str) -> dict[str, str]:
    """Run the Python program and return its output."""
    environment = {**os.environ, "SANDPOOL_ADDRESS": address, **variables}
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_python_client_verifies_the_certificate(front: tuple[str, Certificates]):
    address, certificates = front
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificates.server / "ca.pem")}
    assert run_python(f"https://{address}", **trusted) == {"stdout": "hello\n"}
    assert address in run_python(f"https://{address}")["failure"], "the certificate is not trusted"
    assert address in run_python(f"http://{address}", **trusted)["failure"], "the proxy requires TLS"


def test_typescript_client_verifies_the_certificate(
    front: tuple[str, Certificates], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    address, certificates = front
    (tmp_path / "untrusting").mkdir()
    untrusting = NodeProject(tmp_path / "untrusting", f"https://{address}")
    untrusting.compile(TYPESCRIPT)
    assert address in untrusting.output("program.js")["failure"], "the certificate is not trusted"
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificates.server / "ca.pem"))
    (tmp_path / "project").mkdir()
    assert NodeProject(tmp_path / "project", f"https://{address}").run(TYPESCRIPT) == {"stdout": "hello\n"}
