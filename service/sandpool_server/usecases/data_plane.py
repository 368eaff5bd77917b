"""The data plane: calls on processes, files, ports and logs, which the server proxies to the agent of a sandbox."""

from collections.abc import AsyncGenerator, AsyncIterator

from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Instance
from sandpool_server.interfaces import DiskReadings, Proxy, Store
from sandpool_server.usecases.sandboxes import running

_MIB = 1024 * 1024


class DataPlane:
    """Proxies calls to the agents of running sandboxes.

    A call reads the database only at its start and after a failure.

    Raises:
        NotFound: the sandbox does not exist.
        FailedPrecondition: the sandbox is not running, or it terminated during the call.
        SandpoolError: any error of `Proxy`.
    """

    def __init__(self, store: Store, proxy: Proxy, disks: DiskReadings) -> None:
        self._store = store
        self._proxy = proxy
        self._disks = disks

    async def call(self, ref: str, method: str, requests: AsyncIterator[object], timeout_secs: float) -> object:
        """Make a call with one response and return it; see `Proxy.call`."""
        instance = await self._running(ref)
        try:
            return await self._proxy.call(instance.id, instance.address, method, requests, timeout_secs)
        except Unavailable:
            await self._running(instance.id)
            raise

    async def stream(self, ref: str, method: str, requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
        """Make a call with a stream of responses; see `Proxy.stream`."""
        instance = await self._running(ref)
        responses = self._proxy.stream(instance.id, instance.address, method, requests)
        try:
            async for response in responses:
                yield response
        except Unavailable:
            await self._running(instance.id)
            raise
        finally:
            await responses.aclose()

    async def disk(self, ref: str) -> tuple[int | None, int]:
        """Return the disk usage at the last check and the disk limit, both in bytes.

        The usage is None if there was no check.
        """
        instance = await self._running(ref)
        return self._disks.used_bytes(instance.id), instance.spec.ephemeral_disk_mb * _MIB

    async def _running(self, ref: str) -> Instance:
        """Return the sandbox if it is running.

        Callers also use this after a failed call: if the sandbox terminated during the call, its termination is the
        error that the caller needs.
        """
        return running(await self._store.get_sandbox(DEFAULT_NAMESPACE, ref))
