"""What the planner can decide. A union of frozen dataclasses, matched exhaustively by the executor.

The executor distrusts a plan: it checks again, in the transaction that writes, that the reason for the action still
holds.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RetireReason(StrEnum):
    """Why an unclaimed member is taken out of its pool."""

    STALE = "stale"
    EXCESS = "excess"
    AGED = "aged"
    POOL_DRAINED = "pool_drained"
    POOL_DELETED = "pool_deleted"


@dataclass(frozen=True, slots=True)
class CreateMembers:
    """Create up to `count` members of the pool's present spec, when callers wait for `waiting` sandboxes of it."""

    pool_id: str
    spec_digest: str
    count: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class RetireMember:
    """Take an unclaimed ready member out."""

    member_id: str
    reason: RetireReason


@dataclass(frozen=True, slots=True)
class ExpireSandbox:
    """End a sandbox whose lifetime has passed."""

    member_id: str


@dataclass(frozen=True, slots=True)
class AbandonMember:
    """Give up a member whose creation nobody pursues any more: this process did not begin it."""

    member_id: str


@dataclass(frozen=True, slots=True)
class CancelLaunch:
    """Stop the creation of a member that is to be removed meanwhile."""

    member_id: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove the container of a member that is to be removed."""

    member_id: str
    pool_id: str


@dataclass(frozen=True, slots=True)
class CheckImage:
    """Look up what the image's tag names now."""

    pool_id: str
    image: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Plan this pool again at that time, even if nothing happens before."""

    pool_id: str
    time: datetime


Action = (
    CreateMembers | RetireMember | ExpireSandbox | AbandonMember | CancelLaunch | RemoveContainer | CheckImage | WakeAt
)
