"""Streams that continue after a broken connection."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from sandpool._core.arguments import Timeout
from sandpool._core.call import Call
from sandpool._core.resumption import Resumption
from sandpool._transport.asyncio import Transport
from sandpool.errors import SandboxConnectionError

ResultT = TypeVar("ResultT")


async def resumed(
    transport: Transport,
    call: Callable[[Any], Call[Any, ResultT]],
    timeout: Timeout,
    gap: Callable[[], ResultT] | None = None,
) -> AsyncGenerator[ResultT, None]:
    """Yield the responses of a call. After a broken connection, make the call again.

    Args:
        transport: Where to send the calls.
        call: Returns the call for a time limit.
        timeout: The time limit of all calls together, in seconds.
        gap: Returns an item that is yielded first after a broken connection.
    """
    resumption = Resumption(timeout, time.monotonic)
    while True:
        try:
            async with aclosing(transport.stream(call(resumption.left()))) as responses:
                async for response in responses:
                    if resumption.progress() and gap is not None:
                        yield gap()
                    yield response
            return
        except SandboxConnectionError as failure:
            await pause_before_resuming(transport, resumption, failure)


async def pause_before_resuming(transport: Transport, resumption: Resumption, failure: SandboxConnectionError) -> None:
    """Wait before the next connection. Raise the failure if no further connection is allowed."""
    pause = resumption.pause(transport.retry, failure)
    if pause is None:
        raise failure
    await transport.pause(pause)
