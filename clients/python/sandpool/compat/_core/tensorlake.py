"""Data and errors of the module `tensorlake`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import sandpool
from sandpool import FileInfo, LogEntry, SandboxState, SandpoolError


class StdinMode(str, Enum):
    """Whether a process has a standard input."""

    CLOSED = "closed"
    """It is empty."""
    PIPE = "pipe"
    """It accepts data."""


class SandboxInfo(sandpool.SandboxInfo):
    """A sandbox at the time of the response."""

    @property
    def status(self) -> SandboxState:
        """The state of the sandbox: `state`."""
        return self.state


class ProcessInfo(sandpool.ProcessInfo):
    """A process of a sandbox, running or exited."""

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None before the exit and if a signal terminated the process."""
        return self.exit.exit_code if self.exit is not None else None

    @property
    def signal(self) -> int | None:
        """The number of the signal that terminated the process, or None."""
        return self.exit.signal if self.exit is not None else None


class OutputResponse(sandpool.ProcessOutput):
    """The buffered output of a process at one point in time."""

    @property
    def lines(self) -> list[str]:
        """The lines of both streams, standard output first."""
        return [*self.stdout.splitlines(), *self.stderr.splitlines()]


@dataclass(frozen=True)
class ListDirectoryResponse:
    """The contents of a directory, by name. It can be iterated over."""

    path: str
    """The directory."""
    entries: tuple[FileInfo, ...]
    """The files and directories in it."""

    def __iter__(self) -> Iterator[FileInfo]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class SandboxLogsResponse:
    """Log lines of a sandbox, oldest first. It can be iterated over."""

    logs: tuple[LogEntry, ...]
    """The lines."""
    next_token: str
    """Pass it to `get_logs` to read the lines after these."""

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(self.logs)

    def __len__(self) -> int:
        return len(self.logs)


class PoolInUseError(sandpool.PoolInUseError):
    """The pool has active sandboxes. The message lists them. Delete them first."""

    @property
    def pool_id(self) -> str | None:
        """The identifier or name of the pool."""
        return self.resource_name


ERROR_CLASSES: dict[type[SandpoolError], type[SandpoolError]] = {sandpool.PoolInUseError: PoolInUseError}
"""The error classes that clients of the module raise in place of those of `sandpool`."""
