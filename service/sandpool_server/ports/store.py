"""The database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import Member, MemberEnd, Pool, PoolFailure, PoolView, Template
from sandpool_server.domain.plan import PoolSnapshot
from sandpool_server.ports.requests import ClaimRequest, ClaimResult, PoolDraft, RequestKey, SandboxFilter


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
