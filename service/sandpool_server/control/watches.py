"""What is looked at now and then, because nobody tells: whether ready members answer, and how full disks are."""

import asyncio

import structlog

from sandpool_server.control.settings import ControlSettings
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import DiskEnforcement, EndReason, Member, MemberEnd
from sandpool_server.ports import Agents, Clock, Runtime, Store

_log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_WARM = frozenset({MemberState.WARM})
_RUNNING = frozenset({MemberState.WARM, MemberState.ACTIVE})


class Probes:
    """Asks ready members whether they answer; never those that somebody has claimed."""

    def __init__(self, store: Store, agents: Agents, clock: Clock, settings: ControlSettings) -> None:
        self._store = store
        self._agents = agents
        self._clock = clock
        self._settings = settings
        self._failures: dict[str, int] = {}
        self._slots = asyncio.Semaphore(settings.probe_parallelism)

    async def run(self) -> None:
        """Probe for ever. Raises `Unavailable` when the store does not answer."""
        while True:
            await asyncio.sleep(self._settings.probe_interval)
            await self.probe_all()

    async def probe_all(self) -> None:
        """One round. A member that is claimed meanwhile is left alone: what it fails changes only a ready one."""
        ready = [member for member in await self._store.live_members() if member.state is MemberState.WARM]
        self._failures = {member.id: self._failures.get(member.id, 0) for member in ready}
        await asyncio.gather(*(self._probe(member) for member in ready))

    async def _probe(self, member: Member) -> None:
        async with self._slots:
            try:
                await self._agents.probe(member.id, member.address)
            except Unavailable as error:
                self._failures[member.id] += 1
                if self._failures[member.id] < self._settings.probe_failures:
                    return
                end = MemberEnd(EndReason.LOST, self._clock.now(), error.message)
                if await self._store.end_members([member.id], _WARM, end):
                    _log.warning("ready_member_given_up", member=member.id, pool=member.pool_id, why=error.message)
            else:
                self._failures[member.id] = 0


class DiskWatch:
    """Ends members that use more disk than they may, where the engine's storage does not refuse it by itself."""

    def __init__(self, store: Store, runtime: Runtime, clock: Clock, settings: ControlSettings) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._settings = settings
        self._used: dict[str, int] = {}

    def used_bytes(self, member_id: str) -> int | None:
        """See `ports.DiskReadings`."""
        return self._used.get(member_id)

    async def run(self) -> None:
        """Look for ever. Raises `Unavailable` when the store or the engine does not answer."""
        while True:
            await asyncio.sleep(self._settings.disk_interval)
            if self._runtime.disk_enforcement is DiskEnforcement.WATCHED:
                await self.look()

    async def look(self) -> None:
        """Look once: one call to the engine for all members, and none where there are no members."""
        members = [member for member in await self._store.live_members() if member.state in _RUNNING]
        if not members:
            return
        self._used = used = await self._runtime.disk_usage()
        for member in members:
            limit, size = member.spec.ephemeral_disk_mb, used.get(member.id, 0)
            if size <= limit * _MIB:
                continue
            message = f"it used {size / _MIB:.0f} MiB of disk; {limit} are allowed (ephemeral_disk_mb)"
            end = MemberEnd(EndReason.DISK_EXCEEDED, self._clock.now(), message)
            await self._store.end_members([member.id], _RUNNING, end)
            _log.info("disk_exceeded", member=member.id, used_bytes=size, limit_mb=limit)
