"""What is built or fetched in the clone itself: the agent, the TypeScript client's packages."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.paths import Paths
from tools.dev.stamps import Stamp, digest

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
GO_FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w")


class Agent:
    """The static program that runs inside every sandbox."""

    def __init__(self, paths: Paths, console: Console) -> None:
        machine = platform.machine()
        if machine not in ARCHITECTURES:
            raise StepFailed(f"no agent is built for {machine}", "use an x86_64 or arm64 machine")
        self._source = paths.repo / "agent"
        self._console = console
        self._architecture = ARCHITECTURES[machine]
        self.binary = paths.build / f"agent-linux-{self._architecture}"
        self._stamp = Stamp(paths.stamps / "agent")

    def plan(self) -> list[str]:
        """What has to be done, in words."""
        if self.binary.exists() and self._stamp.matches(self._version()):
            return []
        return [f"the agent, built from agent/ as {self.binary}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Have the binary as the sources say; `env` has Go in its PATH."""
        if not self.plan():
            return
        with self._console.step("agent"):
            self._stamp.clear()
            version = self._version()
            partial = self.binary.with_suffix(".new")
            partial.parent.mkdir(parents=True, exist_ok=True)
            settings = {"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": self._architecture}
            env = {**env, **settings}
            hint = "if modules cannot be fetched, see that this machine reaches a Go module proxy"
            # All of them, the code generators' too: from here on nothing needs the network.
            self._console.run("agent", ["go", "mod", "download"], cwd=self._source, env=env, hint=hint)
            argv = ["go", "build", *GO_FLAGS, "-o", str(partial), "./cmd/agent"]
            self._console.run("agent", argv, cwd=self._source, env=env, hint=hint)
            partial.replace(self.binary)
            self._stamp.write(version)

    def _version(self) -> str:
        sources = [self._source / "go.mod", self._source / "go.sum"]
        sources += self._source.rglob("*.go")
        return digest(sources, *GO_FLAGS, self._architecture)


class NodePackages:
    """`node_modules` of the TypeScript client."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._folder = paths.repo / "clients" / "ts"
        self._console = console
        self._stamp = Stamp(self._folder / "node_modules" / ".sandpool-stamp")

    def plan(self) -> list[str]:
        """What has to be done, in words."""
        if self._stamp.matches(self._version()):
            return []
        return [f"Node packages of package-lock.json, into {self._folder / 'node_modules'}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Have the packages as the lock says; `env` has Node in its PATH."""
        if not self.plan():
            return
        with self._console.step("Node packages"):
            self._stamp.clear()
            self._console.run(
                "node",
                ["npm", "ci", "--no-audit", "--no-fund"],
                cwd=self._folder,
                env=env,
                hint="see that this machine reaches its npm registry",
            )
            self._stamp.write(self._version())

    def _version(self) -> str:
        names = ("package.json", "package-lock.json", ".npmrc")
        return digest([Path(self._folder, name) for name in names])


class NodeClient:
    """The TypeScript client built as it is published, with its examples."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._folder = paths.repo / "clients" / "ts"
        self._console = console
        self._result = self._folder / "dist"
        self._stamp = Stamp(paths.stamps / "node-client")

    def plan(self) -> list[str]:
        """What has to be done, in words."""
        if self._result.is_dir() and self._stamp.matches(self._version()):
            return []
        return [f"the TypeScript client, built as {self._result}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Have it as the sources say; `env` has Node in its PATH."""
        if not self.plan():
            return
        with self._console.step("TypeScript client"):
            self._stamp.clear()
            version = self._version()
            self._console.run("node", ["npm", "run", "build"], cwd=self._folder, env=env)
            self._stamp.write(version)

    def _version(self) -> str:
        names = ("package.json", "package-lock.json", "tsconfig.json", "tsdown.config.ts")
        sources = [self._folder / name for name in names]
        sources += [*(self._folder / "src").rglob("*.ts"), *(self._folder / "examples").rglob("*.ts")]
        return digest(sources)
