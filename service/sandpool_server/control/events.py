"""Applies the events of the container engine to the instances."""

import structlog

from sandpool_server.control.executor import Executor
from sandpool_server.control.reconciler import Reconciler
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Termination, TerminationReason
from sandpool_server.interfaces import Clock, RuntimeEvent, RuntimeEventKind, Store

_log = structlog.get_logger(__name__)

_KILLED = 137
"""The exit code of a process that was killed by SIGKILL."""

_WARM = frozenset({InstanceState.WARM})
_RUNNING = _WARM | {InstanceState.ACTIVE}


class EventHandler:
    """Handles engine events one after the other. Ignores events of instances whose state is REMOVING."""

    def __init__(self, store: Store, executor: Executor, reconciler: Reconciler, clock: Clock) -> None:
        self._store = store
        self._executor = executor
        self._reconciler = reconciler
        self._clock = clock
        self._out_of_memory: set[str] = set()
        self._killed: set[str] = set()

    async def handle(self, event: RuntimeEvent) -> None:
        """Update the instances in the database according to the event.

        Raises:
            Unavailable: the store, or for RESYNC the engine, does not respond.
        """
        match event.kind:
            case RuntimeEventKind.RESYNC:
                self._out_of_memory.clear()
                self._killed.clear()
                await self._reconciler.reconcile()
            case RuntimeEventKind.OOM:
                self._out_of_memory.add(event.instance_id)
            case RuntimeEventKind.KILLED:
                self._killed.add(event.instance_id)
            case RuntimeEventKind.DIED:
                await self._handle_exit(event)
            case RuntimeEventKind.REMOVED:
                self._out_of_memory.discard(event.instance_id)
                self._killed.discard(event.instance_id)
                message = "its container was removed by another client of the engine"
                await self._terminate(event.instance_id, TerminationReason.LOST, message)
            case RuntimeEventKind.PAUSED:
                message = "its container was paused by another client of the engine"
                await self._terminate(event.instance_id, TerminationReason.LOST, message, only=_WARM)

    async def _handle_exit(self, event: RuntimeEvent) -> None:
        if self._executor.container_exited(event.instance_id, event.exit_code):
            return
        # The kernel may have killed another process of the container earlier. The exit code of the first process shows
        # whether it was killed itself.
        if event.instance_id in self._out_of_memory and event.exit_code in (None, _KILLED):
            message = "it ran out of memory"
            await self._terminate(event.instance_id, TerminationReason.OOM_KILLED, message, event.exit_code)
        elif event.instance_id in self._killed:
            message = "its container was killed or removed by another client of the engine"
            await self._terminate(event.instance_id, TerminationReason.LOST, message, event.exit_code)
        else:
            await self._terminate(event.instance_id, TerminationReason.EXITED, "its container exited", event.exit_code)

    async def _terminate(
        self,
        instance_id: str,
        reason: TerminationReason,
        message: str,
        exit_code: int | None = None,
        only: frozenset[InstanceState] = _RUNNING,
    ) -> None:
        end = Termination(reason, self._clock.now(), message, exit_code)
        for instance in await self._store.end_instances([instance_id], only, end):
            _log.info("instance_terminated", instance=instance_id, reason=reason, exit_code=exit_code)
            if instance.claim is None and reason in (TerminationReason.EXITED, TerminationReason.OOM_KILLED):
                await self._executor.warm_instance_exited(instance, f"a container exited with exit code {exit_code}")
