"""What the use cases and the control loop need from the outside, as Protocols.

Implementations: `store` (database), `runtime` (container engine and agents), `control` (launcher), and the fakes of the
tests; one contract-test suite runs against every implementation of a port.

All methods are coroutines of the one event loop, never block it, and carry a deadline of their own: they end with a
result, a domain error or `Unavailable`, not never.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    Command,
    CommandResult,
    ContainerSpec,
    DiskEnforcement,
    Member,
    MemberEnd,
    Pool,
    PoolFailure,
    PoolView,
    PullPolicy,
    PullProgress,
    Secret,
    Template,
)
from sandpool_server.domain.plan import PoolSnapshot

# --- time -------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """The time, so that tests can hold it."""

    def now(self) -> datetime:
        """The present moment, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never goes back."""
        ...

    def random_bits(self) -> int:
        """64 random bits, for identifiers and jitter."""
        ...


# --- store ------------------------------------------------------------------------------------------------------------


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


class Store(Protocol):
    """All state. Each method is one transaction; reads see what was committed before they began.

    `ref` is an id or a name; `version` (None: any) is the version that the caller saw: another one raises `Aborted`.
    After each commit that changed something the store calls, on the event loop, the `notify` it was made with: with the
    ids of the pools and sandboxes touched.

    A retry of an answered `request` changes nothing and returns the resource as it is now, also a deleted one;
    `NotFound` once it is purged. When a caller is cancelled, its change is made whole or not at all. Every method may
    raise `Unavailable`: then nothing was changed. A change that has begun is waited for beyond the deadline.
    """

    async def open(self) -> None:
        """Connect and bring the schema up to date. Must be called first, once."""
        ...

    async def close(self) -> None:
        """Finish what is queued and disconnect."""
        ...

    async def ping(self) -> None:
        """Return if the database answers, else raise `Unavailable`."""
        ...

    async def server_id(self, proposal: str) -> str:
        """The id that this database's servers put on what they make: `proposal` the first time, the same ever after."""
        ...

    async def create_template(self, template: Template, request: RequestKey | None) -> Template:
        """Write a template. Raises `AlreadyExists`. A retry returns the template as it is now."""
        ...

    async def get_template(self, namespace: str, ref: str) -> Template:
        """Raises `NotFound`."""
        ...

    async def list_templates(self, namespace: str, limit: int, after: str) -> list[Template]:
        """Up to `limit` living templates whose id sorts after `after`, by id."""
        ...

    async def update_template(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Template], Template],
        request: RequestKey | None,
    ) -> Template:
        """Apply a pure function to the template in the transaction; the pools that follow it get its spec in the same.

        `change` keeps id and namespace and sets `update_time`; the store counts the version up, the pools' too. Raises
        `NotFound`, `Aborted`, `AlreadyExists` (name), and whatever `change` raises, and then nothing is written.
        """
        ...

    async def delete_template(
        self, namespace: str, ref: str, version: int | None, now: datetime, request: RequestKey | None
    ) -> None:
        """Raises `NotFound`, `Aborted`, and `FailedPrecondition` (`TEMPLATE_IN_USE`) naming up to ten pools."""
        ...

    async def create_pool(self, draft: PoolDraft, request: RequestKey | None) -> PoolView:
        """Write a pool. Raises `NotFound` (template), `AlreadyExists` (name)."""
        ...

    async def get_pool(self, namespace: str, ref: str) -> PoolView:
        """Raises `NotFound`."""
        ...

    async def list_pools(self, namespace: str, limit: int, after: str) -> list[PoolView]:
        """Up to `limit` living pools whose id sorts after `after`, by id."""
        ...

    async def update_pool(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Pool], Pool],
        request: RequestKey | None,
    ) -> PoolView:
        """Apply a pure function to the pool in the transaction.

        A new spec, a new pull policy, or the end of a pause or drain forgets the failure.

        `change` sets `own_timeout_secs`, not `timeout_secs`. Raises as `update_template`.
        """
        ...

    async def delete_pool(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        now: datetime,
        request: RequestKey | None,
        force: bool = False,
    ) -> None:
        """Raises `NotFound`, `Aborted`, and `FailedPrecondition` (`POOL_IN_USE`): how many sandboxes, naming up to ten.

        Unclaimed members, those being created included, become REMOVING in the same transaction; with `force` those in
        use too, with reason DELETED.
        """
        ...

    async def pool_image(self, pool_id: str, image: str, digest: str | None, now: datetime) -> None:
        """Write down what the image's tag names (None: it could not be looked up) and when that was looked up.

        Nothing is written when the pool is of another image by now. A new digest changes what members must be made of.
        """
        ...

    async def pool_failed(self, pool_id: str, spec_digest: str, failure: PoolFailure) -> None:
        """Write down a failure of the pool unless it is of another spec by now, or deleted."""
        ...

    async def template_pool_ids(self, namespace: str, ref: str) -> tuple[str, ...]:
        """Ids of the living pools that follow the template, oldest first. Raises `NotFound` (the template)."""
        ...

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """Claim ready members and, for what is missing, write `STARTING` ones: all or none, in one transaction.

        The hot path. A ready member is one in state WARM whose spec is the pool's present one. From a template: any
        pool that follows it and is not paused, oldest first; what is missing goes, undivided, to the first of them with
        room for it, or to no pool when no pool follows the template. Counts hits and misses, one for each sandbox. A
        retry of which every sandbox ended as FAILED is claimed anew. Raises `NotFound`; `AlreadyExists` (sandbox name);
        `FailedPrecondition` (`POOL_PAUSED`, `POOL_DRAINED`: the pool, or all of the template's, of which the oldest is
        named); `Exhausted` (`POOL_AT_MAX`, subject `pool:<id>`, the template's oldest; `POOL_EMPTY`, subject
        `pool:<id>` or `template:<id>`); `InvalidArgument` (`request_id`).
        """
        ...

    async def get_sandbox(self, namespace: str, ref: str) -> Member:
        """A claimed member. By name: the living one, else the newest ended one. Raises `NotFound`."""
        ...

    async def list_sandboxes(self, namespace: str, which: SandboxFilter, limit: int, after: str) -> list[Member]:
        """Up to `limit` claimed members whose id sorts after `after`, by id. Raises `NotFound` (the filter's refs)."""
        ...

    async def update_sandbox(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Member], Member],
        request: RequestKey | None,
    ) -> Member:
        """Apply a pure function to a sandbox's claim. Raises `NotFound`, `Aborted`, `AlreadyExists` (name),
        `FailedPrecondition` (`SANDBOX_ENDED`) when it is not in use any more, and whatever `change` raises.
        """
        ...

    async def delete_sandbox(self, namespace: str, ref: str, now: datetime, request: RequestKey | None) -> Member:
        """Send a sandbox to REMOVING with reason DELETED; one that is ending or ended is returned as it is.

        Raises `NotFound`.
        """
        ...

    async def snapshot(self, pool_ids: frozenset[str] | None) -> list[PoolSnapshot]:
        """What the planner needs of these pools (None: of all), in one read; of a deleted one while it has members.

        The id "" stands for the members without a pool, and comes whenever it is asked for.
        """
        ...

    async def add_members(
        self, pool_id: str, spec_digest: str, ids: Sequence[str], now: datetime, waiting: int = 0
    ) -> list[Member]:
        """Write `CREATING` members: as many of `ids` as the pool still wants and `max_containers` allows *now*.

        It wants `waiting` more than it keeps ready, for those who wait in line.
        Empty when the pool is deleted, paused or of another spec by now.
        """
        ...

    async def member_ready(self, member_id: str, address: str, now: datetime, start_secs: float) -> Member | None:
        """CREATING → WARM or STARTING → ACTIVE (with its `start_secs`); a member of the pool's present spec also
        forgets the pool's failure.

        None when the member is to be removed meanwhile.
        """
        ...

    async def launch_failed(self, member_id: str, end: MemberEnd, failure: PoolFailure | None) -> Member | None:
        """CREATING or STARTING → REMOVING; writes the pool's failure if it is still of that spec and not deleted."""
        ...

    async def end_members(
        self, ids: Sequence[str], states: frozenset[MemberState], end: MemberEnd, expired_at: datetime | None = None
    ) -> list[Member]:
        """Send to REMOVING those of `ids` that are in one of `states` now, and return them.

        With `expired_at` only those whose `expire_time` is at or before it, read again in the transaction: an extension
        that was committed wins. The end is kept for claimed members alone.
        """
        ...

    async def disown(self, ids: Sequence[str]) -> list[Member]:
        """ACTIVE → REMOVING without a claim: for members that turned out dead at the moment of their claim.

        They are no sandboxes then, and their names and request ids are free; their hits and misses are taken back.
        """
        ...

    async def member_removed(self, member_id: str, now: datetime) -> None:
        """REMOVING → GONE; the row of a member that was never claimed is deleted. Idempotent."""
        ...

    async def live_members(self) -> list[Member]:
        """All members that are not GONE, of all namespaces."""
        ...

    async def purge(self, ended_before: datetime, requests_before: datetime) -> int:
        """Delete rows that nobody needs and return how many: sandboxes gone before the first time (and, if claimed
        with a request id, claimed before the second), answered requests, and deleted pools and templates older than the
        second without members.
        """
        ...


class SecretStore(Protocol):
    """Secrets at rest, encrypted by the caller: the store sees names and ciphertexts. Implemented beside `Store`.

    `Store.create_pool`, `update_pool`, `create_template`, `update_template` and `claim` (of a spec) raise
    `NotFound` (`secret`) for a name that is not here, in the same transaction.
    """

    async def create_secret(self, secret: Secret, ciphertext: bytes, request: RequestKey | None) -> Secret:
        """Raises `AlreadyExists`."""
        ...

    async def update_secret(
        self, namespace: str, name: str, ciphertext: bytes, now: datetime, request: RequestKey | None
    ) -> Secret:
        """Raises `NotFound`."""
        ...

    async def list_secrets(self, namespace: str, limit: int, after: str) -> list[Secret]:
        """Up to `limit` secrets whose name sorts after `after`, by name."""
        ...

    async def delete_secret(
        self, namespace: str, name: str, force: bool, now: datetime, request: RequestKey | None
    ) -> None:
        """Raises `NotFound`, and without `force` `FailedPrecondition` (`SECRET_IN_USE`) naming pools and templates."""
        ...

    async def secret_ciphertexts(self, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
        """The ciphertexts by name; those that do not exist are absent."""
        ...

    async def rewrite_secrets(self, change: Callable[[bytes], bytes]) -> int:
        """Replace every ciphertext by what a pure function makes of it, in one transaction; returns how many."""
        ...


def claim_request_id(request_id: str, index: int, count: int) -> str:
    """Under which key the index-th sandbox of a claim is kept; a caller's request id holds no `#`."""
    return f"{request_id}#{index}/{count}" if request_id else ""


# --- runtime ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of how to run things in it. `digest` is the engine's id of the image."""

    digest: str
    env: Mapping[str, str]
    working_dir: str
    user: str


@dataclass(frozen=True, slots=True)
class MemberRef:
    """A container of ours that the engine lists. `address` is the agent's `host:port`, empty when it does not run.

    One that is paused counts as running.
    """

    member_id: str
    running: bool
    address: str
    exit_code: int | None = None
    paused: bool = False


class RuntimeEventKind(StrEnum):
    """What happened to a container of ours."""

    DIED = "died"
    OOM = "oom"
    REMOVED = "removed"
    PAUSED = "paused"
    KILLED = "killed"
    """Somebody had the engine end it; DIED follows. Also before a removal by force."""
    RESYNC = "resync"
    """The stream of events was interrupted: compare everything."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """One event; `member_id` is empty for RESYNC. `exit_code` comes with DIED where known."""

    kind: RuntimeEventKind
    member_id: str = ""
    exit_code: int | None = None


class Runtime(Protocol):
    """Makes and removes members on an engine. Touches nothing that does not carry this server's label.

    Engine errors become `LaunchFailed` in `ensure_image` and `launch`, `Unavailable` elsewhere.
    """

    async def prepare(self) -> None:
        """Make what members share (network, agent volume) unless it is there. Idempotent, also after a kill."""
        ...

    async def ping(self) -> None:
        """Return if the engine answers within a second or so, else raise `Unavailable`."""
        ...

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        """Have the image on the engine, pulling it as the policy says; concurrent calls share one pull."""
        ...

    def pulls(self) -> dict[str, PullProgress]:
        """The pulls under way, by image. Each step calls, on the loop, the `pull_changed` the runtime was made with."""
        ...

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        """Who enforces disk limits on this engine; None until `prepare` has found out."""
        ...

    async def disk_usage(self) -> dict[str, int]:
        """Bytes that each running member has written to its own file system, by member id. One engine call."""
        ...

    async def launch(self, member: Member, token_sha256: str) -> str:
        """Create and start the member's container with its limits; returns the agent's `host:port`.

        A failure, or cancellation, removes what was made.
        """
        ...

    async def remove(self, member_id: str) -> None:
        """Remove the member's container by force, whatever its state. No error if there is none."""
        ...

    async def members(self) -> list[MemberRef]:
        """All containers that carry this server's label, running or not."""
        ...

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Events of this server's containers for ever; begins with, and after each interruption yields, RESYNC."""
        ...

    async def purge(self) -> int:
        """Remove every container and network with this server's label; returns how many containers."""
        ...

    async def close(self) -> None:
        """Let go of the engine; containers stay."""
        ...


class Agents(Protocol):
    """Speaks to the agents inside members. What comes back is hostile input: sizes and values are checked."""

    def token_sha256(self, member_id: str) -> str:
        """The hexadecimal SHA-256 of the token that this member's agent accepts."""
        ...

    async def wait_ready(self, member_id: str, address: str, timeout_secs: float) -> None:
        """Return when the agent answers; raises `LaunchFailed` (`NOT_READY`) after `timeout_secs`."""
        ...

    async def configure(self, member_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        """Tell the agent the image's defaults, the spec's `env` and the largest file that may be written.

        Also starts the entrypoint, unless the spec names secrets: then it starts at the claim. Raises `LaunchFailed`
        (`START_FAILED`).
        """
        ...

    async def admit(
        self, member_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        """Hand a member over to its owner: see that it answers, add its own environment, start an entrypoint if given.

        Idempotent. Raises `Unavailable` when it does not answer within a second or two, `LaunchFailed`
        (`START_FAILED`) when the entrypoint cannot be started.
        """
        ...

    async def probe(self, member_id: str, address: str) -> None:
        """Return if the agent answers within a second or two, else raise `Unavailable`. Counts as no activity."""
        ...

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        """Run a command. Cancelling kills it. Raises `FailedPrecondition`, `InvalidArgument`, `Exhausted`, and
        `Unavailable` when the agent does not answer.
        """
        ...

    def forget(self, member_id: str) -> None:
        """Close what is kept open to this member's agent."""
        ...

    async def close(self) -> None:
        """Close everything."""
        ...


# --- control ----------------------------------------------------------------------------------------------------------


class Launcher(Protocol):
    """Starts the containers of `STARTING` members that callers wait for."""

    def expecting(self, ids: Sequence[str]) -> AbstractContextManager[None]:
        """For the length of the block the members of these ids, written or not yet, count as being launched here.

        Enter it before the rows are written: a `STARTING` row that nobody expects is taken for one that a killed server
        left behind.
        """
        ...

    async def launch(self, member: Member) -> Member:
        """Start the member and return it ACTIVE. Raises `LaunchFailed`, or `FailedPrecondition` (`SANDBOX_ENDED`) when
        it was deleted meanwhile. When it raises, or is cancelled, the member is on its way to removal.
        """
        ...


class Line(Protocol):
    """Who waits in line for sandboxes of which pool."""

    def waiting(self, pool_id: str) -> int:
        """For how many sandboxes callers wait that this pool could give."""
        ...
