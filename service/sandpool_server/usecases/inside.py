"""What goes on inside a sandbox: processes, files, ports, logs. Its agent answers, the server passes it on."""

from collections.abc import AsyncGenerator, AsyncIterator

from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Member
from sandpool_server.ports import DiskReadings, Relay, Store
from sandpool_server.usecases.sandboxes import running

_MIB = 1024 * 1024


class Inside:
    """Calls into running sandboxes.

    Each raises `NotFound` for a sandbox that does not exist, `FailedPrecondition` for one that does not run or has
    ended under the call, and what `Relay` raises. Only the beginning of a call reads the database.
    """

    def __init__(self, store: Store, relay: Relay, disks: DiskReadings) -> None:
        self._store = store
        self._relay = relay
        self._disks = disks

    async def call(self, ref: str, method: str, requests: AsyncIterator[object], timeout_secs: float) -> object:
        """A call of one answer."""
        member = await self._running(ref)
        try:
            return await self._relay.call(member.id, member.address, method, requests, timeout_secs)
        except Unavailable:
            await self._running(member.id)
            raise

    async def stream(self, ref: str, method: str, requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
        """A call of many answers."""
        member = await self._running(ref)
        answers = self._relay.stream(member.id, member.address, method, requests)
        try:
            async for answer in answers:
                yield answer
        except Unavailable:
            await self._running(member.id)
            raise
        finally:
            await answers.aclose()

    async def disk(self, ref: str) -> tuple[int | None, int]:
        """What its disk held when it was looked at last, None where it was not, and what it may hold; in bytes."""
        member = await self._running(ref)
        return self._disks.used_bytes(member.id), member.spec.ephemeral_disk_mb * _MIB

    async def _running(self, ref: str) -> Member:
        """The sandbox. After a failure: it may have ended under the call, and that is what its caller wants to hear."""
        return running(await self._store.get_sandbox(DEFAULT_NAMESPACE, ref))
