"""The conformance suite with the TypeScript client, on a server with an engine and on the scripted server."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandpool import SandboxClient
from tests.e2e.test_conformance_python import given, sweep
from tests.support.conformance import DIRECTORY, Case, cases, check_requests
from tests.support.node_project import NodeProject
from tests.support.scripted_server import scripted
from tests.support.server_process import ServerProcess

RUNNER = DIRECTORY.parent / "support" / "conformance.ts"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> NodeProject:
    """Compile the program that runs a case."""
    project = NodeProject(tmp_path_factory.mktemp("conformance"), "")
    project.compile(RUNNER.read_text())
    return project


def run(runner: NodeProject, case: Case, address: str, values: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "case.json"
    fields = {"steps": case.steps, "client": case.client, "given": values, "address": address}
    file.write_text(json.dumps(fields))
    assert runner.output("program.js", str(file)) == {"done": True}


@pytest.mark.engine
@pytest.mark.parametrize("case", cases(scripted=False), ids=str)
def test_conformance(
    case: Case, runner: NodeProject, server: ServerProcess, client: SandboxClient, tmp_path: Path
) -> None:
    try:
        run(runner, case, server.address, given(tmp_path), tmp_path)
    finally:
        sweep(client)


@pytest.mark.parametrize("case", cases(scripted=True), ids=str)
def test_scripted_conformance(case: Case, runner: NodeProject, tmp_path: Path) -> None:
    assert case.script is not None
    with scripted(case.script) as server:
        run(runner, case, server.address, {}, tmp_path)
        check_requests(case, server.calls)


GET_POOL = {"call": "get_pool", "with": {"pool_id": "p"}}
SCRIPT: dict[str, list[dict[str, Any]]] = {
    "ListPools": [{"response": {}}],
    "GetPool": [{"error": {"code": "NOT_FOUND", "reason": "POOL_NOT_FOUND", "resource_type": "pool"}}],
}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"call": "list_pools", "items": "all", "expect": [{"image": "none"}]}, r"result is \[\]"),
        ({"call": "list_pools", "items": "all", "error": {"type": "ValidationError"}}, r"no error, but \[\]"),
        (GET_POOL, "PoolNotFoundError"),
        ({**GET_POOL, "error": {"type": "ValidationError"}}, "not ValidationError"),
        ({**GET_POOL, "error": {"type": "TypeError"}}, "not TypeError"),
        ({**GET_POOL, "error": {"type": "PoolNotFoundError", "reason": "OTHER"}}, "reason is"),
        ({**GET_POOL, "error": {"type": "PoolNotFoundError", "colour": None}}, "there is no colour"),
        ({"call": "no_such_call"}, "there is no noSuchCall"),
        ({"call": "no_such_namespace.call"}, "there is no noSuchNamespace"),
        ({"call": "list_pools", "expects": []}, "an unknown key"),
        ({"call": "list_pools", "expect": {"$like": 1}}, "unknown rule"),
    ],
)
def test_runner_fails_on_unexpected_results(
    step: dict[str, object], message: str, runner: NodeProject, tmp_path: Path
) -> None:
    with scripted(SCRIPT) as server, pytest.raises(AssertionError, match=message):
        run(runner, Case("about", "name", [step]), server.address, {}, tmp_path)
