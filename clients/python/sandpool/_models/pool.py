"""Pools, templates and secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sandpool._models.container import ContainerSpec, SpecAttributes
from sandpool._models.enums import DiskEnforcement, PoolErrorReason, PoolEventType, PoolState


@dataclass(frozen=True)
class PoolError:
    """A failure to create a container for a pool."""

    reason: PoolErrorReason
    """The kind of failure."""
    message: str
    """A description for a person: the failure and the next action."""
    time: datetime | None
    """When the failure occurred."""
    next_attempt_time: datetime | None
    """When the next attempt starts, or None while an attempt is in progress."""
    consecutive_failures: int
    """The number of consecutive failed attempts."""


@dataclass(frozen=True)
class ImagePull:
    """The progress of an image pull."""

    image: str
    """The image."""
    current_bytes: int
    """The number of bytes received."""
    total_bytes: int
    """The number of bytes to receive, as far as it is known. It may increase."""


@dataclass(frozen=True)
class PoolStatus:
    """The state of a pool's containers at the time of the response."""

    state: PoolState
    """The state of the pool as a whole."""
    warm: int
    """The number of warm containers: ready, unclaimed and of the current specification."""
    creating: int
    """The number of containers that are being created."""
    active: int
    """The number of containers that are assigned to a running sandbox."""
    removing: int
    """The number of containers that are being removed. They count towards `max_containers`."""
    stale: int
    """The number of unclaimed containers of an earlier specification, which are being replaced."""
    desired: int
    """The number of warm containers that the pool aims at."""
    hits: int
    """The number of sandboxes since the pool's creation that started warm."""
    misses: int
    """The number of sandboxes since the pool's creation that found no warm container."""
    last_error: PoolError | None
    """The most recent failure to create a container, or None if the last attempt succeeded."""
    image_digest: str | None
    """The digest of the image that the pool's tag refers to, or None until it is known."""
    image_pull: ImagePull | None
    """The image pull in progress, or None."""
    disk_enforcement: DiskEnforcement | None
    """How the engine enforces `ephemeral_disk_mb`, or None until the engine has responded."""
    waiting: int
    """The number of callers in the wait queue for a sandbox of this pool."""


@dataclass(frozen=True)
class Pool(SpecAttributes):
    """A pool of warm containers of one specification."""

    pool_id: str
    """The identifier that the server assigned."""
    name: str | None
    """The name that the caller chose, or None."""
    template_name: str | None
    """The name of the template that defines `spec`, or None."""
    spec: ContainerSpec
    """The container specification."""
    warm_containers: int | None
    """The number of warm containers to maintain, or None if it is not set."""
    max_containers: int | None
    """The maximum number of containers in any state, or None: no limit."""
    timeout_secs: float
    """The lifetime of a sandbox in seconds, counted from its claim. 0: no limit."""
    paused: bool
    """Whether the pool is paused."""
    drained: bool
    """Whether the pool is drained: paused, without warm containers."""
    image_refresh_interval: float | None
    """Seconds between two checks of whether the image's tag refers to another image, or None: never."""
    warm_ttl: float | None
    """The age in seconds at which a warm container is replaced, or None: never."""
    etag: str
    """Changes with every update. Pass it to an update or delete to detect concurrent changes."""
    create_time: datetime | None
    """When the pool was created."""
    update_time: datetime | None
    """When the pool was last updated."""
    status: PoolStatus
    """The current state of the pool's containers."""


@dataclass(frozen=True)
class PoolEvent:
    """One event of `watch_pools`."""

    type: PoolEventType
    """The kind of event."""
    pool: Pool
    """The current state of the pool, or its last state if it was deleted."""


@dataclass(frozen=True)
class Template(SpecAttributes):
    """A named container specification for pools and sandboxes."""

    template_id: str
    """The identifier that the server assigned."""
    name: str
    """The name that the caller chose."""
    spec: ContainerSpec
    """The container specification."""
    timeout_secs: float
    """The lifetime of a sandbox in seconds, counted from its claim. 0: no limit."""
    etag: str
    """Changes with every update. Pass it to an update or delete to detect concurrent changes."""
    create_time: datetime | None
    """When the template was created."""
    update_time: datetime | None
    """When the template was last updated."""


@dataclass(frozen=True)
class Secret:
    """A secret without its value. No method returns the value."""

    name: str
    """The name of the secret and of the environment variable that contains its value."""
    create_time: datetime | None
    """When the secret was created."""
    update_time: datetime | None
    """When the value was last updated."""
