"""The reconciler: compares the containers of the engine with the instances in the database and corrects differences.

It runs at the start of the server and after each interruption of the engine's events. It makes no decisions of the
planner: it records external changes of containers in the database, and removes containers without a row (orphans).
"""

import structlog

from sandpool_server.control.executor import Executor
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Instance, Termination, TerminationReason
from sandpool_server.interfaces import Clock, InstanceRef, Runtime, Store

_log = structlog.get_logger(__name__)

_RUNNING = frozenset({InstanceState.WARM, InstanceState.ACTIVE})


class Reconciler:
    """Reconciles the database with the engine."""

    def __init__(self, store: Store, runtime: Runtime, executor: Executor, clock: Clock) -> None:
        self._store = store
        self._runtime = runtime
        self._executor = executor
        self._clock = clock
        self._compared = False

    async def reconcile(self) -> None:
        """Compare all containers and instances once.

        The containers are listed before the rows are read. A row is written before its container is created and deleted
        after its container is removed, so a container without a row is an orphan.

        Raises:
            Unavailable: the engine or the store does not respond.
        """
        containers = {ref.instance_id: ref for ref in await self._runtime.instances()}
        rows = {instance.id: instance for instance in await self._store.live_instances()}
        orphans = containers.keys() - rows.keys()
        lost = [
            instance
            for instance in rows.values()
            if instance.state in _RUNNING and not _is_unchanged(instance, containers.get(instance.id))
        ]
        for instance_id in orphans:
            self._executor.begin_removal(instance_id)
        for instance in lost:
            await self._store.end_instances([instance.id], _RUNNING, self._termination_of(containers.get(instance.id)))
        adopted = sum(instance.state in _RUNNING for instance in rows.values()) - len(lost)
        # The event stream is opened again from time to time. Then a comparison without a difference is only debug
        # information.
        log = _log.info if lost or orphans or not self._compared else _log.debug
        self._compared = True
        log("reconciled", adopted=adopted, lost=len(lost), orphans=len(orphans))

    def _termination_of(self, container: InstanceRef | None) -> Termination:
        now = self._clock.now()
        if container is None:
            return Termination(TerminationReason.LOST, now, "its container was removed by another client of the engine")
        if container.running:
            return Termination(
                TerminationReason.LOST, now, "its container was restarted by another client of the engine"
            )
        return Termination(TerminationReason.EXITED, now, "its container exited", container.exit_code)


def _is_unchanged(instance: Instance, container: InstanceRef | None) -> bool:
    """Return whether the container is running at the address that is in the row."""
    return container is not None and container.running and container.address == instance.address
