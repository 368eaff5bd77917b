"""Tests of the Python client on the other supported Python versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.debian_python import debian_python
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.stamps import digest

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TESTS = "tests/clients/python"
NOT_HERE = ("test_load.py", "test_notebook.py", "test_peers.py", "test_typing.py", "test_wheel.py")
"""Tests that depend on the machine or on other packages; they run only on the Python of the clone."""
PRINT_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
MAX_SECONDS = 300.0  # For the tests on one version, which take about 15 seconds.


class Pythons:
    """Cached environments with the packages of requirements/client.txt, one for each available Python version."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str], python: PythonEnvironment) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._python = python
        self._cache = paths.cache / "pythons"
        self._lock = paths.locks / "client.txt"

    def test(self) -> int:
        """Run the tests on all versions, in parallel on all processors. Returns 1 if a test fails, otherwise 0.

        Versions that are not available are reported, but are no failure.
        """
        try:
            with exclusive(self._paths.cache / "pythons.lock", self._console, "creating environments"):
                pythons = self._environments()
        except StepFailed as failure:
            self._console.say(failure.report())
            return 1
        tests = ClientTests(self._paths, self._console, self._env)
        with ThreadPoolExecutor(os.cpu_count()) as together:
            return max(together.map(lambda each: tests.run(f"Python {each[0]}", each[1]), pythons), default=0)

    def _environments(self) -> list[tuple[str, Path]]:
        own = version_of(self._paths.python)
        found = {version: self._find(version) for version in VERSIONS if version != own}
        missing = [version for version, python in found.items() if python is None]
        if missing:
            self._console.say(
                f"    skipped, not available on this machine: Python {', '.join(missing)}. This is no failure: "
                "mypy checks the types for the oldest and the newest version."
            )
        return [(version, self._environment(version, base)) for version, base in found.items() if base is not None]

    def _find(self, version: str) -> Path | None:
        python = find(version, self._env)
        if python is None:
            try:
                python = debian_python(version, self._cache, self._console)
            except StepFailed as failure:
                self._console.say(f"    cannot get Python {version} from Debian: {failure.message}")
        return python if python is not None and version_of(python) == version else None

    def _environment(self, version: str, base: Path) -> Path:
        """Return the interpreter of an environment with the packages of the lock file."""
        directory = self._cache / f"{version}-{digest((), str(base), self._lock.read_text())[:12]}"
        python = directory / "bin" / "python"
        if version_of(python) != version:
            with self._console.step(f"environment for {base}"):
                shutil.rmtree(directory, ignore_errors=True)
                self._python.create_apart(base, self._lock, directory)
        return python


class ClientTests:
    """Runs the tests of the Python client with an interpreter that has their dependencies."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._repo = paths.repo
        self._console = console
        self._env = env

    def run(self, name: str, python: Path, files: Sequence[str] = (), *, installed: bool = False) -> int:
        """Run the tests. Prints the summary if they pass, otherwise the whole output of pytest.

        Args:
            name: The name of the run in the output.
            python: The interpreter.
            files: The test files to run; by default all that do not depend on the machine.
            installed: Whether to test the client that is installed for the interpreter, not the one in this clone.

        Returns:
            0 if all tests pass, otherwise 1.
        """
        # Older releases of anyio, which other SDKs install, have a plugin that warns with this pytest.
        argv = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"]
        argv += [f"--confcutdir={TESTS}"]  # conftest.py of parent directories needs packages of the server.
        argv += [f"{TESTS}/{file}" for file in files] or [TESTS, *(f"--ignore={TESTS}/{file}" for file in NOT_HERE)]
        # The in-memory server uses the server's generated code, which imports no other modules of the server.
        sources = [self._repo / "service"] if installed else [self._repo / "service", self._repo / "clients" / "python"]
        env = {**self._env, "PYTHONPATH": os.pathsep.join(map(str, sources))}
        try:
            done = subprocess.run(
                argv,
                cwd=self._repo,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=MAX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._console.say(f"    {name}: the tests exceeded the limit of {MAX_SECONDS:.0f} s")
            return 1
        last = done.stdout.rstrip().rpartition("\n")[2]
        self._console.say(f"    {name}: {last if done.returncode == 0 else done.stdout}")
        return int(done.returncode != 0)


def find(version: str, env: Mapping[str, str]) -> Path | None:
    """Return a working interpreter of this version from PATH or pyenv; None if there is none."""
    return next((found for found in _candidates(version, env) if version_of(found) == version), None)


def _candidates(version: str, env: Mapping[str, str]) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}", path=env.get("PATH", os.defpath))
    if on_path is not None:
        yield Path(on_path)
    root = Path(env.get("PYENV_ROOT") or Path(env.get("HOME", "/")) / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)


def version_of(python: Path) -> str:
    """Return the version of an interpreter, for example `3.13`; empty if it does not work."""
    try:
        done = subprocess.run([python, "-c", PRINT_VERSION], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
