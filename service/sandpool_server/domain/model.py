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
    """What a container is made of and how much it may use. Two members of equal spec are interchangeable.

    `env` are pairs, sorted by name. A container counts as ready once `readiness_command`, where there is one, has
    succeeded in it: tried every `readiness_interval_secs`, for `readiness_timeout_secs` each, failing at most
    `readiness_retries` times.
    """

    image: str
    cpus: float = 1.0
    memory_mb: int = 512
    ephemeral_disk_mb: int = 1024
    secret_names: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    readiness_command: tuple[str, ...] = ()
    readiness_interval_secs: float = 0.5
    readiness_timeout_secs: float = 5.0
    readiness_retries: int = 20

    def digest(self) -> str:
        """A short name of the content (16 hexadecimal digits): equal for equal specs, across processes and restarts."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class PullPolicy(StrEnum):
    """When an image is pulled: when the engine lacks it, before each container, or never."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class DiskEnforcement(StrEnum):
    """Who enforces the limit on disk: the engine's storage, or the server, which looks every few seconds."""

    ENGINE = "engine"
    WATCHED = "watched"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """A pull under way, in bytes; `total` is what is known of so far."""

    image: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's name and times; its value is nowhere in the domain."""

    namespace: str
    name: str
    create_time: datetime
    update_time: datetime


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
    pull_policy: PullPolicy = PullPolicy.MISSING
    image_check_secs: int = 0
    max_age_secs: int = 0
    drain: bool = False
    image_digest: str = ""
    """What the image's tag named at `image_check_time`; looked up only where `image_check_secs` is not 0."""
    image_check_time: datetime | None = None
    hits: int = 0
    misses: int = 0
    failure: PoolFailure | None = None
    delete_time: datetime | None = None
    """Set when the pool was deleted; its row stays until its containers are gone and retries of requests are over."""

    def member_digest(self) -> str:
        """What a member must have been made of to be handed out: the spec and, where the tag is watched, the image."""
        if self.image_check_secs and self.image_digest:
            return hashlib.sha256(f"{self.spec.digest()} {self.image_digest}".encode()).hexdigest()[:16]
        return self.spec.digest()

    @property
    def closed(self) -> bool:
        """Whether sandboxes cannot be taken from it and nothing is created for it."""
        return self.paused or self.drain or self.delete_time is not None


class PoolCondition(StrEnum):
    """A pool's condition in a word."""

    READY = "ready"
    FILLING = "filling"
    DEGRADED = "degraded"
    PAUSED = "paused"
    DRAINED = "drained"


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
    """A pool with its members counted, and what this process knows of it: what is shown."""

    pool: Pool
    counts: PoolCounts
    waiting: int = 0
    """Callers who wait in line."""
    pull: PullProgress | None = None
    disk_enforcement: DiskEnforcement | None = None

    @property
    def wanted(self) -> int:
        """How many ready members the pool aims at: `warm_containers`, less where `max_containers` leaves no room."""
        if self.pool.closed:
            return 0
        if self.pool.max_containers is None:
            return self.pool.warm_containers
        in_use = self.counts.active + self.counts.starting
        return max(0, min(self.pool.warm_containers, self.pool.max_containers - in_use))

    @property
    def condition(self) -> PoolCondition:
        """The pool's condition in a word."""
        if self.pool.drain:
            return PoolCondition.DRAINED
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

    `spec_digest` is what it was made of, as `Pool.member_digest` has it.
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
    spec_digest: str = ""
    address: str = ""
    pull_policy: PullPolicy = PullPolicy.MISSING
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


@dataclass(frozen=True, slots=True)
class ExposedPort:
    """A port of a sandbox that is served by HTTP under a host name of its own."""

    member_id: str
    port: int
    create_time: datetime


class CommandEndReason(StrEnum):
    """How a command ended. The last four are for processes that outlive the call that started them."""

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM_KILLED = "oom_killed"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    IDLE_TIMED_OUT = "idle_timed_out"
    DISCONNECTED = "disconnected"
    SHUT_DOWN = "shut_down"


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
