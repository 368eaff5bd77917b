"""The interface to the database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Instance, Pool, PoolFailure, PoolView, Template, Termination
from sandpool_server.domain.plan import PoolSnapshot
from sandpool_server.interfaces.requests import ClaimRequest, ClaimResult, PoolDraft, RequestKey, SandboxFilter


class Store(Protocol):
    """Stores the entire state of the server.

    Each method is one transaction. A read returns the state after all commits that finished before the call.

    `ref` is an id or a name. `version` is the version that the caller has read; if the resource has another version,
    the method raises `Aborted`. None accepts any version. After each commit that changed pools or sandboxes, the store
    calls the `notify` function of its constructor on the event loop, with the ids of the changed resources.

    `request` identifies a retry: if a request with the same key was executed before, the method changes nothing and
    returns the current state of the resource, also of a deleted one. If the resource has been purged, it raises
    `NotFound`.

    If the caller is cancelled, a change is executed completely or not at all. Every method can raise `Unavailable`;
    then the database is unchanged. The deadline applies to the start of a change: the store waits for a started change
    without a limit.
    """

    async def open(self) -> None:
        """Connect and migrate the schema to the current version. Call it once, before all other methods."""
        ...

    async def close(self) -> None:
        """Execute the queued operations and disconnect."""
        ...

    async def ping(self) -> None:
        """Check that the database responds. Raises `Unavailable`."""
        ...

    async def server_id(self, proposal: str) -> str:
        """Return the id of the server, which labels its containers.

        The first call stores `proposal`; all later calls return the stored id.
        """
        ...

    async def create_template(self, template: Template, request: RequestKey | None) -> Template:
        """Create a template and return it. Raises `AlreadyExists`."""
        ...

    async def get_template(self, namespace: str, ref: str) -> Template:
        """Return a template. Raises `NotFound`."""
        ...

    async def list_templates(self, namespace: str, limit: int, after: str) -> list[Template]:
        """Return up to `limit` templates whose id sorts after `after`, sorted by id."""
        ...

    async def update_template(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Template], Template],
        request: RequestKey | None,
    ) -> Template:
        """Replace a template by the result of `change`, and update the pools that use it in the same transaction.

        `change` must be a pure function. It must keep the id and the namespace and set `update_time`. The store
        increases the version of the template and of its pools.

        Raises:
            NotFound: the template or a secret of the new specification does not exist.
            Aborted: the template has another version.
            AlreadyExists: another template has the new name.
            Exception: any error of `change`.
        """
        ...

    async def delete_template(
        self, namespace: str, ref: str, version: int | None, now: datetime, request: RequestKey | None
    ) -> None:
        """Delete a template.

        Raises:
            NotFound: the template does not exist.
            Aborted: the template has another version.
            FailedPrecondition: (TEMPLATE_IN_USE) pools use the template. The message lists up to ten of them.
        """
        ...

    async def create_pool(self, draft: PoolDraft, request: RequestKey | None) -> PoolView:
        """Create a pool and return it.

        Raises:
            NotFound: the template or a secret does not exist.
            AlreadyExists: another pool has the name.
        """
        ...

    async def get_pool(self, namespace: str, ref: str) -> PoolView:
        """Return a pool. Raises `NotFound`."""
        ...

    async def list_pools(self, namespace: str, limit: int, after: str) -> list[PoolView]:
        """Return up to `limit` pools whose id sorts after `after`, sorted by id."""
        ...

    async def update_pool(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Pool], Pool],
        request: RequestKey | None,
    ) -> PoolView:
        """Replace a pool by the result of `change`.

        `change` must be a pure function. It must set `own_timeout_secs`; the store computes `timeout_secs`. A new
        specification (including its pull policy) and the end of a pause or drain clear the pool's failure.

        Raises:
            NotFound: the pool or a secret of the new specification does not exist.
            Aborted: the pool has another version.
            AlreadyExists: another pool has the new name.
            Exception: any error of `change`.
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
        """Delete a pool. Its unclaimed instances get the state REMOVING in the same transaction.

        With `force`, the sandboxes of the pool are terminated too, with the reason DELETED.

        Raises:
            NotFound: the pool does not exist.
            Aborted: the pool has another version.
            FailedPrecondition: (POOL_IN_USE) `force` is false and the pool has sandboxes. The message contains their
                number and lists up to ten of them.
        """
        ...

    async def pool_image(self, pool_id: str, image: str, digest: str | None, now: datetime) -> None:
        """Write the result of an image check: the digest of the image and the time of the check.

        `digest` is None if the check failed; the store then writes only the time. If the pool has another image by now,
        the store writes nothing. A new digest makes the existing instances of the pool outdated.
        """
        ...

    async def pool_failed(self, pool_id: str, spec_digest: str, failure: PoolFailure) -> None:
        """Write a failure of the pool. Does nothing if the pool has another specification by now or is deleted."""
        ...

    async def template_pool_ids(self, namespace: str, ref: str) -> tuple[str, ...]:
        """Return the ids of the pools that use the template, oldest first. Raises `NotFound` (template)."""
        ...

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """Claim warm instances and write `STARTING` instances for the missing ones (cold starts): all or none.

        This is the hot path. The store claims instances in the state WARM with the current digest of the pool. For a
        template it uses all its pools that are neither paused nor drained, oldest first. All cold starts of a claim go
        to the first of these pools that has room for them, or to no pool if no pool uses the template. The store counts
        a hit for each warm instance and a miss for each cold start in a pool.

        A retry returns the sandboxes of the earlier request. If all of them terminated with the reason FAILED, the
        store claims again.

        Raises:
            NotFound: the pool, the template or a secret does not exist.
            AlreadyExists: another sandbox has the name.
            FailedPrecondition: (POOL_PAUSED, POOL_DRAINED) the pool is, or all pools of the template are, paused or
                drained. For a template the error is about the oldest pool.
            Exhausted: (POOL_EMPTY) there are not enough warm instances, and cold starts are not allowed. The subject is
                `pool:<id>` or `template:<id>`.
            Exhausted: (POOL_LIMIT_REACHED) no pool has room for the cold starts. The subject is `pool:<id>`, for a
                template the oldest pool.
            InvalidArgument: `request_id` was used for another request.
        """
        ...

    async def get_sandbox(self, namespace: str, ref: str) -> Instance:
        """Return a sandbox. Raises `NotFound`.

        A name refers to the sandbox in use with this name or, if there is none, to the newest terminated one.
        """
        ...

    async def list_sandboxes(self, namespace: str, which: SandboxFilter, limit: int, after: str) -> list[Instance]:
        """Return up to `limit` sandboxes whose id sorts after `after`, sorted by id.

        Raises:
            NotFound: the pool or the template of the filter does not exist.
        """
        ...

    async def update_sandbox(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Instance], Instance],
        request: RequestKey | None,
    ) -> Instance:
        """Replace the claim of a sandbox by the claim in the result of `change`, which must be a pure function.

        Raises:
            NotFound: the sandbox does not exist.
            Aborted: the sandbox has another version.
            AlreadyExists: another sandbox has the new name.
            FailedPrecondition: (SANDBOX_TERMINATED) the sandbox is no longer in use.
            Exception: any error of `change`.
        """
        ...

    async def delete_sandbox(self, namespace: str, ref: str, now: datetime, request: RequestKey | None) -> Instance:
        """Terminate a sandbox with the reason DELETED: its state becomes REMOVING. Raises `NotFound`.

        A sandbox that has terminated already is returned unchanged.
        """
        ...

    async def snapshot(self, pool_ids: frozenset[str] | None) -> list[PoolSnapshot]:
        """Return the snapshots of the pools for the planner, in one read. None means all pools.

        A deleted pool is included only while it has instances. The id "" refers to the instances without a pool; its
        snapshot is always included if it is requested.
        """
        ...

    async def add_instances(
        self, pool_id: str, spec_digest: str, ids: Sequence[str], now: datetime, waiting: int = 0
    ) -> list[Instance]:
        """Write `CREATING` instances of the pool and return them.

        The store uses at most as many of `ids` as the pool needs at the time of the transaction, within
        `max_containers`. `waiting` is the number of additional instances for waiting callers. The result is empty if
        the pool is deleted, paused or drained, or has another specification by now.
        """
        ...

    async def instance_ready(self, instance_id: str, address: str, now: datetime, start_secs: float) -> Instance | None:
        """Change the state from CREATING to WARM, or from STARTING to ACTIVE, and return the instance.

        `start_secs` is written only for ACTIVE. If the instance has the pool's current digest, the pool's failure is
        cleared. The result is None if the state of the instance is REMOVING or REMOVED by now.
        """
        ...

    async def launch_failed(self, instance_id: str, end: Termination, failure: PoolFailure | None) -> Instance | None:
        """Change the state from CREATING or STARTING to REMOVING and return the instance.

        The failure is written if the pool exists and has the same digest as the instance. The result is None if the
        instance has another state.
        """
        ...

    async def end_instances(
        self, ids: Sequence[str], states: frozenset[InstanceState], end: Termination, expired_at: datetime | None = None
    ) -> list[Instance]:
        """Terminate the instances of `ids` that are in one of `states`: their state becomes REMOVING. Return them.

        With `expired_at`, only instances whose `expire_time` is not later are terminated. The store checks this in the
        transaction, so an extension that was committed before takes effect. `end` is written only for claimed
        instances.
        """
        ...

    async def release(self, ids: Sequence[str]) -> list[Instance]:
        """Release claimed instances whose activation failed: remove their claim and set the state to REMOVING.

        The instances are not sandboxes any more, and their names and request ids can be used again. The store subtracts
        their hits and misses.
        """
        ...

    async def instance_removed(self, instance_id: str, now: datetime) -> None:
        """Change the state from REMOVING to REMOVED, or delete the row if the instance was never claimed.

        The method is idempotent.
        """
        ...

    async def live_instances(self) -> list[Instance]:
        """Return all instances of all namespaces except the REMOVED ones."""
        ...

    async def purge(self, ended_before: datetime, requests_before: datetime) -> int:
        """Delete the rows whose retention period has expired and return their number.

        These are:

        - sandboxes that were removed before `ended_before` and, if they have a request id, claimed before
          `requests_before`
        - requests from before `requests_before`
        - pools and templates that were deleted before `requests_before` and that no other row refers to
        """
        ...
