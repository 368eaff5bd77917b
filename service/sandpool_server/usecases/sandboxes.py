"""What the calls on sandboxes mean."""

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
    NotReadyInTime,
    SandpoolError,
    Unavailable,
)
from sandpool_server.domain.ids import SANDBOX, new_id
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    Claim,
    Command,
    CommandResult,
    EndReason,
    Member,
    MemberEnd,
)
from sandpool_server.ports import Agents, ClaimRequest, ClaimResult, Clock, Launcher, SandboxFilter, Store
from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.line import WaitingLine
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.specs import check_environment, spec_of
from sandpool_server.usecases.templates import request_key
from sandpool_server.usecases.values import UNSET, NewSandbox, SandboxChanges, WhenEmpty

_HAND_OVERS = 5
"""How many ready members may turn out dead under one request before the caller is told."""

_ANSWER_SECS = 0.005
"""How long an answer may take to its caller. With less than that left, nobody may hear of what was made for it, and no
server can tell afterwards: so it is given up.
"""


class Sandboxes:
    """Sandboxes and the commands in them. Every method raises domain errors, as `ports.Store` says."""

    def __init__(
        self,
        store: Store,
        agents: Agents,
        launcher: Launcher,
        secrets: Secrets,
        clock: Clock,
        changes: ChangeHub,
        line: WaitingLine,
    ) -> None:
        self._store = store
        self._agents = agents
        self._launcher = launcher
        self._secrets = secrets
        self._clock = clock
        self._changes = changes
        self._line = line
        self._undoing: set[asyncio.Task[None]] = set()

    async def create(
        self, new: NewSandbox, request_id: str, fingerprint: str, received: float, deadline: float | None = None
    ) -> Member:
        """Claim a ready member, or start one; returns it running.

        `received` is the call's arrival on the clock's monotonic scale, `deadline` when the caller stops to wait, None
        for never. Raises what `Store.claim` raises, `LaunchFailed`, and `NotReadyInTime` when there is no time left to
        answer. When it raises or is cancelled, nothing is left claimed.
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
    ) -> tuple[Member, ...]:
        """Claim `count` sandboxes alike, all or none; returns them running. Raises as `create`."""
        check_environment(new.env)
        now = self._clock.now()
        request = ClaimRequest(
            namespace=DEFAULT_NAMESPACE,
            count=count,
            ids=(),
            now=now,
            received=received,
            pool_ref=new.pool_id,
            template_ref=new.template_name,
            spec=spec_of(new.spec) if new.spec.image else None,
            timeout_secs=new.timeout_secs,
            name=new.name,
            metadata=new.metadata,
            request_id=request_id,
            fingerprint=fingerprint,
        )
        for _ in range(_HAND_OVERS):
            ids = tuple(new_id(SANDBOX, now, self._clock.random_bits()) for _ in range(count))
            members = await self._create(replace(request, ids=ids), new, deadline)
            if members is not None:
                return members
        raise Unavailable("NO_LIVING_MEMBER", "several ready containers in a row did not answer; try again")

    async def _create(
        self, request: ClaimRequest, new: NewSandbox, deadline: float | None
    ) -> tuple[Member, ...] | None:
        """One attempt; None when a ready member turned out dead, which is then out of the pool."""
        with self._launcher.expecting(request.ids):
            result = await self._claim_in_turn(request, new)
            if result.replayed:
                members = tuple([await self._settled(member) for member in result.members])
                # The first call may have been cut off between the claim and the hand-over.
                await asyncio.gather(*(self._admit(m, new) for m in members if m.state is MemberState.ACTIVE))
                return members
            try:
                if not await self._hand_over(result.members, new):
                    return None
                members = await self._start(result.members, new)
                self._check_time_to_answer(deadline)
            except BaseException as error:
                why = error.message if isinstance(error, LaunchFailed | SandpoolError) else "the caller went away"
                await asyncio.shield(self._give_up(result.members, why))
                raise
        waited = self._clock.monotonic() - request.received
        return tuple(replace(member, start_secs=waited) for member in members)

    def _check_time_to_answer(self, deadline: float | None) -> None:
        if deadline is not None and self._clock.monotonic() > deadline - _ANSWER_SECS:
            raise NotReadyInTime("the call's deadline left no time for the answer; give it more time, and try again")

    async def _claim_in_turn(self, request: ClaimRequest, new: NewSandbox) -> ClaimResult:
        """Claim as the caller wants it when nothing is ready, and not before those who came first."""
        if request.spec is not None:
            return await self._claim(request)
        if new.when_empty is WhenEmpty.WAIT:
            return await self._wait_in_line(request, new.wait_secs)
        # Nobody waits, nearly always: then this costs nothing.
        awaited = self._line.awaited(await self._pool_ids(request)) if self._line else 0
        cold = new.when_empty is WhenEmpty.START_COLD
        try:
            return await self._claim(replace(request, warm=not awaited, cold=cold, reserved=awaited))
        except Exhausted as error:
            if error.reason != "POOL_AT_MAX":
                raise
            return await self._take_what_is_made(request, error)

    async def _take_what_is_made(self, request: ClaimRequest, at_max: Exhausted) -> ClaimResult:
        """At the maximum, a member that is being made for the pool serves as well as one started for the caller.

        Waits for it, behind those who wait already; raises `at_max` when there is none, or no more, for this caller.
        """
        pool_ids = await self._pool_ids(request)
        if await self._within_reach(request.namespace, pool_ids) < self._line.unserved(pool_ids) + request.count:
            raise at_max
        with self._changes.subscribe() as subscription, self._line.join(pool_ids, request.count) as place:
            while (
                await self._within_reach(request.namespace, pool_ids)
                >= self._line.unserved(pool_ids, place) + place.count
            ):
                if self._line.is_next(place):
                    try:
                        with self._line.claiming(place):
                            return await self._claim(replace(request, now=self._clock.now()))
                    except Exhausted as error:
                        at_max = error
                while (await subscription.next()).isdisjoint(pool_ids):
                    pass
        raise at_max

    async def _within_reach(self, namespace: str, pool_ids: tuple[str, ...]) -> int:
        """How many sandboxes the pools could give without anything ending: ready, being made, or still to be made."""
        number = 0
        for pool_id in pool_ids:
            with contextlib.suppress(NotFound):
                view = await self._store.get_pool(namespace, pool_id)
                number += view.counts.warm + view.counts.creating
                if view.pool.max_containers is not None:
                    number += max(0, view.pool.max_containers - view.counts.total)
        return number

    async def _wait_in_line(self, request: ClaimRequest, seconds: float) -> ClaimResult:
        pool_ids = await self._pool_ids(request)
        if not pool_ids:
            raise FailedPrecondition(
                "NO_POOL",
                f"no pool follows the template {request.template_ref!r}, so there is nothing to wait for; create one, "
                "or let the sandbox start cold",
                "template",
                request.template_ref,
            )
        try:
            async with asyncio.timeout(seconds):
                with self._changes.subscribe() as subscription, self._line.join(pool_ids, request.count) as place:
                    while True:
                        if self._line.is_next(place):
                            try:
                                with self._line.claiming(place):
                                    return await self._claim(replace(request, now=self._clock.now(), cold=False))
                            except Exhausted as error:
                                if error.reason != "POOL_EMPTY":
                                    raise
                        while (await subscription.next()).isdisjoint(pool_ids):
                            pass
        except TimeoutError:
            raise NotReadyInTime(
                f"no sandbox became ready within {seconds:g} s of waiting in line; wait longer, raise warm_containers "
                "or max_containers, or look at the pool's last_error"
            ) from None

    async def _pool_ids(self, request: ClaimRequest) -> tuple[str, ...]:
        """The pools that could serve the request."""
        if request.pool_ref:
            return ((await self._store.get_pool(request.namespace, request.pool_ref)).pool.id,)
        return await self._store.template_pool_ids(request.namespace, request.template_ref)

    async def _hand_over(self, members: tuple[Member, ...], new: NewSandbox) -> bool:
        """Give the ready members to their owner; False when one does not answer, and then all are given up."""
        ready = [member for member in members if member.state is MemberState.ACTIVE]
        try:
            if len(ready) == 1:
                await self._admit(ready[0], new)
            else:
                await asyncio.gather(*(self._admit(member, new) for member in ready))
        except Unavailable:
            await self._store.disown([member.id for member in ready])
            await self._give_up(members, "a container of the same request did not answer")
            return False
        return True

    async def _admit(self, member: Member, new: NewSandbox) -> None:
        """Give a member its owner's environment: the secrets' values, and over them what was given for it alone."""
        secrets = await self._secrets.values(member.spec.secret_names)
        entrypoint = member.spec.entrypoint if member.spec.secret_names else ()
        await self._agents.admit(member.id, member.address, {**secrets, **new.env}, entrypoint)

    async def _claim(self, request: ClaimRequest) -> ClaimResult:
        """Claim; a caller that goes away while the store is at it leaves nothing claimed behind."""
        claim = asyncio.ensure_future(self._store.claim(request))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            undoing = asyncio.create_task(self._undo_when_done(claim), name="undo-claim")
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise

    async def _undo_when_done(self, claim: "asyncio.Future[ClaimResult]") -> None:
        try:
            result = await claim
        except SandpoolError:
            return  # nothing was claimed
        if not result.replayed:
            await self._give_up(result.members, "the caller went away before the answer")

    async def _start(self, members: tuple[Member, ...], new: NewSandbox) -> tuple[Member, ...]:
        """Start those members that have no container yet, and hand them over; stops all when one fails."""
        tasks = {
            member.id: asyncio.create_task(self._launch(member, new), name=f"launch-{member.id}")
            for member in members
            if member.state is MemberState.STARTING
        }
        if not tasks:
            return members
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            raise
        return tuple(tasks[member.id].result() if member.id in tasks else member for member in members)

    async def _launch(self, member: Member, new: NewSandbox) -> Member:
        started = await self._launcher.launch(member)
        await self._admit(started, new)
        return started

    async def _give_up(self, members: Iterable[Member], why: str) -> None:
        end = MemberEnd(EndReason.FAILED, self._clock.now(), f"the sandbox was not handed out: {why}")
        await self._store.end_members([member.id for member in members], IN_USE, end)

    async def _settled(self, member: Member) -> Member:
        """The sandbox of an earlier request once it has started; the retry waits like the first call did."""
        async with aclosing(self.watch(member.id)) as states:
            async for seen in states:
                if seen.state is not MemberState.STARTING:
                    break
        if seen.end is not None and seen.end.reason is EndReason.FAILED:
            raise Unavailable("START_ABANDONED", f"{seen.end.message}; try again")
        return seen

    async def get(self, ref: str) -> Member:
        """Read one sandbox."""
        return await self._store.get_sandbox(DEFAULT_NAMESPACE, ref)

    async def list(self, which: SandboxFilter, limit: int, after: str) -> list[Member]:
        """Up to `limit` sandboxes whose id sorts after `after`."""
        return await self._store.list_sandboxes(DEFAULT_NAMESPACE, which, limit, after)

    async def update(self, ref: str, changes: SandboxChanges, etag: str, request_id: str, fingerprint: str) -> Member:
        """Change name, metadata or lifetime of a sandbox that has not ended."""
        now = self._clock.now()

        def change(member: Member) -> Member:
            claim = member.claim
            if claim is None:
                return member
            changed = _changed_claim(claim, changes)
            expire_time = changed.expire_time
            if changed.timeout_secs != claim.timeout_secs and expire_time is not None and expire_time <= now:
                age = (now - claim.claim_time).total_seconds()
                raise InvalidArgument(
                    FieldViolation(
                        "timeout_secs",
                        f"is counted from the claim, {age:.0f} s ago; give more than that, or delete the sandbox",
                    )
                )
            return replace(member, claim=changed)

        key = request_key("UpdateSandbox", request_id, fingerprint)
        return await self._store.update_sandbox(DEFAULT_NAMESPACE, ref, version_of(etag), change, key)

    async def delete(self, ref: str, request_id: str, fingerprint: str) -> Member:
        """End a sandbox, also one that is still starting; its container is removed behind the answer."""
        key = request_key("DeleteSandbox", request_id, fingerprint)
        return await self._store.delete_sandbox(DEFAULT_NAMESPACE, ref, self._clock.now(), key)

    async def watch(self, ref: str) -> AsyncGenerator[Member, None]:
        """The sandbox as it is, then as it changes, until it is gone. Raises `NotFound` at the start."""
        with self._changes.subscribe() as subscription:
            member = await self.get(ref)
            while True:
                yield member
                if member.state is MemberState.GONE:
                    return
                seen = member
                while member == seen:
                    if member.id in await subscription.next():
                        member = await self.get(member.id)

    async def run(self, ref: str, command: Command) -> CommandResult:
        """Run a command in a running sandbox. Raises what `Agents.run` raises, and `FailedPrecondition`."""
        member = running(await self.get(ref))
        try:
            return await self._agents.run(member.id, member.address, command)
        except Unavailable:
            # The sandbox may have ended under the command: then that is what the caller wants to hear.
            running(await self.get(member.id))
            raise

    async def close(self) -> None:
        """Wait for claims of callers who went away to be given up."""
        await asyncio.gather(*self._undoing)


def _changed_claim(claim: Claim, changes: SandboxChanges) -> Claim:
    """The claim after the changes."""
    return replace(
        claim,
        name=claim.name if changes.name is UNSET else changes.name or "",
        metadata=claim.metadata if changes.metadata is UNSET else dict(changes.metadata or {}),
        timeout_secs=claim.timeout_secs if changes.timeout_secs is UNSET else changes.timeout_secs or 0,
    )


def running(member: Member) -> Member:
    """Return the member if it runs commands; raises `FailedPrecondition` that says why not."""
    if member.state is MemberState.ACTIVE:
        return member
    if member.state is MemberState.STARTING:
        raise FailedPrecondition(
            "SANDBOX_STARTING", f"sandbox {member.id!r} is still starting; wait until it runs", "sandbox", member.id
        )
    why = f" ({member.end.reason}{f': {member.end.message}' if member.end.message else ''})" if member.end else ""
    raise FailedPrecondition(
        "SANDBOX_ENDED", f"sandbox {member.id!r} has ended{why}; create another one", "sandbox", member.id
    )
