"""Tests of the Python client next to SDKs of other products, with the oldest and the newest dependencies."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.pythons import ClientTests
from tools.dev.stamps import Stamp, digest


@dataclass(frozen=True, slots=True)
class Environment:
    """A lock file and its SDKs."""

    lock: str
    sdks: tuple[str, ...]


ENVIRONMENTS = (
    Environment("peers-oldest", ("e2b", "langsmith", "modal", "tensorlake")),
    Environment("peers", ("e2b", "langsmith", "modal", "tensorlake")),
    Environment("peers-newest", ("e2b", "langsmith", "modal")),
)
TESTS = ("test_peers.py", "test_processes.py", "test_errors.py", "test_every_method.py")


class Peers:
    """Environments with the client's wheel and the packages of a lock file."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str], python: PythonEnvironment) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._python = python
        self._directory = paths.build / "peers"

    def test(self) -> int:
        """Run the client's tests in each environment. Returns 1 if a test fails or packages are incompatible."""
        try:
            with exclusive(self._paths.build / "peers.lock", self._console, "creating environments"):
                wheel = self._wheel()
                pythons = [(each, self._environment(each, wheel)) for each in ENVIRONMENTS]
        except StepFailed as failure:
            self._console.say(failure.report())
            return 1
        with ThreadPoolExecutor(2) as together:
            return max(together.map(lambda each: self._test_in(*each), pythons), default=0)

    def _wheel(self) -> Path:
        """Build the client's wheel from a copy of its sources, without files of earlier builds. Returns its path."""
        source, out = self._directory / "source", self._directory / "wheel"
        for directory in (source, out):
            shutil.rmtree(directory, ignore_errors=True)
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(self._paths.repo / "clients" / "python", source, ignore=ignored)
        argv = [str(self._paths.python), "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
        self._console.run("peers", argv)
        (wheel,) = out.glob("*.whl")
        return wheel

    def _environment(self, environment: Environment, wheel: Path) -> Path:
        """Return the interpreter of an environment with the packages of its lock file and the wheel."""
        lock = self._paths.locks / f"{environment.lock}.txt"
        directory = self._directory / environment.lock
        stamp = Stamp(directory / "sandpool.stamp")
        version = digest((), lock.read_text(), str(directory))
        if not stamp.matches(version):
            with self._console.step(f"environment of requirements/{lock.name}"):
                shutil.rmtree(directory, ignore_errors=True)
                self._python.create_apart(self._paths.python, lock, directory)
                stamp.write(version)
        python = directory / "bin" / "python"
        self._python.install_wheel(python, wheel)
        return python

    def _test_in(self, environment: Environment, python: Path) -> int:
        tests = ClientTests(
            self._paths, self._console, {**self._env, "SANDPOOL_TEST_PEERS": " ".join(environment.sdks)}
        )
        return tests.run(environment.lock, python, TESTS, installed=True)
