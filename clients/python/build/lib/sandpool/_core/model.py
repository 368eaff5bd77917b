"""What the client gives back: frozen dataclasses. Times are aware datetimes in UTC, spans are timedeltas.

The representation leaves `env` out: people keep in there what does not belong in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandpool._core.enums import (
    CommandEndReason,
    DiskEnforcement,
    PoolErrorReason,
    PoolEventType,
    PoolState,
    PullPolicy,
    SandboxEndReason,
    SandboxStart,
    SandboxState,
)


@dataclass(frozen=True)
class PoolError:
    """A failure to create a container for a pool."""

    reason: PoolErrorReason
    message: str
    """What happened and what to do about it, for a person."""
    time: datetime | None
    next_attempt_time: datetime | None
    """When the next attempt is due; None when one is under way."""
    consecutive_failures: int


@dataclass(frozen=True)
class ImagePull:
    """A pull of an image that is under way."""

    image: str
    current_bytes: int
    """Fetched so far."""
    total_bytes: int
    """To fetch, as far as is known by now; may grow."""


@dataclass(frozen=True)
class PoolStatus:
    """What a pool's containers are doing at the moment of the answer."""

    state: PoolState
    warm: int
    """Ready, unclaimed, and of the pool's present specification."""
    creating: int
    active: int
    """Claimed by a sandbox."""
    removing: int
    """Being removed; they count against `max_containers` until they are gone."""
    stale: int
    """Unclaimed, of an earlier specification; never handed out, being replaced."""
    wanted: int
    """How many ready containers the pool aims at."""
    hits: int
    """Sandboxes that were taken from a ready container since the pool was created."""
    misses: int
    """Sandboxes that found no ready container since the pool was created."""
    last_error: PoolError | None
    """The newest failure to fill the pool; None when the last attempt succeeded."""
    image_digest: str
    """The image that the pool's tag names, as the engine identifies it; empty until it was looked up."""
    image_pull: ImagePull | None
    """The pull of the pool's image; None unless one is under way."""
    disk_enforcement: DiskEnforcement | None
    """How `ephemeral_disk_mb` is enforced on this engine; None until the engine has answered."""
    waiting: int
    """Callers who wait in line for a sandbox of this pool."""


@dataclass(frozen=True)
class Pool:
    """A pool of ready containers of one kind."""

    pool_id: str
    name: str
    """The caller's name for it, or empty."""
    template_name: str
    """The template that it follows, or empty."""
    image: str
    cpus: float
    memory_mb: int
    """In MiB, without swap."""
    ephemeral_disk_mb: int
    """In MiB."""
    warm_containers: int
    """How many containers are kept ready and unclaimed."""
    max_containers: int | None
    """The most containers at once, in whatever state; None: no limit."""
    timeout_secs: int
    """The lifetime of a sandbox from its claim; 0: none."""
    secret_names: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str] = field(hash=False, repr=False)
    """Environment of the sandbox's processes and of the entrypoint, over the image's."""
    readiness_command: tuple[str, ...]
    """What must succeed in a container before it counts as ready; empty: a container is ready when it runs commands."""
    readiness_interval_secs: float
    """Between two tries."""
    readiness_timeout_secs: float
    """For one try."""
    readiness_retries: int
    """How often it may fail before the container is given up."""
    pull_policy: PullPolicy
    image_check_secs: int
    """Between two looks at whether the image's tag names another image by now; 0: never."""
    max_age_secs: int
    """After which an unclaimed container is replaced, less up to a fifth at random; 0: never."""
    paused: bool
    drain: bool
    """Paused, and without ready containers."""
    etag: str
    """Give it to an update or a delete to refuse to overwrite another's change."""
    create_time: datetime | None
    update_time: datetime | None
    status: PoolStatus

    @property
    def size(self) -> int:
        """`warm_containers` in the words of the template style."""
        return self.warm_containers

    @property
    def replicas(self) -> int:
        """`warm_containers` under another name of the template style."""
        return self.warm_containers


@dataclass(frozen=True)
class PoolEvent:
    """One event of `watch_pools`."""

    type: PoolEventType
    pool: Pool
    """As it is now, or as it was last when it is deleted."""


@dataclass(frozen=True)
class Template:
    """A named specification of containers, for pools and for sandboxes."""

    template_id: str
    name: str
    image: str
    cpus: float
    memory_mb: int
    """In MiB, without swap."""
    ephemeral_disk_mb: int
    """In MiB."""
    timeout_secs: int
    """The lifetime of a sandbox from its claim; 0: none."""
    secret_names: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str] = field(hash=False, repr=False)
    """Environment of the sandbox's processes and of the entrypoint, over the image's."""
    readiness_command: tuple[str, ...]
    """What must succeed in a container before it counts as ready; empty: a container is ready when it runs commands."""
    readiness_interval_secs: float
    """Between two tries."""
    readiness_timeout_secs: float
    """For one try."""
    readiness_retries: int
    """How often it may fail before the container is given up."""
    etag: str
    """Give it to an update or a delete to refuse to overwrite another's change."""
    create_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True)
class Secret:
    """A secret, which each sandbox of a pool that names it has in its environment. Nobody gets its value back."""

    name: str
    """Its name, and that of the environment variable."""
    create_time: datetime | None
    update_time: datetime | None
    """When its value was changed last."""


@dataclass(frozen=True)
class SandboxInfo:
    """A sandbox as it was at the moment of the answer."""

    sandbox_id: str
    name: str
    """The caller's name for it, or empty."""
    state: SandboxState
    pool_id: str
    """The pool that it counts in, or empty."""
    template_name: str
    """The template that it was made from, directly or through its pool, or empty."""
    image: str
    cpus: float
    memory_mb: int
    """In MiB, without swap."""
    ephemeral_disk_mb: int
    """In MiB."""
    timeout_secs: int
    """The lifetime from the claim; 0: none."""
    secret_names: tuple[str, ...]
    entrypoint: tuple[str, ...]
    env: Mapping[str, str] = field(hash=False, repr=False)
    """Environment of its processes, as its pool, its template or its creation from an image said; what was given for
    this sandbox alone is not repeated."""
    metadata: Mapping[str, str] = field(hash=False)
    start: SandboxStart | None
    """Whether it was taken ready or started for the caller; None while it starts."""
    start_duration: timedelta | None
    """How long the server took until it ran commands; None while it starts."""
    create_time: datetime | None
    """When it was claimed."""
    expire_time: datetime | None
    """When it will be ended; None: it has no lifetime."""
    end_time: datetime | None
    end_reason: SandboxEndReason | None
    """Why it ended; None until then."""
    end_message: str
    exit_code: int | None
    """The exit code of its container, where that ended by itself."""
    etag: str
    """Give it to an update to refuse to overwrite another's change."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it printed."""

    stdout: str
    """Standard output; what is not UTF-8 is replaced by U+FFFD. At most 1 MiB is kept."""
    stderr: str
    """Standard error; what is not UTF-8 is replaced by U+FFFD. At most 1 MiB is kept."""
    stdout_bytes: bytes = field(repr=False)
    """Standard output as it was."""
    stderr_bytes: bytes = field(repr=False)
    """Standard error as it was."""
    exit_code: int | None
    """0 to 255, or None when a signal ended the command: see `signal`."""
    signal: int | None
    """The number of the signal that ended the command, or None when it exited by itself."""
    reason: CommandEndReason
    duration: timedelta
    stdout_dropped_bytes: int
    """How many bytes of standard output were dropped because there were more than 1 MiB."""
    stderr_dropped_bytes: int
    """How many bytes of standard error were dropped because there were more than 1 MiB."""

    @property
    def success(self) -> bool:
        """Whether the command exited by itself with code 0."""
        return self.exit_code == 0

    @property
    def timed_out(self) -> bool:
        """Whether the command was killed because its timeout passed."""
        return self.reason is CommandEndReason.TIMED_OUT
