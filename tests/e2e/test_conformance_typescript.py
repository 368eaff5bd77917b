"""The conformance suite of the clients with the TypeScript client, on a real server."""

import json
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.e2e.test_conformance_python import given, sweep
from tests.support.conformance import FOLDER, Case, cases
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

RUNNER = FOLDER.parent / "support" / "conformance.ts"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def runner(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> NodeProject:
    """The program that runs a case, compiled."""
    project = NodeProject(tmp_path_factory.mktemp("conformance"), server.address)
    project.compile(RUNNER.read_text())
    return project


def run(runner: NodeProject, steps: object, tmp_path: Path) -> None:
    case = tmp_path / "case.json"
    case.write_text(json.dumps({"steps": steps, "given": given()}))
    assert runner.output("program.js", str(case)) == {"done": True}


@pytest.mark.parametrize("case", cases(), ids=str)
def test_conformance(case: Case, runner: NodeProject, client: SandboxClient, tmp_path: Path):
    try:
        run(runner, case.steps, tmp_path)
    finally:
        sweep(client)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"call": "list_pools", "expect": [{"image": "none"}]}, r"answer is \[\]"),
        ({"call": "list_pools", "error": {"type": "ValidationError"}}, r"no error, but \[\]"),
        ({"call": "get_pool", "with": {"pool_id": "x"}}, "PoolNotFoundError"),
        ({"call": "get_pool", "with": {"pool_id": "x"}, "error": {"type": "ValidationError"}}, "not ValidationError"),
        (
            {"call": "get_pool", "with": {"pool_id": "x"}, "error": {"type": "PoolNotFoundError", "reason": "OTHER"}},
            "reason is",
        ),
        ({"call": "no_such_call"}, "there is no noSuchCall"),
        ({"call": "list_pools", "expects": []}, "a key that is unknown"),
        ({"call": "list_pools", "expect": {"$like": 1}}, "unknown rule"),
    ],
)
def test_what_is_not_as_expected_fails(step: object, why: str, runner: NodeProject, tmp_path: Path):
    with pytest.raises(AssertionError, match=why):
        run(runner, [step], tmp_path)
