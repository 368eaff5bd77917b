"""What sandpool is about: specifications, templates, pools, members, commands.

Frozen values of the standard library; times are aware UTC datetimes, sizes in MiB, durations in seconds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState

DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is made of and how much it may use. Two members of equal spec are interchangeable."""

    image: str
    cpus: float = 1.0
    memory_mb: int = 512
    ephemeral_disk_mb: int = 1024
    secret_names: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()

    def digest(self) -> str:
        """A short name of the content (16 hexadecimal digits): equal for equal specs, across processes and restarts."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Template:
    """A named specification. `version` counts the changes, from 1."""

    id: str
    namespace: str
    name: str
    spec: ContainerSpec
    timeout_secs: int
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class PoolFailure:
    """The newest failure to fill a pool, and how many came in a row."""

    reason: FailureReason
    message: str
    time: datetime
    next_attempt_time: datetime
    consecutive: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as its owner set it.

    `spec` and `timeout_secs` are what is in force: the template's where the pool follows one. `own_timeout_secs` is the
    pool's own setting, None where it follows the template.
    """

    id: str
    namespace: str
    name: str
    template_id: str
    template_name: str
    spec: ContainerSpec
    timeout_secs: int
    own_timeout_secs: int | None
    warm_containers: int
    max_containers: int | None
    paused: bool
    version: int
    create_time: datetime
    update_time: datetime
    hits: int = 0
    misses: int = 0
    failure: PoolFailure | None = None
    delete_time: datetime | None = None
    """Set when the pool was deleted; its row stays until its containers are gone and retries of requests are over."""


class PoolCondition(StrEnum):
    """A pool's condition in a word."""

    READY = "ready"
    FILLING = "filling"
    DEGRADED = "degraded"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """How many members a pool has in each situation. `stale` ones are unclaimed and of an earlier spec."""

    warm: int = 0
    creating: int = 0
    starting: int = 0
    active: int = 0
    removing: int = 0
    stale: int = 0

    @property
    def total(self) -> int:
        """All that count against `max_containers`."""
        return self.warm + self.creating + self.starting + self.active + self.removing + self.stale


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool with its members counted: what is shown, and what is planned from."""

    pool: Pool
    counts: PoolCounts

    @property
    def wanted(self) -> int:
        """How many ready members the pool aims at: `warm_containers`, less where `max_containers` leaves no room."""
        if self.pool.paused or self.pool.delete_time is not None:
            return 0
        if self.pool.max_containers is None:
            return self.pool.warm_containers
        in_use = self.counts.active + self.counts.starting
        return max(0, min(self.pool.warm_containers, self.pool.max_containers - in_use))

    @property
    def condition(self) -> PoolCondition:
        """The pool's condition in a word."""
        if self.pool.paused:
            return PoolCondition.PAUSED
        if self.counts.warm >= self.wanted:
            return PoolCondition.READY
        return PoolCondition.DEGRADED if self.pool.failure else PoolCondition.FILLING


class StartKind(StrEnum):
    """How a sandbox got its container."""

    WARM = "warm"
    COLD = "cold"


class EndReason(StrEnum):
    """Why a sandbox ended."""

    DELETED = "deleted"
    TIMED_OUT = "timed_out"
    EXITED = "exited"
    OOM_KILLED = "oom_killed"
    DISK_EXCEEDED = "disk_exceeded"
    LOST = "lost"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caller who takes a member gives it."""

    claim_time: datetime
    timeout_secs: int
    start: StartKind
    name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    request_id: str = ""
    """Empty, or unique among the claims of a namespace."""

    @property
    def expire_time(self) -> datetime | None:
        """When the sandbox ends by itself; None for never."""
        return self.claim_time + timedelta(seconds=self.timeout_secs) if self.timeout_secs else None


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """How a member's life ended."""

    reason: EndReason
    time: datetime
    message: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One container and its row. With a `claim` it is a sandbox, and the two share the id.

    `address` is `host:port` of the agent, empty until the container runs. `pool_id` is empty for a sandbox that belongs
    to no pool. `start_secs` is how long the caller waited, None until the sandbox runs.
    """

    id: str
    namespace: str
    pool_id: str
    template_id: str
    template_name: str
    spec: ContainerSpec
    state: MemberState
    version: int
    create_time: datetime
    address: str = ""
    claim: Claim | None = None
    start_secs: float | None = None
    end: MemberEnd | None = None
    request_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run: either `shell` or `argv`. `user` empty is the image's."""

    timeout_secs: float
    shell: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""


class CommandEndReason(StrEnum):
    """How a command ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM_KILLED = "oom_killed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended and what it printed. Exactly one of `exit_code` and `signal` is set."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    signal: int | None
    reason: CommandEndReason
    duration_secs: float
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
