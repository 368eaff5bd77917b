"""Sandboxes and the results of commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sandpool._models.container import ContainerSpec, SpecAttributes
from sandpool._models.enums import ExitReason, SandboxState, StartType, TerminationReason


@dataclass(frozen=True)
class SandboxInfo(SpecAttributes):
    """A sandbox at the time of the response."""

    sandbox_id: str
    """The identifier that the server assigned."""
    name: str | None
    """The name that the caller chose, or None."""
    state: SandboxState
    """The state of the sandbox."""
    pool_id: str | None
    """The identifier of the pool that the sandbox belongs to, or None."""
    template_name: str | None
    """The name of the template that the sandbox uses, directly or through its pool, or None."""
    spec: ContainerSpec
    """The container specification. The additional `env` of the create call is not returned."""
    timeout_secs: float
    """The lifetime in seconds, counted from the claim. 0: no limit."""
    metadata: Mapping[str, str] = field(hash=False)
    """Labels that the caller chose."""
    start_type: StartType | None
    """Whether the sandbox started warm or cold, or None while it is starting."""
    start_duration: float | None
    """Seconds from the request to a sandbox that runs commands, or None while it is starting."""
    create_time: datetime | None
    """When the sandbox was claimed."""
    expire_time: datetime | None
    """When the lifetime ends, or None without a limit."""
    end_time: datetime | None
    """When the sandbox terminated, or None before."""
    termination_reason: TerminationReason | None
    """Why the sandbox terminated, or None before."""
    termination_message: str | None
    """Details about the termination for a person, or None."""
    exit_code: int | None
    """The exit code of the container if its first process exited."""
    etag: str
    """Changes with every update. Pass it to an update to detect concurrent changes."""


@dataclass(frozen=True)
class CommandResult:
    """The output of a command and how it exited.

    `Sandbox.run` keeps at most 64 MiB of each stream, with `resumable=False` 1 MiB. Further bytes are counted and
    dropped.
    """

    stdout: str
    """Standard output as text. Bytes that are not UTF-8 are replaced by U+FFFD."""
    stderr: str
    """Standard error as text. Bytes that are not UTF-8 are replaced by U+FFFD."""
    stdout_bytes: bytes = field(repr=False)
    """Standard output as bytes."""
    stderr_bytes: bytes = field(repr=False)
    """Standard error as bytes."""
    exit_code: int | None
    """The exit code, 0 to 255, or None if a signal terminated the command."""
    signal: int | None
    """The number of the signal that terminated the command, or None."""
    reason: ExitReason
    """How the command exited."""
    duration: float
    """How long the command ran, in seconds."""
    stdout_dropped_bytes: int
    """The number of bytes of standard output that were dropped."""
    stderr_dropped_bytes: int
    """The number of bytes of standard error that were dropped."""

    @property
    def success(self) -> bool:
        """Whether the command exited by itself with exit code 0."""
        return self.exit_code == 0

    @property
    def timed_out(self) -> bool:
        """Whether the command was killed because its timeout passed."""
        return self.reason is ExitReason.TIMED_OUT
