"""What use cases and control loop need of each other."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sandpool_server.domain.model import Member


class Launcher(Protocol):
    """Starts the containers of `STARTING` members that callers wait for."""

    def expecting(self, ids: Sequence[str]) -> AbstractContextManager[None]:
        """For the length of the block the members of these ids, written or not yet, count as being launched here.

        Enter it before the rows are written: a `STARTING` row that nobody expects is taken for one that a killed server
        left behind.
        """
        ...

    async def launch(self, member: Member) -> Member:
        """Start the member and return it ACTIVE. Raises `LaunchFailed`, or `FailedPrecondition` (`SANDBOX_ENDED`) when
        it was deleted meanwhile. When it raises, or is cancelled, the member is on its way to removal.
        """
        ...


class Line(Protocol):
    """Who waits in line for sandboxes of which pool."""

    def waiting(self, pool_id: str) -> int:
        """For how many sandboxes callers wait that this pool could give."""
        ...


class DiskReadings(Protocol):
    """What was last seen of members' disks."""

    def used_bytes(self, member_id: str) -> int | None:
        """How much a member used when it was looked at last; None when it was not looked at."""
        ...
