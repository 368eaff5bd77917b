"""Compares what the engine has with what the database knows, and mends the difference.

Runs at the start and whenever the engine's events were interrupted. It decides nothing that the planner decides: it
only tells the database what happened behind its back, and removes containers that no row stands for.
"""

import structlog

from sandpool_server.control.executor import Executor
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import EndReason, Member, MemberEnd
from sandpool_server.ports import Clock, MemberRef, Runtime, Store

_log = structlog.get_logger(__name__)

_RUNNING = frozenset({MemberState.WARM, MemberState.ACTIVE})


class Recovery:
    """The comparison; see the module."""

    def __init__(self, store: Store, runtime: Runtime, executor: Executor, clock: Clock) -> None:
        self._store = store
        self._runtime = runtime
        self._executor = executor
        self._clock = clock
        self._compared = False

    async def reconcile(self) -> None:
        """Compare once. Raises `Unavailable` when the engine or the store does not answer.

        The engine is listed first: rows are written before their containers and deleted after them, so a container that
        has no row in the later reading belongs to nobody.
        """
        containers = {ref.member_id: ref for ref in await self._runtime.members()}
        rows = {member.id: member for member in await self._store.live_members()}
        orphans = containers.keys() - rows.keys()
        lost = [
            member
            for member in rows.values()
            if member.state in _RUNNING and not _is_whole(member, containers.get(member.id))
        ]
        for member_id in orphans:
            self._executor.begin_removal(member_id)
        for member in lost:
            await self._store.end_members([member.id], _RUNNING, self._end_of(containers.get(member.id)))
        adopted = sum(member.state in _RUNNING for member in rows.values()) - len(lost)
        # Streams of events are reopened now and then; a comparison that finds nothing is worth no line then.
        log = _log.info if lost or orphans or not self._compared else _log.debug
        self._compared = True
        log("reconciled", adopted=adopted, lost=len(lost), orphans=len(orphans))

    def _end_of(self, container: MemberRef | None) -> MemberEnd:
        now = self._clock.now()
        if container is None:
            return MemberEnd(EndReason.LOST, now, "its container was removed by somebody else")
        if container.running:
            return MemberEnd(EndReason.LOST, now, "its container was restarted by somebody else")
        return MemberEnd(EndReason.EXITED, now, "its container ended", container.exit_code)


def _is_whole(member: Member, container: MemberRef | None) -> bool:
    """Whether the container is the one that the row knows, still running."""
    return container is not None and container.running and container.address == member.address
