"""Notifications of changes for watches and the control loop.

A notification contains ids, not states: the subscriber reads the current state. A slow subscriber therefore misses no
final state, and its backlog has at most one entry per pool and sandbox.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


def image_change(image: str) -> str:
    """Return the id that is published when the pull of the image makes progress."""
    return f"image:{image}"


class Subscription:
    """The changes since the last call of `next`. `ChangeHub.subscribe` creates it."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._available = asyncio.Event()

    def add(self, ids: frozenset[str]) -> None:
        """Add changes and wake the subscriber."""
        if ids:
            self._changed |= ids
            self._available.set()

    async def next(self) -> frozenset[str]:
        """Wait for a change, and return the ids of all changes since the last call."""
        await self._available.wait()
        self._available.clear()
        changed, self._changed = frozenset(self._changed), set()
        return changed


class ChangeHub:
    """Publishes the ids of changed pools and sandboxes to all subscriptions. Use it on one event loop only."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, ids: frozenset[str]) -> None:
        """Add the ids to every subscription. The method does not wait."""
        for subscription in self._subscriptions:
            subscription.add(ids)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Return a subscription that receives all changes during the block."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
