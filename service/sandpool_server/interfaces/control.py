"""The interfaces between the use cases and the control loop."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sandpool_server.domain.model import Instance


class Launcher(Protocol):
    """Starts the containers of `STARTING` instances (cold starts)."""

    def expecting(self, ids: Sequence[str]) -> AbstractContextManager[None]:
        """Mark the instances with these ids as launched by this process, for the duration of the block.

        Enter the block before the rows are written. The control loop abandons every `STARTING` instance without a mark,
        because it can only come from an earlier process of the server.
        """
        ...

    async def launch(self, instance: Instance) -> Instance:
        """Start the container of the instance and return the instance in the state ACTIVE.

        If the method raises or is cancelled, the state of the instance is REMOVING.

        Raises:
            LaunchFailed: the container could not be started.
            FailedPrecondition: (SANDBOX_TERMINATED) the sandbox was deleted during the start.
        """
        ...


class Waiters(Protocol):
    """The wait queue, as the control loop uses it."""

    def waiting(self, pool_id: str) -> int:
        """Return the number of sandboxes that the waiters need from the pool."""
        ...


class DiskReadings(Protocol):
    """The most recent disk usage of the instances."""

    def used_bytes(self, instance_id: str) -> int | None:
        """Return the disk usage of the instance at the last check, in bytes; None if there was no check."""
        ...
