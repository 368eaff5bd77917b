"""The conformance suite with the TypeScript client in a page of Chromium, on a server with an engine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.e2e.test_conformance_python import given, sweep
from tests.e2e.test_conformance_typescript import RUNNER
from tests.support.browser import Browser, browser_of_a_server
from tests.support.conformance import Case, cases
from tests.support.node_project import PACKAGE, NodeProject

NODE_ONLY = re.compile(r"\$\{?local|\"ports\.(tunnel|connect)\"")
"""Values and calls that a page does not support: local files and TCP connections."""

REPLACEMENTS = {
    'import { readFileSync } from "node:fs";': "",
    'import * as sandpool from "sandpool";': "",
    'readFileSync(process.argv[2] ?? "", "utf8")': "INPUT",
    "Buffer.compare(found, expected) === 0": "String(found) === String(expected)",
    'Buffer.from(value["$base64"], "base64")': 'Uint8Array.from(atob(value["$base64"]), (one) => one.charCodeAt(0))',
    "await import(path)": "DEFAULTS",
    "console.log(JSON.stringify({ done: true }))": "return { done: true }",
    "export {}": "",
}
"""Code of the runner for Node, and its replacement in a page."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_of_a_server(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the runner as a function body for a page."""
    directory = tmp_path_factory.mktemp("conformance")
    NodeProject(directory, "").compile(RUNNER.read_text())
    text = (directory / "program.js").read_text()
    for old, new in REPLACEMENTS.items():
        assert old == "export {}" or old in text, f"the runner does not contain {old}"
        text = text.replace(old, new)
    constants = (PACKAGE / "dist" / "core" / "defaults.js").read_text()
    defaults = {name: float(value) for name, value in re.findall(r"const (\w+) = ([\d.e]+);", constants)}
    return f"const DEFAULTS = {json.dumps(defaults)};\n{text}"


@pytest.mark.engine
@pytest.mark.parametrize(
    "case", [case for case in cases(scripted=False) if not NODE_ONLY.search(json.dumps(case.steps))], ids=str
)
def test_conformance(case: Case, browser: Browser, program: str, tmp_path: Path) -> None:
    fields = {"steps": case.steps, "client": case.client, "given": given(tmp_path), "address": browser.address}
    content = json.dumps(json.dumps(fields))
    with SandboxClient(browser.grpc_address) as client:
        try:
            assert browser.run(f"const INPUT = {content};\n{program}") == {"done": True}
        finally:
            sweep(client)


@pytest.mark.engine
def test_runner_fails_on_unexpected_results(browser: Browser, program: str) -> None:
    step = {"call": "list_pools", "items": "all", "expect": [{"image": "none"}]}
    content = json.dumps(json.dumps({"steps": [step], "client": None, "given": {}, "address": browser.address}))
    assert "result is []" in browser.run(f"const INPUT = {content};\n{program}")["error"]
