"""What the store is asked for, where that is more than a few values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import ContainerSpec, Member, PullPolicy


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Names one request of a caller, so that a retry is told from a second request.

    `method` is the RPC's name, `fingerprint` a digest of the request's content. The same `request_id` with another
    fingerprint is a mistake of the caller: `InvalidArgument` on the field `request_id`.
    """

    method: str
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PoolDraft:
    """A pool to write. Either `spec` or `template_ref` (name or id, resolved in the transaction) is given."""

    id: str
    namespace: str
    name: str
    template_ref: str
    spec: ContainerSpec | None
    timeout_secs: int | None
    warm_containers: int
    max_containers: int | None
    paused: bool
    create_time: datetime
    pull_policy: PullPolicy = PullPolicy.MISSING
    image_check_secs: int = 0
    max_age_secs: int = 0
    drain: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a caller wants claimed: `count` sandboxes alike from exactly one source.

    `ids` are `count` fresh sandbox ids for those that must start cold. `received` is the caller's arrival on the
    clock's monotonic scale. With a `request_id` the claim happens once: its i-th sandbox is kept under
    `claim_request_id(request_id, i, count)`.
    """

    namespace: str
    count: int
    ids: tuple[str, ...]
    now: datetime
    received: float
    pool_ref: str = ""
    template_ref: str = ""
    spec: ContainerSpec | None = None
    timeout_secs: int | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    fingerprint: str = ""
    warm: bool = True
    """Whether ready members may be taken: not while others wait in line for them."""
    cold: bool = True
    """Whether what is missing may be started; else, when anything is missing, `Exhausted` (`POOL_EMPTY`)."""
    reserved: int = 0
    """How many containers a start has to leave room for under `max_containers`: for those who wait in line."""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The members claimed, warm ones (`ACTIVE`) first, then those to be started (`STARTING`).

    `replayed`: the request had been answered before; the members are as they are now.
    """

    members: tuple[Member, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class SandboxFilter:
    """Which sandboxes to list; filters add up. Empty `states` means all but `GONE`."""

    pool_ref: str = ""
    template_ref: str = ""
    states: frozenset[MemberState] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)


def claim_request_id(request_id: str, index: int, count: int) -> str:
    """Under which key the index-th sandbox of a claim is kept; a caller's request id holds no `#`."""
    return f"{request_id}#{index}/{count}" if request_id else ""
