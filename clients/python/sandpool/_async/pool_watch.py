"""Watches of pools."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from sandpool._async.resumption import resumed
from sandpool._core import pools
from sandpool._core.arguments import Timeout
from sandpool._core.call import Call
from sandpool._core.pool_wait import PoolWait
from sandpool._core.resumption import AllPools, NamedPools, Resumption
from sandpool._models.pool import Pool, PoolEvent
from sandpool._transport.asyncio import Transport, notify
from sandpool._transport.progress_bar import bar
from sandpool.errors import PoolNotFoundError, ResourceTimeoutError


async def watch_all_pools(transport: Transport, timeout: Timeout) -> AsyncGenerator[PoolEvent, None]:
    """Yield the events of all pools, and after a broken connection the pools that were deleted in the meantime."""
    pools_seen = AllPools()

    def call(left: Timeout) -> Call[Any, PoolEvent | None]:
        pools_seen.begin()
        return pools.watch_all_pools(left)

    async with aclosing(resumed(transport, call, timeout)) as events:
        async for event in events:
            for one in pools_seen.take(event):
                yield one


async def watch_named_pools(
    transport: Transport, named: NamedPools, timeout: Timeout
) -> AsyncGenerator[PoolEvent, None]:
    """Yield the events of some pools until all of them are deleted."""
    resumption = Resumption(timeout, time.monotonic)
    while named.refs:
        left = resumption.left()
        events = resumed(transport, lambda left: pools.watch_pools(named.refs, left), left)
        try:
            async with aclosing(events):
                async for event in events:
                    yield named.take(event)
            return
        except PoolNotFoundError as failure:
            deleted = named.deleted(failure)
            if deleted is None:
                raise
            yield named.take(deleted)


async def wait_for_pool(
    transport: Transport,
    pool_id: str,
    warm: int | None,
    timeout: float | None,
    on_progress: Callable[[Pool], object] | None,
    progress: bool,
) -> Pool:
    """Return a pool as soon as it has its warm containers."""
    wait = PoolWait(pool_id, warm)
    with bar(progress) as show:
        async with aclosing(_states(transport, wait, timeout)) as states:
            async for pool in states:
                show(wait.label(pool), wait.step(pool))
                if on_progress is not None:
                    await notify(on_progress, pool)
                if wait.is_full(pool):
                    return pool
    kind = transport.error_classes.get(ResourceTimeoutError, ResourceTimeoutError)
    raise wait.timed_out(0.0 if timeout is None else timeout, kind)


async def _states(transport: Transport, wait: PoolWait, timeout: float | None) -> AsyncGenerator[Pool, None]:
    """Yield the states of a pool until the time limit passes."""
    try:
        async with aclosing(watch_named_pools(transport, NamedPools([wait.pool_id]), timeout)) as events:
            async for event in events:
                yield wait.take(event)
    except ResourceTimeoutError:
        return
