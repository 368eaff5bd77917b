"""The use cases of sandboxes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    LaunchFailed,
    NotFound,
    QueueTimeout,
    SandpoolError,
    Unavailable,
)
from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import IN_USE, InstanceState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    Claim,
    Command,
    CommandResult,
    Instance,
    Termination,
    TerminationReason,
)
from sandpool_server.interfaces import Agents, ClaimRequest, ClaimResult, Clock, Launcher, SandboxFilter, Store
from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.specs import check_environment, spec_of
from sandpool_server.usecases.templates import request_key
from sandpool_server.usecases.values import UNSET, NewSandbox, SandboxChanges, WhenEmpty
from sandpool_server.usecases.wait_queue import WaitQueue

_ACTIVATION_ATTEMPTS = 5
"""The number of claims for a request whose warm instances do not respond, before the request fails."""

_RESPONSE_SECS = 0.005
"""The time that a response needs to reach the caller.

If less time is left before the deadline, the caller may never receive the response, and the server cannot detect that.
The sandboxes are abandoned in this case.
"""


class Sandboxes:
    """Sandboxes and the commands in them. The methods raise the domain errors that `interfaces.Store` documents."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        launcher: Launcher,
        secrets: Secrets,
        clock: Clock,
        changes: ChangeHub,
        queue: WaitQueue,
    ) -> None:
        self._store = store
        self._agents = agents
        self._launcher = launcher
        self._secrets = secrets
        self._clock = clock
        self._changes = changes
        self._queue = queue
        self._undoing: set[asyncio.Task[None]] = set()

    async def create(
        self, new: NewSandbox, request_id: str, fingerprint: str, received: float, deadline: float | None = None
    ) -> Instance:
        """Create a sandbox from a warm instance or by a cold start, and return it when it is running.

        If the method raises or is cancelled, all claimed instances are released.

        Args:
            new: The sandbox to create.
            request_id: The id that identifies retries; may be empty.
            fingerprint: A digest of the content of the request.
            received: The arrival time of the call, in seconds of `Clock.monotonic`.
            deadline: The time when the caller stops waiting, on the same scale; None for no deadline.

        Raises:
            QueueTimeout: no sandbox was ready in time, or there is not enough time left for the response.
            LaunchFailed: the container of a cold start could not be created.
            Unavailable: several warm instances did not respond (NO_HEALTHY_CONTAINER), or the earlier request of this
                `request_id` failed (START_CANCELLED).
            SandpoolError: any error of `Store.claim`.
        """
        return (await self.create_batch(new, 1, request_id, fingerprint, received, deadline))[0]

    async def create_batch(
        self,
        new: NewSandbox,
        count: int,
        request_id: str,
        fingerprint: str,
        received: float,
        deadline: float | None = None,
    ) -> tuple[Instance, ...]:
        """Create `count` sandboxes with the same properties, all or none, and return them when they are running.

        The arguments and errors are those of `create`.
        """
        check_environment(new.env, "env")
        now = self._clock.now()
        request = ClaimRequest(
            namespace=DEFAULT_NAMESPACE,
            count=count,
            ids=(),
            now=now,
            received=received,
            pool_ref=new.pool_id,
            template_ref=new.template_name,
            spec=spec_of(new.spec) if new.spec else None,
            timeout_secs=new.timeout_secs,
            name=new.name,
            metadata=new.metadata,
            request_id=request_id,
            fingerprint=fingerprint,
        )
        for _ in range(_ACTIVATION_ATTEMPTS):
            ids = tuple(new_id(SANDBOX, now, self._clock.random_bits()) for _ in range(count))
            instances = await self._create(replace(request, ids=ids), new, deadline)
            if instances is not None:
                return instances
        raise Unavailable(
            "NO_HEALTHY_CONTAINER",
            f"no healthy container: the warm containers of {_ACTIVATION_ATTEMPTS} claims did not respond; try again",
        )

    async def _create(
        self, request: ClaimRequest, new: NewSandbox, deadline: float | None
    ) -> tuple[Instance, ...] | None:
        """Make one attempt to create the sandboxes.

        The result is None if a warm instance does not respond. All claimed instances are then released.
        """
        with self._launcher.expecting(request.ids):
            result = await self._claim_in_order(request, new)
            if result.replayed:
                instances = tuple([await self._wait_until_started(instance) for instance in result.instances])
                # The first call may have been interrupted between the claim and the activation.
                await asyncio.gather(*(self._activate(i, new) for i in instances if i.state is InstanceState.ACTIVE))
                return instances
            try:
                if not await self._activate_warm(result.instances, new):
                    return None
                instances = await self._start(result.instances, new)
                self._check_time_to_respond(deadline)
            except BaseException as error:
                cancelled = "the caller cancelled the call"
                why = error.message if isinstance(error, LaunchFailed | SandpoolError) else cancelled
                await asyncio.shield(self._abandon(result.instances, why))
                raise
        waited = self._clock.monotonic() - request.received
        return tuple(replace(instance, start_secs=waited) for instance in instances)

    def _check_time_to_respond(self, deadline: float | None) -> None:
        if deadline is not None and self._clock.monotonic() > deadline - _RESPONSE_SECS:
            raise QueueTimeout("the call's deadline leaves no time for the response; try again with a later deadline")

    async def _claim_in_order(self, request: ClaimRequest, new: NewSandbox) -> ClaimResult:
        """Claim according to `when_empty`, after all earlier waiters."""
        if request.spec is not None:
            return await self._claim(request)
        if new.when_empty is WhenEmpty.WAIT:
            return await self._wait_in_queue(request, new.queue_timeout_secs)
        # The queue is empty in most cases; then the pools need not be read.
        awaited = self._queue.awaited(await self._pool_ids(request)) if self._queue else 0
        cold = new.when_empty is WhenEmpty.START_COLD
        try:
            return await self._claim(replace(request, warm=not awaited, cold=cold, reserved=awaited))
        except Exhausted as error:
            if error.reason != "POOL_LIMIT_REACHED":
                raise
            return await self._wait_for_capacity(request, error)

    async def _wait_for_capacity(self, request: ClaimRequest, limit_error: Exhausted) -> ClaimResult:
        """Claim in a pool that has reached `max_containers`, once one of the instances that it creates is ready.

        The caller waits in the queue. If the pool has no warm or creating instance for this caller, or no longer has
        one, the method raises `limit_error`.
        """
        pool_ids = await self._pool_ids(request)
        if await self._count_obtainable(request.namespace, pool_ids) < self._queue.unserved(pool_ids) + request.count:
            raise limit_error
        with self._changes.subscribe() as subscription, self._queue.join(pool_ids, request.count) as waiter:
            while (
                await self._count_obtainable(request.namespace, pool_ids)
                >= self._queue.unserved(pool_ids, waiter) + waiter.count
            ):
                if self._queue.is_next(waiter):
                    try:
                        with self._queue.claiming(waiter):
                            return await self._claim(replace(request, now=self._clock.now()))
                    except Exhausted as error:
                        limit_error = error
                while (await subscription.next()).isdisjoint(pool_ids):
                    pass
        raise limit_error

    async def _count_obtainable(self, namespace: str, pool_ids: tuple[str, ...]) -> int:
        """Return the number of sandboxes that the pools can provide before any sandbox terminates.

        These are warm instances, instances that are being created, and instances that `max_containers` still allows.
        """
        number = 0
        for pool_id in pool_ids:
            with contextlib.suppress(NotFound):
                view = await self._store.get_pool(namespace, pool_id)
                number += view.counts.warm + view.counts.creating
                if view.pool.max_containers is not None:
                    number += max(0, view.pool.max_containers - view.counts.total)
        return number

    async def _wait_in_queue(self, request: ClaimRequest, seconds: float) -> ClaimResult:
        pool_ids = await self._pool_ids(request)
        if not pool_ids:
            raise FailedPrecondition(
                "NO_POOL",
                f"no pool uses the template {request.template_ref!r}, so the request cannot wait for a sandbox; create "
                "a pool with this template, or use WHEN_EMPTY_START_COLD",
                "template",
                request.template_ref,
            )
        try:
            async with asyncio.timeout(seconds):
                with self._changes.subscribe() as subscription, self._queue.join(pool_ids, request.count) as waiter:
                    while True:
                        if self._queue.is_next(waiter):
                            try:
                                with self._queue.claiming(waiter):
                                    return await self._claim(replace(request, now=self._clock.now(), cold=False))
                            except Exhausted as error:
                                if error.reason != "POOL_EMPTY":
                                    raise
                        while (await subscription.next()).isdisjoint(pool_ids):
                            pass
        except TimeoutError:
            raise QueueTimeout(
                f"no sandbox became ready within the queue_timeout of {seconds:g} s; increase queue_timeout, "
                "warm_containers or max_containers, or check the last_error of the pool"
            ) from None

    async def _pool_ids(self, request: ClaimRequest) -> tuple[str, ...]:
        """Return the ids of the pools that can serve the request."""
        if request.pool_ref:
            return ((await self._store.get_pool(request.namespace, request.pool_ref)).pool.id,)
        return await self._store.template_pool_ids(request.namespace, request.template_ref)

    async def _activate_warm(self, instances: tuple[Instance, ...], new: NewSandbox) -> bool:
        """Activate the warm instances. If one does not respond, release all instances and return False."""
        warm = [instance for instance in instances if instance.state is InstanceState.ACTIVE]
        try:
            if len(warm) == 1:
                await self._activate(warm[0], new)
            else:
                await asyncio.gather(*(self._activate(instance, new) for instance in warm))
        except Unavailable:
            await self._store.release([instance.id for instance in warm])
            await self._abandon(instances, "another container of the request did not respond")
            return False
        return True

    async def _activate(self, instance: Instance, new: NewSandbox) -> None:
        """Pass the values of the secrets and the sandbox's own environment, which takes precedence, to the agent."""
        secrets = await self._secrets.values(instance.spec.secret_names)
        entrypoint = instance.spec.entrypoint if instance.spec.secret_names else ()
        await self._agents.activate(instance.id, instance.address, {**secrets, **new.env}, entrypoint)

    async def _claim(self, request: ClaimRequest) -> ClaimResult:
        """Claim. If the caller is cancelled during the claim, the claimed instances are abandoned in the background."""
        claim = asyncio.ensure_future(self._store.claim(request))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(self._undo_claim(claim), name="undo-claim")
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise

    async def _undo_claim(self, claim: "asyncio.Future[ClaimResult]") -> None:
        try:
            result = await claim
        except SandpoolError:
            return  # The claim failed: there is nothing to undo.
        if not result.replayed:
            await self._abandon(result.instances, "the caller cancelled the call before the response")

    async def _start(self, instances: tuple[Instance, ...], new: NewSandbox) -> tuple[Instance, ...]:
        """Start and activate the instances that have no container yet. If one fails, cancel all starts."""
        tasks = {
            instance.id: asyncio.create_task(self._launch(instance, new), name=f"launch-{instance.id}")
            for instance in instances
            if instance.state is InstanceState.STARTING
        }
        if not tasks:
            return instances
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise
        return tuple(tasks[instance.id].result() if instance.id in tasks else instance for instance in instances)

    async def _launch(self, instance: Instance, new: NewSandbox) -> Instance:
        started = await self._launcher.launch(instance)
        await self._activate(started, new)
        return started

    async def _abandon(self, instances: Iterable[Instance], why: str) -> None:
        end = Termination(TerminationReason.FAILED, self._clock.now(), f"the sandbox was not assigned: {why}")
        await self._store.end_instances([instance.id for instance in instances], IN_USE, end)

    async def _wait_until_started(self, instance: Instance) -> Instance:
        """Return the sandbox of an earlier request when it has started: a retry waits like the first call."""
        async with aclosing(self.watch(instance.id)) as states:
            async for current in states:
                if current.state is not InstanceState.STARTING:
                    break
        if current.end is not None and current.end.reason is TerminationReason.FAILED:
            raise Unavailable("START_CANCELLED", f"{current.end.message}; try again")
        return current

    async def get(self, ref: str) -> Instance:
        """Return a sandbox."""
        return await self._store.get_sandbox(DEFAULT_NAMESPACE, ref)

    async def list(self, which: SandboxFilter, limit: int, after: str) -> list[Instance]:
        """Return up to `limit` sandboxes whose id sorts after `after`, sorted by id."""
        return await self._store.list_sandboxes(DEFAULT_NAMESPACE, which, limit, after)

    async def update(self, ref: str, changes: SandboxChanges, etag: str, request_id: str, fingerprint: str) -> Instance:
        """Change the name, the metadata or the lifetime of a sandbox that has not terminated, and return it.

        Raises:
            InvalidArgument: the new lifetime has expired already.
        """
        now = self._clock.now()

        def change(instance: Instance) -> Instance:
            claim = instance.claim
            if claim is None:
                return instance
            changed = _changed_claim(claim, changes)
            expire_time = changed.expire_time
            if changed.timeout_secs != claim.timeout_secs and expire_time is not None and expire_time <= now:
                age = (now - claim.claim_time).total_seconds()
                raise InvalidArgument(
                    FieldViolation(
                        "timeout",
                        f"must be longer than {age:.0f} s, the age of the sandbox; increase it, or delete the sandbox",
                    )
                )
            return replace(instance, claim=changed)

        key = request_key("UpdateSandbox", request_id, fingerprint)
        return await self._store.update_sandbox(DEFAULT_NAMESPACE, ref, version_of(etag), change, key)

    async def delete(self, ref: str, request_id: str, fingerprint: str) -> Instance:
        """Terminate a sandbox, also one that is starting, and return it. Its container is removed in the background."""
        key = request_key("DeleteSandbox", request_id, fingerprint)
        return await self._store.delete_sandbox(DEFAULT_NAMESPACE, ref, self._clock.now(), key)

    async def watch(self, ref: str) -> AsyncGenerator[Instance, None]:
        """Yield the current state of the sandbox, then each change, until its container is removed.

        Raises:
            NotFound: at the start of the iteration, if the sandbox does not exist.
        """
        with self._changes.subscribe() as subscription:
            instance = await self.get(ref)
            while True:
                yield instance
                if instance.state is InstanceState.REMOVED:
                    return
                reported = instance
                while instance == reported:
                    if instance.id in await subscription.next():
                        instance = await self.get(instance.id)

    async def run(self, ref: str, command: Command) -> CommandResult:
        """Run a command in a running sandbox and return its result.

        Raises:
            FailedPrecondition: the sandbox is not running, or it terminated during the command.
            SandpoolError: any error of `Agents.run`.
        """
        instance = running(await self.get(ref))
        try:
            return await self._agents.run(instance.id, instance.address, command)
        except Unavailable:
            # If the sandbox terminated during the command, its termination is the error that the caller needs.
            running(await self.get(instance.id))
            raise

    async def close(self) -> None:
        """Wait until the claims of cancelled callers are abandoned."""
        await asyncio.gather(*self._undoing)


def _changed_claim(claim: Claim, changes: SandboxChanges) -> Claim:
    """Return the claim after the changes."""
    return replace(
        claim,
        name=claim.name if changes.name is UNSET else changes.name or "",
        metadata=claim.metadata if changes.metadata is UNSET else dict(changes.metadata or {}),
        timeout_secs=claim.timeout_secs if changes.timeout_secs is UNSET else changes.timeout_secs or 0,
    )


def running(instance: Instance) -> Instance:
    """Return the instance if it is a running sandbox.

    Raises:
        FailedPrecondition: the sandbox is starting (SANDBOX_STARTING) or has terminated (SANDBOX_TERMINATED). The
            message contains the reason of the termination.
    """
    if instance.state is InstanceState.ACTIVE:
        return instance
    if instance.state is InstanceState.STARTING:
        raise FailedPrecondition(
            "SANDBOX_STARTING",
            f"sandbox {instance.id!r} is still starting; wait until it is running",
            "sandbox",
            instance.id,
        )
    why = (
        f" ({instance.end.reason}{f': {instance.end.message}' if instance.end.message else ''})" if instance.end else ""
    )
    raise FailedPrecondition(
        "SANDBOX_TERMINATED", f"sandbox {instance.id!r} has terminated{why}; create a new one", "sandbox", instance.id
    )
