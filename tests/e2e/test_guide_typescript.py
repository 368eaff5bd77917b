"""The code of docs/guides/typescript.md: for Node as one program on a real server, for browsers in a real Chromium."""

import re
from pathlib import Path

import pytest

from tests.support.browser import browser_of_a_server
from tests.support.node_project import PACKAGE, NodeProject
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "typescript.md"


def blocks(kind: str) -> list[str]:
    """The blocks of code of a kind, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def test_every_block_for_node_runs(tmp_path: Path, server: ServerProcess) -> None:
    found = blocks("ts")
    assert len(found) == 12
    project = NodeProject(tmp_path, server.address)
    for name in ("@connectrpc", "@bufbuild"):
        (tmp_path / "node_modules" / name).symlink_to(PACKAGE / "node_modules" / name)
    printed = project.printed("\n".join(found))
    for part in (
        "2 of 2",
        "hello\n",
        "out\n err\n 3 false exited",
        "stdout 0 hello world",
        "\n40 120\n",
        "running",
        "a,b\n1,2\n",
        f"{5 << 20} of {5 << 20}",
        "/copy/data.csv 8 ",
        "present ",
        "/tmp/new",
        "field: 'cpus'",
        "POOL_IN_USE pool pool-",
        "not_found SANDBOX_NOT_FOUND null",
    ):
        assert part in printed, part


def test_the_block_for_browsers_runs(tmp_path: Path) -> None:
    (block,) = blocks("ts browser")
    imported, address = 'import { SandboxClient } from "sandpool";', '"http://localhost:8080"'
    assert (block.count(imported), block.count(address)) == (1, 1)
    (tmp_path / "node").mkdir()
    NodeProject(tmp_path / "node", "").compile(block, "--lib", "es2022,esnext.disposable,dom")
    program = block.replace(imported, "const { SandboxClient } = sandpool;").replace(address, "address")
    with browser_of_a_server(tmp_path / "data") as browser:
        assert browser.run(f"{program}\nreturn shown.textContent;") == "1\n2\n3\n"
