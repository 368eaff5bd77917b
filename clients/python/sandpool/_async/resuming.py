"""Streams that go on where their connection broke."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from sandpool._core.call import Call
from sandpool._core.resuming import Resuming
from sandpool._io.aio import Transport
from sandpool.errors import SandboxConnectionError

ResultT = TypeVar("ResultT")


async def resumed(
    transport: Transport,
    call: Callable[[float | None], Call[Any, ResultT]],
    timeout: float | None,
    gap: Callable[[], ResultT] | None = None,
) -> AsyncGenerator[ResultT, None]:
    """The answers of calls that are made one after the other, the next where one broke, until one ends by itself.

    `call` makes one for so many seconds. What `gap` gives, if there is one, comes first after a break.
    """
    resuming = Resuming(timeout, time.monotonic)
    while True:
        try:
            async with aclosing(transport.stream(call(resuming.left()))) as answers:
                async for answer in answers:
                    if resuming.arrived() and gap is not None:
                        yield gap()
                    yield answer
            return
        except SandboxConnectionError as failure:
            pause = resuming.pause(transport.retry, failure)
            if pause is None:
                raise
            await transport.pause(pause)
