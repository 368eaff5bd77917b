"""The types of the client accept what its documentation describes, and reject the rest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CLIENT = ROOT / "clients" / "python"
CASES = sorted(Path(__file__).with_name("typing").glob("*.py"))


def mypy(file: Path, cache: Path) -> tuple[int, str]:
    """The exit code and the output of mypy for a file."""
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--cache-dir", str(cache), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A separate cache: another mypy may run in the tree."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_mypy_accepts_and_rejects_the_cases(cache: Path, file: Path):
    code, said = mypy(file, cache)
    assert code == 0, said


def test_mypy_reports_an_expectation_that_is_not_met(cache: Path, tmp_path: Path):
    """Otherwise the test above could not fail."""
    wrong = tmp_path / "wrong_cases.py"
    wrong.write_text(
        "from sandpool import SandboxClient\n"
        'SandboxClient().create(pool_id="p")  # type: ignore[call-overload]\n'
        'SandboxClient().create(pool_id="p", memory_mb=64)\n'
    )
    code, said = mypy(wrong, cache)
    assert code == 1
    assert 'wrong_cases.py:2: error: Unused "type: ignore' in said
    assert "wrong_cases.py:3: error: No overload variant" in said


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_mypy_accepts_the_client_for_older_and_newer_pythons(cache: Path, version: str):
    """No other check reports a name that the oldest or the newest Python does not have."""
    command = [sys.executable, "-m", "mypy", "--python-version", version, "-p", "sandpool", "--cache-dir", str(cache)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout


def pyright(directory: Path, version: str, *paths: Path) -> tuple[int, str]:
    """The exit code and the output of pyright. basedpyright is pyright with Node in the package."""
    settings = {
        "include": [str(path) for path in paths],
        "extraPaths": [str(CLIENT)],
        "typeCheckingMode": "standard",
        "pythonVersion": version,
        # Some comments of the client are for mypy only, which has no types of google.rpc.
        "reportUnnecessaryTypeIgnoreComment": paths == tuple(CASES),
        "failOnWarnings": True,
    }
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", str(directory), "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, done.stdout + done.stderr


def test_pyright_accepts_and_rejects_the_cases(tmp_path: Path):
    code, said = pyright(tmp_path, "3.11", *CASES)
    assert code == 0, said


def test_pyright_accepts_the_client(tmp_path: Path):
    package = CLIENT / "sandpool"
    by_hand = [package / name for name in ("_async", "_sync", "_core", "_models", "_transport", "compat")]
    code, said = pyright(tmp_path, "3.10", *by_hand, *package.glob("*.py"))
    assert code == 0, said


def test_pyright_reports_an_error(tmp_path: Path):
    wrong = tmp_path / "wrong_cases.py"
    wrong.write_text('from sandpool import SandboxClient\nSandboxClient().create(pool_id="p", memory_mb=64)\n')
    code, said = pyright(tmp_path, "3.10", wrong)
    assert code == 1
    assert "No overloads" in said
