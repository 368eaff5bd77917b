"""The domain model: templates, pools, instances, claims, commands.

All classes are immutable values. Times are aware UTC datetimes, sizes are in MiB, durations are in seconds.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.spec import ContainerSpec

DEFAULT_NAMESPACE = "default"


class DiskEnforcement(StrEnum):
    """How the disk limit is enforced: by the storage of the engine, or by the server, which checks it periodically."""

    ENGINE = "engine"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of an image pull, in bytes. `total` grows while the engine discovers the layers."""

    image: str
    current: int
    total: int


@dataclass(frozen=True, slots=True)
class Secret:
    """The name and the times of a secret. The domain never contains its value."""

    namespace: str
    name: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Template:
    """A named specification. `version` starts at 1 and increases with each change."""

    id: str
    namespace: str
    name: str
    spec: ContainerSpec
    timeout_secs: float
    version: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class PoolFailure:
    """The most recent failure to create an instance of a pool, and the number of consecutive failures."""

    reason: FailureReason
    message: str
    time: datetime
    next_attempt_time: datetime
    consecutive: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool and its settings.

    `spec` and `timeout_secs` are the values in force; in a pool that uses a template they are the template's.
    `own_timeout_secs` is the pool's own timeout; None if the pool uses the timeout of its template.
    """

    id: str
    namespace: str
    name: str
    template_id: str
    template_name: str
    spec: ContainerSpec
    timeout_secs: float
    own_timeout_secs: float | None
    warm_containers: int | None
    max_containers: int | None
    paused: bool
    version: int
    create_time: datetime
    update_time: datetime
    image_refresh_interval_secs: float = 0.0
    warm_ttl_secs: float = 0.0
    drained: bool = False
    image_digest: str = ""
    """The digest of the image at `image_check_time`; empty if `image_refresh_interval_secs` is 0."""
    image_check_time: datetime | None = None
    hits: int = 0
    misses: int = 0
    failure: PoolFailure | None = None
    delete_time: datetime | None = None
    """The time of the deletion.

    The row stays until the pool's containers are removed and the retention period of its requests has expired.
    """

    def instance_digest(self) -> str:
        """Return the digest that an instance must have to be claimed.

        It covers the specification and, if the server resolves the image's tag regularly, the image.
        """
        if self.image_refresh_interval_secs and self.image_digest:
            return hashlib.sha256(f"{self.spec.digest()} {self.image_digest}".encode()).hexdigest()[:16]
        return self.spec.digest()

    @property
    def closed(self) -> bool:
        """Whether the pool is paused, drained or deleted: it creates no instances and accepts no claims."""
        return self.paused or self.drained or self.delete_time is not None


class PoolCondition(StrEnum):
    """The condition of a pool, which the API returns as its state."""

    READY = "ready"
    FILLING = "filling"
    DEGRADED = "degraded"
    PAUSED = "paused"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """The number of instances of a pool by state. `stale` counts unclaimed instances of an earlier specification."""

    warm: int = 0
    creating: int = 0
    starting: int = 0
    active: int = 0
    removing: int = 0
    stale: int = 0

    @property
    def total(self) -> int:
        """The number of instances that count towards `max_containers`."""
        return self.warm + self.creating + self.starting + self.active + self.removing + self.stale


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as the API returns it: with the counts of its instances and the runtime state of this process."""

    pool: Pool
    counts: PoolCounts
    waiting: int = 0
    """The number of sandboxes that callers in the wait queue need."""
    pull: PullProgress | None = None
    disk_enforcement: DiskEnforcement | None = None

    @property
    def desired(self) -> int:
        """The number of warm instances that the pool aims at: `warm_containers`, limited by `max_containers`."""
        if self.pool.closed:
            return 0
        if self.pool.max_containers is None:
            return self.pool.warm_containers or 0
        in_use = self.counts.active + self.counts.starting
        return max(0, min(self.pool.warm_containers or 0, self.pool.max_containers - in_use))

    @property
    def condition(self) -> PoolCondition:
        """The condition of the pool."""
        if self.pool.drained:
            return PoolCondition.DRAINED
        if self.pool.paused:
            return PoolCondition.PAUSED
        if self.counts.warm >= self.desired:
            return PoolCondition.READY
        return PoolCondition.DEGRADED if self.pool.failure else PoolCondition.FILLING


class StartType(StrEnum):
    """Whether a sandbox got a warm container or its container was created for the caller."""

    WARM = "warm"
    COLD = "cold"


class TerminationReason(StrEnum):
    """The reason why a sandbox terminated."""

    DELETED = "deleted"
    TIMED_OUT = "timed_out"
    EXITED = "exited"
    OOM_KILLED = "oom_killed"
    DISK_EXCEEDED = "disk_exceeded"
    LOST = "lost"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Claim:
    """The properties that an instance gets when a caller claims it."""

    claim_time: datetime
    timeout_secs: float
    start_type: StartType
    name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    request_id: str = ""
    """Empty, or unique in the namespace."""

    @property
    def expire_time(self) -> datetime | None:
        """The time when the server terminates the sandbox; None if it has no limit."""
        return self.claim_time + timedelta(seconds=self.timeout_secs) if self.timeout_secs else None


@dataclass(frozen=True, slots=True)
class Termination:
    """The termination of an instance: its reason and time."""

    reason: TerminationReason
    time: datetime
    message: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A container or pod that the server manages. An instance with a `claim` is a sandbox with the same id.

    `spec_digest` is the `Pool.instance_digest` at the time of creation. `address` is `host:port` of the agent; empty
    until the container runs. `pool_id` is empty for a sandbox that belongs to no pool. `start_secs` is the time that
    the caller waited; None until the sandbox runs.
    """

    id: str
    namespace: str
    pool_id: str
    template_id: str
    template_name: str
    spec: ContainerSpec
    state: InstanceState
    version: int
    create_time: datetime
    spec_digest: str = ""
    address: str = ""
    claim: Claim | None = None
    start_secs: float | None = None
    end: Termination | None = None
    request_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: either `shell` or `argv`. An empty `user` is the user of the image."""

    timeout_secs: float
    shell: str = ""
    argv: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class ExposedPort:
    """A port of a sandbox that the server exposes by HTTP under a separate host name."""

    instance_id: str
    port: int
    create_time: datetime


class ExitReason(StrEnum):
    """How a command exited. The last four values apply only to processes that outlive the call that started them."""

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
    """The exit and the output of a command. Exactly one of `exit_code` and `signal` is set."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    signal: int | None
    reason: ExitReason
    duration_secs: float
    stdout_dropped_bytes: int = 0
    stderr_dropped_bytes: int = 0
