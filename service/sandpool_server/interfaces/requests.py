"""The arguments and results of the store that consist of many values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Instance
from sandpool_server.domain.spec import ContainerSpec


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Identifies a request of a caller, so that the store can detect a retry.

    `method` is the name of the RPC, `fingerprint` is a digest of the content of the request. If a `request_id` comes
    with a different fingerprint, the store raises `InvalidArgument` for the field `request_id`.
    """

    method: str
    request_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PoolDraft:
    """A pool to create. Either `spec` or `template_ref` is set.

    `template_ref` is a name or an id; the store resolves it in the transaction.
    """

    id: str
    namespace: str
    name: str
    template_ref: str
    spec: ContainerSpec | None
    timeout_secs: float | None
    warm_containers: int | None
    max_containers: int | None
    paused: bool
    create_time: datetime
    image_refresh_interval_secs: float = 0.0
    warm_ttl_secs: float = 0.0
    drained: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request to claim `count` sandboxes with the same properties from one source.

    The source is exactly one of `pool_ref`, `template_ref` and `spec`. `ids` contains `count` new sandbox ids, which
    the store uses for cold starts. `received` is the arrival time of the call in seconds of `Clock.monotonic`. A claim
    with a `request_id` is executed once; the row of the i-th sandbox has the key `claim_request_id(request_id, i,
    count)`.
    """

    namespace: str
    count: int
    ids: tuple[str, ...]
    now: datetime
    received: float
    pool_ref: str = ""
    template_ref: str = ""
    spec: ContainerSpec | None = None
    timeout_secs: float | None = None
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    fingerprint: str = ""
    warm: bool = True
    """Whether the claim may use warm instances. False while earlier waiters wait for them."""
    cold: bool = True
    """Whether cold starts are allowed. If not, the store raises `Exhausted` (`POOL_EMPTY`) for missing instances."""
    reserved: int = 0
    """The number of containers below `max_containers` that a cold start must leave free for earlier waiters."""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The claimed instances: warm ones (`ACTIVE`) first, then cold starts (`STARTING`).

    `replayed` is true for a retry of an earlier request: then these are its instances in their current state.
    """

    instances: tuple[Instance, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class SandboxFilter:
    """The conditions for a list of sandboxes. All must match. Empty `states` means all states except `REMOVED`."""

    pool_ref: str = ""
    template_ref: str = ""
    states: frozenset[InstanceState] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)


def claim_request_id(request_id: str, index: int, count: int) -> str:
    """Return the key of the sandbox at `index` of a claim; empty if the request has no id.

    The request ids of callers do not contain `#`.
    """
    return f"{request_id}#{index}/{count}" if request_id else ""
