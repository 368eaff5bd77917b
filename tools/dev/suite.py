"""Every check of this repository, by name: `make test` runs all, `make check` the quick ones."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.pythons import Pythons
from tools.dev.signals import foreground

CONTRACT = ("buf.yaml", "proto", "third_party/proto")
BASES = ("origin/main", "main")
AT_ONCE = ("-n", "2", "--dist", "loadfile")
"""Two files at a time, where it is not containers and their timing that the tests are about."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: a name, and what runs it and gives the exit code."""

    name: str
    run: Callable[[], int]


class Suite:
    """The checks of one clone, run with its own tools on the terminal."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._paths = paths
        self._console = console
        self._env = env

    def quick(self) -> list[Check]:
        """Format, lint, types and unit tests; no engine, nothing slow."""
        return [*self._static(), self._command("unit tests", "pytest", "-q", "tests/unit", "tests/tools")]

    def lint(self) -> list[Check]:
        """Format, lint and types alone."""
        return self._static()

    def whole(self, pythons: Pythons) -> list[Check]:
        """Everything; the environment must name an engine."""
        typescript = self._paths.repo / "clients" / "ts"
        agent = self._paths.repo / "agent"
        return [
            Check("generated code", self._generated_code),
            *self._static(),
            Check("buf breaking", self._contract_breaks),
            self._command("go vet", "go", "vet", "./...", cwd=agent),
            self._command("go test", "go", "test", "./...", cwd=agent),
            self._command("TypeScript check", "npm", "run", "--silent", "check", cwd=typescript),
            self._command("TypeScript test", "npm", "test", "--silent", cwd=typescript),
            self._command("pytest, two files at a time", "pytest", *AT_ONCE, "-m", "beside or not engine", "tests"),
            self._command("pytest, one at a time", "pytest", "-m", "engine and not beside", "tests"),
            Check("Python client on other Pythons", pythons.test),
        ]

    def run(self, checks: list[Check]) -> int:
        """Run all, whatever fails, and say in the end which failed. 0 when none did."""
        results: list[tuple[str, int, float]] = []
        for check in checks:
            self._console.say(f"==> {check.name}")
            started = time.monotonic()
            code = check.run()
            seconds = time.monotonic() - started
            results.append((check.name, code, seconds))
            self._console.say(f"    {'ok' if code == 0 else 'FAILED'} in {seconds:.1f} s")
            if code in (130, 143):
                return code
        self._console.say("")
        for name, code, seconds in results:
            self._console.say(f"{'ok  ' if code == 0 else 'FAIL'} {seconds:7.1f} s  {name}")
        failed = [name for name, code, _ in results if code != 0]
        self._console.say(f"failed: {', '.join(failed)}" if failed else "all passed")
        return 1 if failed else 0

    def _static(self) -> list[Check]:
        return [
            self._command("ruff format", "ruff", "format", "--check", "."),
            self._command("ruff check", "ruff", "check", "--quiet", "."),
            self._command("mypy", "mypy"),
            self._command("mypy of the tools", "mypy", "-p", "tools.dev", "-p", "tools.demo"),
            self._command("import rules", "lint-imports", "--no-cache"),
            self._command("buf lint", "buf", "lint"),
        ]

    def _command(self, name: str, *argv: str, cwd: Path | None = None) -> Check:
        def run() -> int:
            return foreground(argv, self._env, cwd or self._paths.repo)

        return Check(name, run)

    def _generated_code(self) -> int:
        """The committed stubs are what the contract gives. The generator's folder is shared."""
        with exclusive(self._paths.build / "codegen.lock", self._console, "generating code"):
            argv = [str(self._paths.python), "tools/codegen/generate", "--check"]
            return foreground(argv, self._env, self._paths.repo)

    def _contract_breaks(self) -> int:
        """The contract against the one that this branch left main with, where there is one."""
        base = self._base()
        if base is None or not self._git("ls-tree", "--name-only", base, "proto/"):
            self._console.say("    nothing on main to compare to")
            return 0
        with tempfile.TemporaryDirectory(prefix="sandpool-contract-") as folder:
            archive = Path(folder) / "contract.tar"
            there = [name for name in CONTRACT if self._git("ls-tree", "--name-only", base, name)]
            self._git("archive", f"--output={archive}", base, *there)
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            archive.unlink()
            return foreground(["buf", "breaking", "--against", folder], self._env, self._paths.repo)

    def _base(self) -> str | None:
        for name in BASES:
            found = self._git("merge-base", "HEAD", name)
            if found:
                return found
        return None

    def _git(self, *argv: str) -> str:
        """What git answers; empty when it refuses (no such branch, no repository, no git)."""
        try:
            answer = subprocess.run(
                ["git", *argv], cwd=self._paths.repo, env=os.environ, capture_output=True, text=True, check=False
            )
        except OSError:
            return ""
        return answer.stdout.strip() if answer.returncode == 0 else ""
