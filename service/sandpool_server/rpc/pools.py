"""Implementation of PoolService on the use cases."""

from collections.abc import AsyncIterator

from sandpool.v1 import pool_service_pb2 as messages
from sandpool_server.gen.v1 import pool_service_pb2_grpc as stubs
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import WATCH_EVENT_TYPES, pool_message
from sandpool_server.rpc.drain import releasing
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.rpc.requests import new_pool, pool_changes
from sandpool_server.usecases.pools import Pools


class PoolServicer(stubs.PoolServiceServicer):
    """Implements PoolService. `Calls` validates requests and converts domain errors to statuses."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def CreatePool(self, request: messages.CreatePoolRequest, context: Context) -> messages.CreatePoolResponse:
        """Create a pool."""
        fingerprint = fingerprint_of(request, request.request_id)
        view = await self._pools.create(new_pool(request), request.request_id, fingerprint)
        return messages.CreatePoolResponse(pool=pool_message(view))

    async def GetPool(self, request: messages.GetPoolRequest, context: Context) -> messages.GetPoolResponse:
        """Return a pool."""
        return messages.GetPoolResponse(pool=pool_message(await self._pools.get(request.pool_id)))

    async def ListPools(self, request: messages.ListPoolsRequest, context: Context) -> messages.ListPoolsResponse:
        """List pools, oldest first."""
        views, token = await page_of(request).fetch(self._pools.list, lambda view: view.pool.id)
        return messages.ListPoolsResponse(pools=[pool_message(view) for view in views], next_page_token=token)

    async def UpdatePool(self, request: messages.UpdatePoolRequest, context: Context) -> messages.UpdatePoolResponse:
        """Update a pool."""
        fingerprint = fingerprint_of(request, request.request_id)
        view = await self._pools.update(
            request.pool_id, pool_changes(request), request.etag, request.request_id, fingerprint
        )
        return messages.UpdatePoolResponse(pool=pool_message(view))

    async def DeletePool(self, request: messages.DeletePoolRequest, context: Context) -> messages.DeletePoolResponse:
        """Delete a pool."""
        fingerprint = fingerprint_of(request, request.request_id)
        await self._pools.delete(request.pool_id, request.etag, request.request_id, fingerprint, request.force)
        return messages.DeletePoolResponse()

    async def WatchPools(
        self, request: messages.WatchPoolsRequest, context: Context
    ) -> AsyncIterator[messages.WatchPoolsResponse]:
        """Stream the current pools and their changes."""
        async with releasing(self._pools.watch(tuple(request.pool_ids))) as events:
            async for event, view in events:
                if view is not None:
                    yield messages.WatchPoolsResponse(pool=pool_message(view), type=WATCH_EVENT_TYPES[event])
                elif request.bookmark:
                    yield messages.WatchPoolsResponse(type=WATCH_EVENT_TYPES[event])
