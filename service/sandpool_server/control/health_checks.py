"""Periodic checks of the instances: health checks of warm instances, and the disk monitor.

The container engine reports neither an agent that does not respond nor the disk usage by events.
"""

import asyncio

import structlog

from sandpool_server.control.settings import ControlSettings
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import DiskEnforcement, Instance, Termination, TerminationReason
from sandpool_server.interfaces import Agents, Clock, Runtime, Store

_log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_WARM = frozenset({InstanceState.WARM})
_RUNNING = frozenset({InstanceState.WARM, InstanceState.ACTIVE})


class HealthChecks:
    """Checks that the agents of warm instances respond. Does not check claimed instances."""

    def __init__(self, store: Store, agents: Agents, clock: Clock, settings: ControlSettings) -> None:
        self._store = store
        self._agents = agents
        self._clock = clock
        self._settings = settings
        self._failures: dict[str, int] = {}
        self._slots = asyncio.Semaphore(settings.probe_parallelism)

    async def run(self) -> None:
        """Check all warm instances periodically, without end. Raises `Unavailable` if the store does not respond."""
        while True:
            await asyncio.sleep(self._settings.probe_interval)
            await self.check_all()

    async def check_all(self) -> None:
        """Check all warm instances once.

        A failure has no effect on an instance that was claimed during the check: only WARM instances are terminated.
        """
        warm = [instance for instance in await self._store.live_instances() if instance.state is InstanceState.WARM]
        self._failures = {instance.id: self._failures.get(instance.id, 0) for instance in warm}
        await asyncio.gather(*(self._check(instance) for instance in warm))

    async def _check(self, instance: Instance) -> None:
        async with self._slots:
            try:
                await self._agents.probe(instance.id, instance.address)
            except Unavailable as error:
                self._failures[instance.id] += 1
                if self._failures[instance.id] < self._settings.probe_failures:
                    return
                end = Termination(TerminationReason.LOST, self._clock.now(), error.message)
                if await self._store.end_instances([instance.id], _WARM, end):
                    _log.warning(
                        "unhealthy_instance_removed", instance=instance.id, pool=instance.pool_id, error=error.message
                    )
            else:
                self._failures[instance.id] = 0


class DiskMonitor:
    """Terminates instances that exceed their disk limit, on engines whose storage does not enforce the limit."""

    def __init__(self, store: Store, runtime: Runtime, clock: Clock, settings: ControlSettings) -> None:
        self._store = store
        self._runtime = runtime
        self._clock = clock
        self._settings = settings
        self._used: dict[str, int] = {}

    def used_bytes(self, instance_id: str) -> int | None:
        """See `interfaces.DiskReadings`."""
        return self._used.get(instance_id)

    async def run(self) -> None:
        """Check all disks periodically, without end.

        Raises:
            Unavailable: the store or the engine does not respond.
        """
        while True:
            await asyncio.sleep(self._settings.disk_interval)
            if self._runtime.disk_enforcement is DiskEnforcement.BEST_EFFORT:
                await self.check()

    async def check(self) -> None:
        """Check all disks once. Makes one call to the engine, and none if there are no instances."""
        instances = [instance for instance in await self._store.live_instances() if instance.state in _RUNNING]
        if not instances:
            return
        self._used = used = await self._runtime.disk_usage()
        for instance in instances:
            limit, size = instance.spec.ephemeral_disk_mb, used.get(instance.id, 0)
            if size <= limit * _MIB:
                continue
            message = f"it used {size / _MIB:.0f} MiB of disk; the limit (ephemeral_disk_mb) is {limit} MiB"
            end = Termination(TerminationReason.DISK_EXCEEDED, self._clock.now(), message)
            await self._store.end_instances([instance.id], _RUNNING, end)
            _log.info("disk_exceeded", instance=instance.id, used_bytes=size, limit_mb=limit)
