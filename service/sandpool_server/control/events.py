"""Turns what the engine reports into what it means for members."""

import structlog

from sandpool_server.control.executor import Executor
from sandpool_server.control.recovery import Recovery
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import EndReason, MemberEnd
from sandpool_server.ports import Clock, RuntimeEvent, RuntimeEventKind, Store

_log = structlog.get_logger(__name__)

_KILLED = 137
"""The exit code of a process that was ended by SIGKILL."""

_WARM = frozenset({MemberState.WARM})
_CLAIMED_OR_WARM = _WARM | {MemberState.ACTIVE}


class EventHandler:
    """Handles engine events one by one. Events of members that are being removed change nothing."""

    def __init__(self, store: Store, executor: Executor, recovery: Recovery, clock: Clock) -> None:
        self._store = store
        self._executor = executor
        self._recovery = recovery
        self._clock = clock
        self._out_of_memory: set[str] = set()
        self._killed: set[str] = set()

    async def handle(self, event: RuntimeEvent) -> None:
        """Write down what an event means. Raises `Unavailable` when the store (for RESYNC: or the engine) is silent."""
        match event.kind:
            case RuntimeEventKind.RESYNC:
                self._out_of_memory.clear()
                self._killed.clear()
                await self._recovery.reconcile()
            case RuntimeEventKind.OOM:
                self._out_of_memory.add(event.member_id)
            case RuntimeEventKind.KILLED:
                self._killed.add(event.member_id)
            case RuntimeEventKind.DIED:
                await self._died(event)
            case RuntimeEventKind.REMOVED:
                self._out_of_memory.discard(event.member_id)
                self._killed.discard(event.member_id)
                await self._end(event.member_id, EndReason.LOST, "its container was removed by somebody else")
            case RuntimeEventKind.PAUSED:
                await self._end(event.member_id, EndReason.LOST, "it was paused by somebody else", only=_WARM)

    async def _died(self, event: RuntimeEvent) -> None:
        if self._executor.container_died(event.member_id, event.exit_code):
            return
        # The kernel may have killed another process, long before this end: the first one's own shows in its exit code.
        if event.member_id in self._out_of_memory and event.exit_code in (None, _KILLED):
            await self._end(event.member_id, EndReason.OOM_KILLED, "it ran out of memory", event.exit_code)
        elif event.member_id in self._killed:
            message = "its container was killed or removed by somebody else"
            await self._end(event.member_id, EndReason.LOST, message, event.exit_code)
        else:
            await self._end(event.member_id, EndReason.EXITED, "its container ended", event.exit_code)

    async def _end(
        self,
        member_id: str,
        reason: EndReason,
        message: str,
        exit_code: int | None = None,
        only: frozenset[MemberState] = _CLAIMED_OR_WARM,
    ) -> None:
        end = MemberEnd(reason, self._clock.now(), message, exit_code)
        for member in await self._store.end_members([member_id], only, end):
            _log.info("member_ended", member=member_id, reason=reason, exit_code=exit_code)
            if member.claim is None and reason in (EndReason.EXITED, EndReason.OOM_KILLED):
                await self._executor.ready_member_died(member, f"a container ended with exit code {exit_code}")
