"""Programs and packages in the clone: protoc, grpcurl, the agent, and the TypeScript client with its packages."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.paths import Paths
from tools.dev.python_env import PythonEnvironment
from tools.dev.stamps import Stamp, digest

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
GO_FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w")
GO_HINT = "check that this machine reaches a Go module proxy"
GRPCURL = "github.com/fullstorydev/grpcurl"


class Protoc:
    """The compiler of the Python stubs, in its own Python environment.

    The compiler is older than the protobuf runtime of `.venv`, because generated code does not run with a runtime that
    is older than its compiler. They cannot be in the same environment.
    """

    def __init__(self, paths: Paths, console: Console, python: PythonEnvironment) -> None:
        self._python = python
        self._console = console
        self._interpreter = paths.python
        self._lock = paths.locks / "protoc.txt"
        self._directory = paths.build / "protoc"
        self._stamp = Stamp(self._directory / "sandpool.stamp")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self._stamp.matches(self._version()):
            return []
        return [f"protobuf compiler of requirements/protoc.txt, installed in {self._directory}"]

    def ensure(self) -> None:
        """Install the compiler of the lock file."""
        if not self.plan():
            return
        with self._console.step("protobuf compiler"):
            shutil.rmtree(self._directory, ignore_errors=True)
            self._python.create_apart(self._interpreter, self._lock, self._directory)
            self._stamp.write(self._version())

    def _version(self) -> str:
        return digest((), self._lock.read_text(), str(self._directory))


class Grpcurl:
    """The command-line client `grpcurl`, built from the release that `tools/grpcurl/go.mod` pins."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._source = paths.repo / "tools" / "grpcurl"
        self._console = console
        self.binary = paths.tools / "grpcurl"
        self._stamp = Stamp(paths.stamps / "grpcurl")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self.binary.exists() and self._stamp.matches(self._version()):
            return []
        return [f"grpcurl of tools/grpcurl/go.mod, built as {self.binary}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Build the binary. `env` has Go in its PATH. Without a network, the modules must be in Go's module cache."""
        if not self.plan():
            return
        with self._console.step("grpcurl"):
            self._stamp.clear()
            version = self._version()
            self.binary.parent.mkdir(parents=True, exist_ok=True)
            flags = [*GO_FLAGS[:-1], f"{GO_FLAGS[-1]} -X main.version={self.release()}"]
            argv = ["go", "build", *flags, "-o", str(self.binary), f"{GRPCURL}/cmd/grpcurl"]
            env = {**env, "CGO_ENABLED": "0"}
            self._console.run("grpcurl", argv, cwd=self._source, env=env, hint=GO_HINT)
            self._stamp.write(version)

    def release(self) -> str:
        """Return the pinned release, for example `v1.9.4`."""
        found = re.search(rf"{GRPCURL} (v\S+)", (self._source / "go.mod").read_text())
        if found is None:
            raise StepFailed(f"{self._source / 'go.mod'} does not require {GRPCURL}", "restore the file from git")
        return found[1]

    def _version(self) -> str:
        return digest([self._source / "go.mod", self._source / "go.sum"], *GO_FLAGS)


class Agent:
    """The static program that runs inside every sandbox."""

    def __init__(self, paths: Paths, console: Console) -> None:
        machine = platform.machine()
        if machine not in ARCHITECTURES:
            raise StepFailed(f"the agent does not support the architecture {machine}", "use an x86_64 or arm64 machine")
        self._source = paths.repo / "agent"
        self._console = console
        self._architecture = ARCHITECTURES[machine]
        self.binary = paths.build / f"agent-linux-{self._architecture}"
        self._stamp = Stamp(paths.stamps / "agent")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self.binary.exists() and self._stamp.matches(self._version()):
            return []
        return [f"agent, built from agent/ as {self.binary}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Build the binary if it is not up to date. `env` has Go in its PATH."""
        if not self.plan():
            return
        with self._console.step("agent"):
            self._stamp.clear()
            version = self._version()
            partial = self.binary.with_suffix(".new")
            partial.parent.mkdir(parents=True, exist_ok=True)
            settings = {"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": self._architecture}
            env = {**env, **settings}
            # Download all modules, including those of the code generators: later steps need no network.
            self._console.run("agent", ["go", "mod", "download"], cwd=self._source, env=env, hint=GO_HINT)
            argv = ["go", "build", *GO_FLAGS, "-o", str(partial), "./cmd/agent"]
            self._console.run("agent", argv, cwd=self._source, env=env, hint=GO_HINT)
            partial.replace(self.binary)
            self._stamp.write(version)

    def _version(self) -> str:
        sources = [self._source / "go.mod", self._source / "go.sum"]
        sources += self._source.rglob("*.go")
        return digest(sources, *GO_FLAGS, self._architecture)


class NodePackages:
    """`node_modules` of one directory with a package-lock.json."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._stamp = Stamp(self._directory / "node_modules" / ".sandpool-stamp")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self._stamp.matches(self._version()):
            return []
        return [f"Node packages of package-lock.json, installed in {self._directory / 'node_modules'}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Install the packages of the lock file. `env` has Node in its PATH."""
        if not self.plan():
            return
        with self._console.step(f"Node packages of {self._directory.name}"):
            self._stamp.clear()
            self._console.run(
                "node",
                ["npm", "ci", "--no-audit", "--no-fund"],
                cwd=self._directory,
                env=env,
                hint="check that this machine reaches its npm registry",
            )
            self._stamp.write(self._version())

    def _version(self) -> str:
        names = ("package.json", "package-lock.json", ".npmrc")
        return digest([Path(self._directory, name) for name in names])


class NodeClient:
    """The TypeScript client in its published form, with its examples."""

    def __init__(self, paths: Paths, console: Console) -> None:
        self._directory = paths.repo / "clients" / "ts"
        self._console = console
        self._result = self._directory / "dist"
        self._stamp = Stamp(paths.stamps / "node-client")

    def plan(self) -> list[str]:
        """Return the steps to do, as texts."""
        if self._result.is_dir() and self._stamp.matches(self._version()):
            return []
        return [f"TypeScript client, built as {self._result}"]

    def ensure(self, env: Mapping[str, str]) -> None:
        """Build the client if it is not up to date. `env` has Node in its PATH."""
        if not self.plan():
            return
        with self._console.step("TypeScript client"):
            self._stamp.clear()
            version = self._version()
            self._console.run("node", ["npm", "run", "build"], cwd=self._directory, env=env)
            self._stamp.write(version)

    def _version(self) -> str:
        names = ("package.json", "package-lock.json", "tsconfig.json", "tsdown.config.ts")
        sources = [self._directory / name for name in names]
        sources += [*(self._directory / "src").rglob("*.ts"), *(self._directory / "examples").rglob("*.ts")]
        return digest(sources)
