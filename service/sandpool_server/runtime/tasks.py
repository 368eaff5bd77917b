"""Background tasks with an owner, for work that must finish even if its caller is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TaskSet:
    """Tasks that are cancelled when their owner closes the set. Call all methods on the event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
        """Start a background task and return it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def uninterrupted(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run the work in a background task and return its result. Cancelling the caller does not cancel the task."""
        return await asyncio.shield(self.spawn(work, name))

    async def close(self) -> None:
        """Cancel all running tasks and wait until they have finished."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
