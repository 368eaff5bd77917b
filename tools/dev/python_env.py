"""The Python environment of the clone. pip installs uv, and uv installs the packages of the lock files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.debian import Packages
from tools.dev.paths import Paths
from tools.dev.stamps import Stamp, digest

OLDEST = (3, 11)
OLDEST_OF_CLIENT = (3, 10)
LOCK_FILES = ("uv", "go", "node", "protoc", "dev", "server", "client", "peers", "peers-oldest", "peers-newest")
CONSTRAINED = ("server", "client")  # Their versions are constrained by dev.
WITH_CLIENT = ("peers", "peers-oldest", "peers-newest")  # They must be compatible with the client's dependencies.
NETWORK_HINT = "check that this machine reaches its Python package index (pip's settings apply)"


class PythonEnvironment:
    """`.venv` with the packages of `requirements/dev.txt`, and the packages of this repository as editable."""

    def __init__(self, paths: Paths, console: Console, packages: Packages) -> None:
        self._paths = paths
        self._console = console
        self._packages = packages
        self._stamp = Stamp(paths.venv / "sandpool.stamp")
        self._uv_directory = paths.build / "uv"
        self._lock = paths.locks / "dev.txt"
        self._projects = (paths.repo, paths.repo / "clients" / "python")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self._stamp.matches(self._version()) and self._uv().exists():
            return []
        lines = [f"Python packages of requirements/dev.txt, installed in {self._paths.venv}"]
        if not self._works() and not _can_make_environments():
            lines.insert(0, "Debian package: python3-venv")
        return lines

    def ensure(self) -> None:
        """Install the packages of the lock file."""
        if not self.plan():
            return
        if sys.version_info[:2] < OLDEST:
            raise StepFailed(
                f"Python {sys.version.split()[0]} is too old; the minimum is {'.'.join(map(str, OLDEST))}",
                "run make with PYTHON=python3.11",
            )
        with self._console.step("Python environment"):
            self._stamp.clear()
            if not self._works():
                self._create()
            self._install_uv()
            # Compile now: if Python may not write bytecode later, each start would compile all packages again.
            self._uv_pip("sync", "--compile-bytecode", self._lock)
            editable = [part for project in self._projects for part in ("--editable", str(project))]
            self._uv_pip("install", "--no-deps", "--no-build-isolation", *editable)
            self._stamp.write(self._version())

    def install_apart(self, lock: Path, directory: Path, finish: Callable[[Path], None]) -> None:
        """Install the packages of a lock file in a separate directory, atomically.

        `finish` completes the directory before it gets its final name.
        """
        partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
        directory.parent.mkdir(parents=True, exist_ok=True)
        self._uv_pip("install", "--target", str(partial), "--requirements", lock)
        finish(partial)
        partial.replace(directory)

    def create_apart(self, base: Path, lock: Path, directory: Path) -> None:
        """Create an environment with the interpreter `base` and the packages of a lock file, atomically."""
        partial = directory.with_name(f"{directory.name}.partial-{os.getpid()}")
        self._console.run("python", [self._uv(), "venv", "--quiet", "--clear", "--python", base, partial])
        self._uv_pip("sync", "--compile-bytecode", lock, python=partial / "bin" / "python")
        partial.replace(directory)

    def install_wheel(self, python: Path, wheel: Path) -> None:
        """Install a wheel in an environment with its dependencies. Raises `StepFailed` if they are incompatible."""
        uv = [str(self._uv()), "pip"]
        options = ["--python", str(python)]
        self._console.run("python", [*uv, "install", *options, "--no-deps", "--offline", "--reinstall", str(wheel)])
        self._console.run("python", [*uv, "check", *options])

    def lock(self) -> None:
        """Update the lock files from the `.in` files, with the latest releases.

        The lock files contain no host names of this machine's package index.
        """
        self._create_if_missing()
        for name in LOCK_FILES:
            source, target = self._paths.locks / f"{name}.in", self._paths.locks / f"{name}.txt"
            limit = ["--constraint", "requirements/dev.txt"] if name in CONSTRAINED else []
            more = ["clients/python/pyproject.toml"] if name in WITH_CLIENT else []
            oldest = OLDEST_OF_CLIENT if name == "client" else OLDEST
            with self._console.step(f"locking {name}"):
                argv = ["pip", "compile", "--quiet", "--universal", "--upgrade", "--no-header"]
                argv += ["--generate-hashes", "--python-version", ".".join(map(str, oldest))]
                argv += ["--no-emit-index-url", "--no-emit-find-links", *limit]
                # Relative paths, because they appear in the comments of the lock file.
                argv += [f"requirements/{name}.in", *more, "--output-file", f"requirements/{name}.txt"]
                self._console.run("lock", [self._uv(), *argv], cwd=self._paths.repo)
            if "://" in target.read_text():
                raise StepFailed(f"the lock file {target} contains a URL", f"remove the requirement from {source}")

    def _create_if_missing(self) -> None:
        if not self._works():
            self._create()
        self._install_uv()

    def _works(self) -> bool:
        """Return whether the interpreter of the environment works. It does not if its base was removed."""
        try:
            argv = [str(self._paths.python), "-m", "pip", "--version"]
            return subprocess.run(argv, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def _create(self) -> None:
        if not _can_make_environments():
            self._packages.install(["python3-venv"], "a Python environment")
        argv = [sys.executable, "-m", "venv", "--clear", str(self._paths.venv)]
        self._console.run("python", argv, hint=f"remove {self._paths.venv} and run the command again")

    def _uv(self) -> Path:
        return self._uv_directory / "bin" / "uv"

    def _install_uv(self) -> None:
        lock = self._paths.locks / "uv.txt"
        stamp = Stamp(self._uv_directory / "sandpool.stamp")
        version = digest([lock])
        if stamp.matches(version) and self._uv().exists():
            return
        argv = [str(self._paths.python), "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"]
        argv += ["--require-hashes", "--target", str(self._uv_directory), "--requirement", str(lock)]
        self._console.run("python", argv, hint=NETWORK_HINT)
        stamp.write(version)

    def _uv_pip(self, verb: str, *rest: str | Path, python: Path | None = None) -> None:
        hashes = [] if "--editable" in rest else ["--require-hashes"]
        argv = [str(self._uv()), "pip", verb, "--python", str(python or self._paths.python), *hashes, *map(str, rest)]
        self._console.run("python", argv, cwd=self._paths.repo, hint=NETWORK_HINT)

    def _version(self) -> str:
        files = [self._lock, *(project / "pyproject.toml" for project in self._projects)]
        return digest(files, sys.version, str(self._paths.repo))


def _can_make_environments() -> bool:
    """Return whether `python3 -m venv` works. On Debian, it needs a separate package."""
    argv = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
