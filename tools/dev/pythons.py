"""The Python client's tests on the other Pythons that it is for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
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
NOT_HERE = ("test_load.py", "test_notebook.py", "test_typing.py", "test_wheel.py")
"""What is about the machine, or about what surrounds the client: it runs on the clone's own Python alone."""
QUESTION = "import sys; print('%d.%d' % sys.version_info[:2])"
LARGEST_WAIT = 300.0  # seconds for the tests on one Python, which need about 15


class Pythons:
    """Environments with what requirements/client.txt names, one for each Python that can be had, in the cache."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str], python: PythonEnvironment) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._python = python
        self._cache = paths.cache / "pythons"
        self._lock = paths.locks / "client.txt"

    def test(self) -> int:
        """Run the tests on each, as many at a time as there are processors; 1 when they fail on any.

        A Python that cannot be had is told and no failure.
        """
        try:
            with exclusive(self._paths.cache / "pythons.lock", self._console, "making environments"):
                pythons = self._environments()
        except StepFailed as failure:
            self._console.say(failure.report())
            return 1
        with ThreadPoolExecutor(os.cpu_count()) as together:
            return max(together.map(self._test_on, pythons), default=0)

    def _environments(self) -> list[tuple[str, Path]]:
        own = version_of(self._paths.python)
        found = {version: self._find(version) for version in VERSIONS if version != own}
        missing = [version for version, python in found.items() if python is None]
        if missing:
            self._console.say(
                f"    left out, since this machine has none: Python {', '.join(missing)}. That is no failure: "
                "the types are checked for the oldest and the newest, and the tests run where there is one."
            )
        return [(version, self._environment(version, base)) for version, base in found.items() if base is not None]

    def _find(self, version: str) -> Path | None:
        python = find(version, self._env)
        if python is None:
            try:
                python = debian_python(version, self._cache, self._console)
            except StepFailed as failure:
                self._console.say(f"    no Python {version} from Debian: {failure.message}")
        return python if python is not None and version_of(python) == version else None

    def _environment(self, version: str, base: Path) -> Path:
        """The interpreter of an environment that is as the lock says."""
        folder = self._cache / f"{version}-{digest((), str(base), self._lock.read_text())[:12]}"
        python = folder / "bin" / "python"
        if version_of(python) != version:
            with self._console.step(f"environment for {base}"):
                shutil.rmtree(folder, ignore_errors=True)
                self._python.create_apart(base, self._lock, folder)
        return python

    def _test_on(self, named: tuple[str, Path]) -> int:
        """0 when all pass. One line is said then, and all that pytest printed otherwise."""
        version, python = named
        argv = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
        argv += [f"--confcutdir={TESTS}"]  # the folders above set up what only the server's tests have
        argv += [f"--ignore={TESTS}/{name}" for name in NOT_HERE]
        env = {**self._env, "PYTHONPATH": str(self._paths.repo / "clients" / "python")}
        try:
            done = subprocess.run(
                argv,
                cwd=self._paths.repo,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LARGEST_WAIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._console.say(f"    Python {version}: no end after {LARGEST_WAIT:.0f} s")
            return 1
        last = done.stdout.rstrip().rpartition("\n")[2]
        self._console.say(f"    Python {version}: {last if done.returncode == 0 else done.stdout}")
        return int(done.returncode != 0)


def find(version: str, env: Mapping[str, str]) -> Path | None:
    """An interpreter of this version that starts: of the PATH, or one of pyenv's."""
    return next((found for found in _candidates(version, env) if version_of(found) == version), None)


def _candidates(version: str, env: Mapping[str, str]) -> Iterator[Path]:
    on_path = shutil.which(f"python{version}", path=env.get("PATH", os.defpath))
    if on_path is not None:
        yield Path(on_path)
    root = Path(env.get("PYENV_ROOT") or Path(env.get("HOME", "/")) / ".pyenv")
    yield from sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)


def version_of(python: Path) -> str:
    """`3.13` for instance; empty where it does not start, as a shim does that leads nowhere."""
    try:
        done = subprocess.run([python, "-c", QUESTION], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
