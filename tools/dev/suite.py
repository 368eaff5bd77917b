"""All checks of this repository: `make test` runs all of them, `make check` the quick ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console
from tools.dev.contract import ContractImage
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.peers import Peers
from tools.dev.pythons import Pythons
from tools.dev.signals import foreground

AT_ONCE = ("-n", "2", "--dist", "loadfile")
"""Two files in parallel, for tests that do not depend on the timing of containers."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, and the function that runs it and returns the exit code."""

    name: str
    run: Callable[[], int]


class Suite:
    """The checks of a clone, which run with its tools on the terminal."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._paths = paths
        self._console = console
        self._env = env

    def quick(self) -> list[Check]:
        """Return the quick checks: format, lint, types and unit tests. They need no engine."""
        return [*self._static(), self._command("unit tests", "pytest", "-q", "tests/unit", "tests/tools")]

    def lint(self) -> list[Check]:
        """Return the checks of format, lint rules and types."""
        return self._static()

    def whole(self, pythons: Pythons, peers: Peers) -> list[Check]:
        """Return all checks. They need an engine in the environment."""
        typescript = self._paths.repo / "clients" / "ts"
        agent = self._paths.repo / "agent"
        return [
            Check("generated code", self._generated_code),
            *self._static(),
            Check("buf breaking", ContractImage(self._paths, self._console, self._env).check),
            self._command("go vet", "go", "vet", "./...", cwd=agent),
            self._command("go test", "go", "test", "./...", cwd=agent),
            self._command("TypeScript check", "npm", "run", "--silent", "check", cwd=typescript),
            self._command("TypeScript test", "npm", "test", "--silent", cwd=typescript),
            self._command("pytest, in parallel", "pytest", *AT_ONCE, "-m", "slow_parallel or not engine", "tests"),
            self._command("pytest, one at a time", "pytest", "-m", "engine and not slow_parallel", "tests"),
            Check("Python client on other Pythons", pythons.test),
            Check("Python client next to other SDKs", peers.test),
        ]

    def run(self, checks: list[Check]) -> int:
        """Run all checks, even if some fail, and print a summary. Returns 0 if all succeed."""
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
            self._command("vocabulary", "node", "tools/prose/lint.mjs"),
        ]

    def _command(self, name: str, *argv: str, cwd: Path | None = None) -> Check:
        def run() -> int:
            return foreground(argv, self._env, cwd or self._paths.repo)

        return Check(name, run)

    def _generated_code(self) -> int:
        """Check that the committed generated code is up to date. The lock protects the generator's directory."""
        with exclusive(self._paths.build / "codegen.lock", self._console, "generating code"):
            argv = [str(self._paths.python), "tools/codegen/generate", "--check"]
            return foreground(argv, self._env, self._paths.repo)
