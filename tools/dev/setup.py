"""The whole set-up: first what is missing, in words, then doing it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.dev.builds import Agent, NodeClient, NodePackages
from tools.dev.console import Console
from tools.dev.debian import Packages, missing_test_packages
from tools.dev.engine import Engine, Engines
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.pythons import Pythons
from tools.dev.toolchains import Toolchains


class Setup:
    """Everything that a command may need, made when it is missing."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._packages = Packages(paths, console)
        self.python = PythonEnvironment(paths, console, self._packages)
        self.pythons = Pythons(paths, console, env, self.python)
        self._toolchains = Toolchains(paths, console, self.python)
        self._engines = Engines(paths, console, env)
        self.agent = Agent(paths, console)
        self._node = NodePackages(paths, console)
        self._node_client = NodeClient(paths, console)

    def announce(self, *, engine: bool, tests: bool = False) -> None:
        """Say what will be installed, built or started; only what is missing."""
        lines = self.python.plan() + self._toolchains.plan() + self._node.plan()
        lines += self._node_client.plan() + self.agent.plan()
        if engine:
            lines += self._engines.plan()
        if tests and (missing := missing_test_packages()):
            lines.append(f"Debian packages for tests, their services not started: {' '.join(missing)}")
        if not lines:
            self._console.say("Everything is in place; nothing to install.")
            return
        self._console.say("To be set up (what is there already is used as it is):")
        for line in lines:
            self._console.say(f"  - {line}")

    def tools(self) -> None:
        """Have Python, Go, Node, their packages and the agent; one run at a time in a clone."""
        self._packages.tidy()
        with exclusive(self._paths.build / "setup.lock", self._console, "setting up this clone"):
            self.python.ensure()
            self._toolchains.ensure()
            env = self.environment()
            self._node.ensure(env)
            self._node_client.ensure(env)
            self.agent.ensure(env)

    def test_packages(self) -> None:
        """Have the programs that only tests need."""
        if missing := missing_test_packages():
            self._packages.install(missing, "testing with engines of their own and a browser")

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine with the images, held for the block; tells where it is found."""
        with self._engines.use() as engine:
            yield engine

    def environment(self, engine: Engine | None = None) -> dict[str, str]:
        """The environment for programs of this clone: its tools first, and the engine."""
        first = [self._paths.venv / "bin", *self._toolchains.folders()]
        path = os.pathsep.join([*map(str, first), self._env.get("PATH", os.defpath)])
        env = {**self._env, "PATH": path, "VIRTUAL_ENV": str(self._paths.venv)}
        env |= {"GOTOOLCHAIN": "local"}
        return env | (engine.environment() if engine is not None else {})

    def clean(self) -> list[Path]:
        """The folders of this clone that a set-up makes."""
        modules = self._paths.repo / "clients" / "ts" / "node_modules"
        return [self._paths.venv, self._paths.build, modules]
