"""Other Python versions: from this machine, or from a newer Debian release."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tools.dev.console import Console, StepFailed
from tools.dev.debian import Packages
from tools.dev.debian_python import RELEASES, debian_python
from tools.dev.paths import REPO, Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.pythons import NOT_HERE, TESTS, VERSIONS, Pythons, find, version_of

APT = """\
#!/bin/sh
case "$*" in
  *indextargets*) echo http://mirror.invalid/debian ;;
  *update*) cp "$(dirname "$APT_CONFIG")/sources.list" {seen} ;;
  *install*) cp {package} "$(dirname "$APT_CONFIG")/archives/" ;;
esac
"""
LOADER = """\
#!/bin/sh
while [ "$1" != "${1#--}" ]; do shift 2; done
exec "$@"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def interpreter(path: Path, output: str, code: int = 0) -> Path:
    return program(path, f"#!/bin/sh\necho {output}\nexit {code}\n")


def test_prefers_the_interpreter_in_path(tmp_path: Path) -> None:
    found = interpreter(tmp_path / "bin" / "python3.12", "3.12")
    interpreter(tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin" / "python", "3.12")
    assert find("3.12", {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}) == found


def test_ignores_a_shim_that_does_not_work(tmp_path: Path) -> None:
    interpreter(tmp_path / "bin" / "python3.10", "command not found", 127)
    found = interpreter(tmp_path / ".pyenv" / "versions" / "3.10.13" / "bin" / "python", "3.10")
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert find("3.10", env) == found
    assert find("3.1", env) is None, "3.10 is not 3.1"
    assert find("3.14", env) is None


def test_reads_the_version_from_the_interpreter(tmp_path: Path) -> None:
    assert version_of(interpreter(tmp_path / "python", "3.13")) == "3.13"
    assert version_of(tmp_path / "none") == ""


def test_all_versions_of_the_package_metadata_are_tested() -> None:
    project = tomllib.loads((REPO / "clients" / "python" / "pyproject.toml").read_text())["project"]
    classifiers = [line.removeprefix("Programming Language :: Python :: ") for line in project["classifiers"]]
    assert tuple(line for line in classifiers if line.startswith("3.")) == VERSIONS
    assert project["requires-python"] == f">={VERSIONS[0]}"
    assert set(RELEASES) <= set(VERSIONS)
    assert all((REPO / TESTS / name).is_file() for name in NOT_HERE)


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake apt-get with one package that contains an interpreter and a loader. Returns the file with its sources."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    root, package, seen = tmp_path / "package", tmp_path / "python.deb", tmp_path / "seen"
    interpreter(root / "usr" / "bin" / "python3.14", "3.14")
    program(root / "usr" / "lib" / "any" / "ld-linux-any.so.2", LOADER)
    control = "Package: python\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.invalid>\nDescription: x\n"
    program(root / "DEBIAN" / "control", control)
    subprocess.run(["dpkg-deb", "--build", root, package], check=True, capture_output=True)
    program(tmp_path / "bin" / "apt-get", APT.format(package=package, seen=seen))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return seen


def test_unpacks_an_interpreter_from_a_newer_debian_release(apt: Path, paths: Paths, console: Console) -> None:
    found = debian_python("3.14", paths.cache, console)
    assert found is not None
    assert version_of(found) == "3.14"
    assert " http://mirror.invalid/debian forky main" in apt.read_text(), "uses the mirror of the machine"
    assert list(paths.cache.iterdir()) == [paths.cache / "debian-forky-3.14"], "no other files remain"
    apt.unlink()
    assert debian_python("3.14", paths.cache, console) == found
    assert not apt.exists(), "a cached interpreter needs no apt-get"
    assert debian_python("3.12", paths.cache, console) is None, "no release of Debian has this version"


@pytest.mark.parametrize("fails", ["indextargets", "update", "install"])
def test_reports_missing_package_sources_without_failing(
    apt: Path, fails: str, paths: Paths, console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(
        tmp_path / "bin" / "apt-get",
        APT.format(package="/none", seen=apt).replace(f"*{fails}*)", f"*{fails}*) exit 100;"),
    )
    with pytest.raises(StepFailed):
        debian_python("3.14", paths.cache, console)
    assert list(paths.cache.iterdir()) == []
    interpreter(paths.python, "3.11")
    env = {"PATH": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    assert Pythons(paths, console, env, PythonEnvironment(paths, console, Packages(paths, console))).test() == 0
    output = capsys.readouterr().out
    assert "cannot get Python 3.14 from Debian: " in output
    assert "not available on this machine: Python 3.10, 3.12, 3.13, 3.14. This is no failure" in output
