"""Where the development environment keeps its things."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders of one clone (`repo`), one user (`cache`) and one machine (`runtime`).

    `runtime` is shared by every clone on the machine, so that all of them find the same private
    engine, whatever their cache folders are. It holds locks, sockets and nothing of value.
    """

    repo: Path
    cache: Path
    runtime: Path

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ, repo: Path = REPO) -> Paths:
        """Read SANDPOOL_CACHE, XDG_CACHE_HOME and SANDPOOL_RUNTIME_DIR."""
        base = env.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        cache = env.get("SANDPOOL_CACHE") or str(Path(base) / "sandpool")
        runtime = env.get("SANDPOOL_RUNTIME_DIR") or "/run/sandpool"
        return cls(repo=repo, cache=Path(cache).absolute(), runtime=Path(runtime).absolute())

    @property
    def venv(self) -> Path:
        """The Python environment of this clone."""
        return self.repo / ".venv"

    @property
    def python(self) -> Path:
        """The interpreter of `venv`."""
        return self.venv / "bin" / "python"

    @property
    def build(self) -> Path:
        """What this clone builds, with stamps and logs; never committed."""
        return self.repo / "build"

    @property
    def locks(self) -> Path:
        """The hashed lock files of Python packages."""
        return self.repo / "requirements"

    @property
    def stamps(self) -> Path:
        """One file for each finished step, naming what it was made from."""
        return self.build / "stamps"
