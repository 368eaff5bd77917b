"""The code of README.md and docs/ on a server, one program per page and language."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import ResourceNotFoundError, SandboxClient
from tests.support.browser import browser_of_a_server
from tests.support.doc_code import ADDRESS, Program, programs
from tests.support.grpcurl import GRPCURL
from tests.support.node_project import PACKAGE, NodeProject
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PROGRAM_SECS = 200
IMPORT, BROWSER_ADDRESS = 'import { SandboxClient } from "sandpool";', '"http://localhost:8080"'


def of(language: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "program", [program for program in programs() if program.language == language], ids=str
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server with a web port."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", web_address="127.0.0.1:0") as process:
        yield process


@pytest.fixture(autouse=True)
def empty_server(server: ServerProcess) -> Iterator[None]:
    """Delete all resources after a program, so that the next one starts on an empty server."""
    yield
    with SandboxClient(server.address) as client:
        for pool in list(client.list_pools()):
            client.delete_pool(pool.pool_id, force=True)
        for sandbox in list(client.list_sandboxes()):
            with contextlib.suppress(ResourceNotFoundError):
                client.delete_sandbox(sandbox.sandbox_id)
        for template in list(client.list_templates()):
            client.delete_template(template.name)
        for secret in list(client.list_secrets()):
            client.delete_secret(secret.name, force=True)


@of("python")
def test_runs_python_program(program: Program, server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(program.source)
    check(program, output([sys.executable, str(file)], server, tmp_path))


@of("sh")
def test_runs_shell_program(program: Program, server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "program.sh"
    file.write_text(program.source.replace(ADDRESS, server.address))
    check(program, output(["bash", "-euo", "pipefail", str(file)], server, tmp_path))


@of("ts")
def test_runs_typescript_program(program: Program, server: ServerProcess, tmp_path: Path) -> None:
    project = NodeProject(tmp_path, server.address)
    for name in ("@connectrpc", "@bufbuild"):
        (tmp_path / "node_modules" / name).symlink_to(PACKAGE / "node_modules" / name)
    check(program, project.printed(program.source))


@of("ts browser")
def test_runs_browser_program(program: Program, tmp_path: Path) -> None:
    source = program.source
    assert (source.count(IMPORT), source.count(BROWSER_ADDRESS)) == (1, 1)
    (tmp_path / "node").mkdir()
    NodeProject(tmp_path / "node", "").compile(source, "--lib", "es2022,esnext.disposable,dom")
    script = source.replace(IMPORT, "const { SandboxClient } = sandpool;").replace(BROWSER_ADDRESS, "address")
    with browser_of_a_server(tmp_path / "data") as browser:
        assert browser.run(f"{script}\nreturn shown.textContent;") == "1\n2\n3\n"


def output(command: list[str], server: ServerProcess, directory: Path) -> str:
    """Run a command with the tools of the test's environment on PATH, and return its output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(GRPCURL.parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PATH": path, "SANDPOOL_ADDRESS": server.address, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PROGRAM_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def check(program: Program, printed: str) -> None:
    """Fail if an expected output is missing."""
    missing = program.missing(printed)
    assert missing is None, f"{missing}\n{printed}"
