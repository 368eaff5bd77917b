"""The actions that the planner can return: a union of frozen dataclasses, which the executor matches exhaustively.

A plan can be out of date when it is executed. The store therefore checks the condition for each action again, in the
transaction that writes it.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RetireReason(StrEnum):
    """The reason for the removal of an unclaimed instance from its pool."""

    STALE = "stale"
    EXCESS = "excess"
    AGED = "aged"
    POOL_DRAINED = "pool_drained"
    POOL_DELETED = "pool_deleted"


@dataclass(frozen=True, slots=True)
class CreateInstances:
    """Create up to `count` instances of the pool's current specification.

    `waiting` is the number of sandboxes that callers in the wait queue need from the pool.
    """

    pool_id: str
    spec_digest: str
    count: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class RetireInstance:
    """Remove a warm instance from its pool."""

    instance_id: str
    reason: RetireReason


@dataclass(frozen=True, slots=True)
class ExpireSandbox:
    """Terminate a sandbox whose lifetime has expired."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class AbandonInstance:
    """Abandon an instance that an earlier process of the server began to create."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class CancelLaunch:
    """Cancel the creation of an instance whose state is REMOVING."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove the container of an instance whose state is REMOVING."""

    instance_id: str
    pool_id: str


@dataclass(frozen=True, slots=True)
class CheckImage:
    """Resolve the image's tag to its current digest."""

    pool_id: str
    image: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Plan the pool again at `time`, even if no change occurs before."""

    pool_id: str
    time: datetime


Action = (
    CreateInstances
    | RetireInstance
    | ExpireSandbox
    | AbandonInstance
    | CancelLaunch
    | RemoveContainer
    | CheckImage
    | WakeAt
)
