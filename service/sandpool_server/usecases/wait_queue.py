"""The FIFO wait queue of callers who wait for sandboxes.

The queue contains waiters, not instances. The first waiter claims like any other caller. A caller that leaves the queue
leaves no state behind, so a cancelled caller never holds an instance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sandpool_server.usecases.changes import ChangeHub


@dataclass(eq=False, slots=True)
class Waiter:
    """A caller in the queue: the number of sandboxes that it needs and the pools that can provide them."""

    pool_ids: tuple[str, ...]
    count: int
    claiming: bool = False
    """Whether a claim of this waiter is in progress. It can be committed before the caller receives the result."""


class WaitQueue:
    """All waiters in the order of arrival. Implements `interfaces.Waiters`. Use it on one event loop only."""

    def __init__(self, changes: ChangeHub) -> None:
        self._changes = changes
        self._waiters: list[Waiter] = []

    def __bool__(self) -> bool:
        """Return whether the queue has waiters."""
        return bool(self._waiters)

    def waiting(self, pool_id: str) -> int:
        """Return the number of sandboxes that the waiters need from the pool.

        Waiters for a template count for the oldest pool of the template.
        """
        return sum(waiter.count for waiter in self._waiters if waiter.pool_ids[0] == pool_id)

    def awaited(self, pool_ids: tuple[str, ...]) -> int:
        """Return the number of sandboxes that all waiters need and that one of these pools can provide."""
        return sum(waiter.count for waiter in self._of(pool_ids))

    def unserved(self, pool_ids: tuple[str, ...], before: Waiter | None = None) -> int:
        """Return the number of sandboxes that waiters need from these pools. With `before`, count only earlier waiters.

        Waiters whose claim is in progress are not counted: the instances of a committed claim are no longer in the pool
        when its waiter is still in the queue.
        """
        return sum(waiter.count for waiter in self._of(pool_ids, before) if not waiter.claiming)

    def is_next(self, waiter: Waiter) -> bool:
        """Return whether no earlier waiter uses one of the pools of this waiter."""
        return not any(self._of(waiter.pool_ids, waiter))

    @contextmanager
    def claiming(self, waiter: Waiter) -> Iterator[None]:
        """Mark a claim of the waiter as in progress during the block."""
        waiter.claiming = True
        try:
            yield
        finally:
            waiter.claiming = False

    @contextmanager
    def join(self, pool_ids: tuple[str, ...], count: int) -> Iterator[Waiter]:
        """Add a waiter at the end of the queue for the duration of the block."""
        waiter = Waiter(pool_ids, count)
        self._waiters.append(waiter)
        self._changes.publish(frozenset(pool_ids))
        try:
            yield waiter
        finally:
            self._waiters.remove(waiter)
            # The later waiters move up, and the pools need fewer instances.
            self._changes.publish(frozenset(pool_ids))

    def _of(self, pool_ids: tuple[str, ...], before: Waiter | None = None) -> Iterator[Waiter]:
        """Yield the waiters that one of these pools can serve: all, or only those ahead of `before`."""
        for waiter in self._waiters:
            if waiter is before:
                return
            if not set(waiter.pool_ids).isdisjoint(pool_ids):
                yield waiter
