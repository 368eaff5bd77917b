"""The clone's Python environment: hashed locks, installed by uv, which pip installs."""

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
LOCK_FILES = ("uv", "go", "node", "dev", "server", "client")  # the last two are constrained by dev
NETWORK_HINT = "check that this machine reaches its Python package index (pip's settings apply)"


class PythonEnvironment:
    """`.venv`, with everything of `requirements/dev.txt` and our own packages as editable."""

    def __init__(self, paths: Paths, console: Console, packages: Packages) -> None:
        self._paths = paths
        self._console = console
        self._packages = packages
        self._stamp = Stamp(paths.venv / "sandpool.stamp")
        self._uv_folder = paths.build / "uv"
        self._lock = paths.locks / "dev.txt"
        self._projects = (paths.repo, paths.repo / "clients" / "python")

    def plan(self) -> list[str]:
        """What has to be done, in words."""
        if self._stamp.matches(self._version()) and self._uv().exists():
            return []
        lines = [f"Python packages of requirements/dev.txt, into {self._paths.venv}"]
        if not self._works() and not _can_make_environments():
            lines.insert(0, "Debian package: python3-venv")
        return lines

    def ensure(self) -> None:
        """Have the environment as the locks say."""
        if not self.plan():
            return
        if sys.version_info[:2] < OLDEST:
            raise StepFailed(f"Python {sys.version.split()[0]} is too old", "run make with PYTHON=python3.11")
        with self._console.step("Python environment"):
            self._stamp.clear()
            if not self._works():
                self._create()
            self._install_uv()
            # Compiled here: where Python may not write bytecode, every start would compile every package anew.
            self._uv_pip("sync", "--compile-bytecode", self._lock)
            editable = [part for project in self._projects for part in ("--editable", str(project))]
            self._uv_pip("install", "--no-deps", "--no-build-isolation", *editable)
            self._stamp.write(self._version())

    def install_apart(self, lock: Path, folder: Path, finish: Callable[[Path], None]) -> None:
        """Install what a lock file names into a folder of its own, whole or not at all.

        `finish` does what is left to do in the folder before it gets its name.
        """
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._uv_pip("install", "--target", str(partial), "--requirements", lock)
        finish(partial)
        partial.replace(folder)

    def create_apart(self, base: Path, lock: Path, folder: Path) -> None:
        """Make an environment of another interpreter with what a lock file names, whole or not at all."""
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        self._console.run("python", [self._uv(), "venv", "--quiet", "--clear", "--python", base, partial])
        self._uv_pip("sync", "--compile-bytecode", lock, python=partial / "bin" / "python")
        partial.replace(folder)

    def lock(self) -> None:
        """Write the lock files anew from the `.in` files, with the newest releases.

        No host of the machine that does it gets into them.
        """
        self._create_if_missing()
        for name in LOCK_FILES:
            source, target = self._paths.locks / f"{name}.in", self._paths.locks / f"{name}.txt"
            limit = ["--constraint", "requirements/dev.txt"] if name in ("server", "client") else []
            oldest = OLDEST_OF_CLIENT if name == "client" else OLDEST
            with self._console.step(f"locking {name}"):
                argv = ["pip", "compile", "--quiet", "--universal", "--upgrade", "--no-header"]
                argv += ["--generate-hashes", "--python-version", ".".join(map(str, oldest))]
                argv += ["--no-emit-index-url", "--no-emit-find-links", *limit]
                # Relative names: the comments of a lock say which file asked for a line.
                argv += [f"requirements/{name}.in", "--output-file", f"requirements/{name}.txt"]
                self._console.run("lock", [self._uv(), *argv], cwd=self._paths.repo)
            if "://" in target.read_text():
                raise StepFailed(f"{target} names a host", f"see what {source} asks for")

    def _create_if_missing(self) -> None:
        if not self._works():
            self._create()
        self._install_uv()

    def _works(self) -> bool:
        """Whether the environment's interpreter starts: it does not when its base has gone."""
        try:
            argv = [str(self._paths.python), "-m", "pip", "--version"]
            return subprocess.run(argv, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def _create(self) -> None:
        if not _can_make_environments():
            self._packages.install(["python3-venv"], "a Python environment")
        argv = [sys.executable, "-m", "venv", "--clear", str(self._paths.venv)]
        self._console.run("python", argv, hint=f"remove {self._paths.venv} and try again")

    def _uv(self) -> Path:
        return self._uv_folder / "bin" / "uv"

    def _install_uv(self) -> None:
        lock = self._paths.locks / "uv.txt"
        stamp = Stamp(self._uv_folder / "sandpool.stamp")
        version = digest([lock])
        if stamp.matches(version) and self._uv().exists():
            return
        argv = [str(self._paths.python), "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"]
        argv += ["--require-hashes", "--target", str(self._uv_folder), "--requirement", str(lock)]
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
    """Debian splits what `python3 -m venv` needs into a package of its own."""
    argv = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
