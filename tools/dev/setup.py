"""The setup: lists the missing parts, then provides them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.dev.builds import Agent, Grpcurl, NodeClient, NodePackages, Protoc
from tools.dev.console import Console
from tools.dev.debian import Packages, missing_test_packages
from tools.dev.engine import Engine, Engines
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.peers import Peers
from tools.dev.python_env import PythonEnvironment
from tools.dev.pythons import Pythons
from tools.dev.toolchains import Toolchains


class Setup:
    """Provides everything that a command needs."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._packages = Packages(paths, console)
        self.python = PythonEnvironment(paths, console, self._packages)
        self.pythons = Pythons(paths, console, env, self.python)
        self.peers = Peers(paths, console, env, self.python)
        self._toolchains = Toolchains(paths, console, self.python)
        self._engines = Engines(paths, console, env)
        self._protoc = Protoc(paths, console, self.python)
        self._grpcurl = Grpcurl(paths, console)
        self.agent = Agent(paths, console)
        self._node = [NodePackages(directory, console) for directory in paths.node_projects]
        self._node_client = NodeClient(paths, console)

    def announce(self, *, engine: bool, tests: bool = False) -> None:
        """Print the parts that will be installed, built or started, because they are missing."""
        lines = self._generators_plan() + self._node_client.plan() + self.agent.plan() + self._grpcurl.plan()
        if engine:
            lines += self._engines.plan()
        if tests and (missing := missing_test_packages()):
            lines.append(f"Debian packages for tests, without starting their services: {' '.join(missing)}")
        self._announce(lines)

    def _announce(self, lines: list[str]) -> None:
        if not lines:
            self._console.say("Everything is installed.")
            return
        self._console.say("The following parts are missing and will be set up:")
        for line in lines:
            self._console.say(f"  - {line}")

    def tools(self) -> None:
        """Provide Python, Go, Node, their packages, the compilers, the agent and grpcurl. Locks the clone."""
        self._packages.tidy()
        with exclusive(self._paths.build / "setup.lock", self._console, "setting up this clone"):
            env = self._ensure_generators()
            self._node_client.ensure(env)
            self.agent.ensure(env)
            self._grpcurl.ensure(env)

    def generators(self) -> None:
        """Print and install the missing code generators, but build nothing from code that is about to change."""
        self._announce(self._generators_plan())
        with exclusive(self._paths.build / "setup.lock", self._console, "setting up this clone"):
            self._ensure_generators()

    def _generators_plan(self) -> list[str]:
        lines = self.python.plan() + self._protoc.plan() + self._toolchains.plan()
        return lines + [line for packages in self._node for line in packages.plan()]

    def _ensure_generators(self) -> dict[str, str]:
        """Install the code generators. Returns the environment variables for programs."""
        self.python.ensure()
        self._protoc.ensure()
        self._toolchains.ensure()
        env = self.environment()
        for packages in self._node:
            packages.ensure(env)
        return env

    def test_packages(self) -> None:
        """Install the programs that only tests need."""
        if missing := missing_test_packages():
            self._packages.install(missing, "testing with separate engines and a browser")

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Return a context manager with an engine that has all images, and is available during the block."""
        with self._engines.use() as engine:
            yield engine

    def environment(self, engine: Engine | None = None) -> dict[str, str]:
        """Return the environment variables for programs of this clone: its tools first in PATH, and the engine."""
        first = [self._paths.venv / "bin", self._paths.tools, *self._toolchains.directories()]
        path = os.pathsep.join([*map(str, first), self._env.get("PATH", os.defpath)])
        env = {**self._env, "PATH": path, "VIRTUAL_ENV": str(self._paths.venv)}
        env |= {"GOTOOLCHAIN": "local"}
        return env | (engine.environment() if engine is not None else {})

    def clean(self) -> list[Path]:
        """Return the directories of this clone that the setup creates."""
        modules = [directory / "node_modules" for directory in self._paths.node_projects]
        return [self._paths.venv, self._paths.build, *modules]
