"""Who is told when something changes: watchers and the control loop.

The hub carries ids, not states: a listener reads what is there now. So a slow listener loses nothing that matters, and
what piles up for it is at most one entry for each pool and sandbox.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def image_change(image: str) -> str:
    """What is published, among the ids, when the pull of an image makes progress."""
    return f"image:{image}"


class Subscription:
    """What has changed since the listener looked last. Made by `ChangeHub.subscribe`."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._some = asyncio.Event()

    def add(self, ids: frozenset[str]) -> None:
        """Note changes; wakes the listener."""
        if ids:
            self._changed |= ids
            self._some.set()

    async def next(self) -> frozenset[str]:
        """Wait until something has changed, and return the ids of all that has since the last call."""
        await self._some.wait()
        self._some.clear()
        changed, self._changed = frozenset(self._changed), set()
        return changed


class ChangeHub:
    """Passes the ids of changed pools and sandboxes on to all subscriptions. Belongs to one event loop."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, ids: frozenset[str]) -> None:
        """Tell every subscription that these have changed. Never waits."""
        for subscription in self._subscriptions:
            subscription.add(ids)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A subscription for the length of the block: everything published inside it is seen."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
