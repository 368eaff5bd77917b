"""Directories of the development environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Paths:
    """Directories of a clone (`repo`), a user (`cache`) and the machine (`runtime`).

    All clones on the machine share `runtime`, so that they use the same private engine even with different cache
    directories. It contains only temporary files, such as locks and sockets.
    """

    repo: Path
    cache: Path
    runtime: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ, repo: Path = REPO) -> Paths:
        """Return the paths from SANDPOOL_CACHE, XDG_CACHE_HOME and SANDPOOL_RUNTIME_DIR."""
        base = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        cache = env.get("SANDPOOL_CACHE") or str(Path(base) / "sandpool")
        runtime = env.get("SANDPOOL_RUNTIME_DIR") or "/run/sandpool"
        return cls(repo=repo, cache=Path(cache).absolute(), runtime=Path(runtime).absolute())

    @property
    def venv(self) -> Path:
        """Python environment of this clone."""
        return self.repo / ".venv"

    @property
    def python(self) -> Path:
        """Interpreter of `venv`."""
        return self.venv / "bin" / "python"

    @property
    def build(self) -> Path:
        """Build results, stamps and logs of this clone; never committed."""
        return self.repo / "build"

    @property
    def tools(self) -> Path:
        """Programs that this clone builds for its developers, for example grpcurl."""
        return self.build / "bin"

    @property
    def locks(self) -> Path:
        """Lock files of Python packages, with hashes."""
        return self.repo / "requirements"

    @property
    def node_projects(self) -> list[Path]:
        """The directories with Node packages: the TypeScript client and the vocabulary check."""
        return [self.repo / "clients" / "ts", self.repo / "tools" / "prose"]

    @property
    def stamps(self) -> Path:
        """One file for each completed step, with a digest of its inputs."""
        return self.build / "stamps"
