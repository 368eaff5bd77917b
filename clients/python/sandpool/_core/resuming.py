"""Streams that go on where their connection broke, and what they cannot know of the time between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sandpool._core.arguments import words
from sandpool._core.enums import PoolEventType
from sandpool._core.model import Pool, PoolEvent
from sandpool._core.retry import RetryPolicy
from sandpool.errors import PoolNotFoundError, SandboxConnectionError

PATIENCE_SECS: Final = 60.0
"""How long a stream that had begun is opened again and again while nothing answers."""
_LEAST_SECS: Final = 0.001
"""What a call gets whose time is over, so that it is its timeout that ends it."""


class Resuming:
    """One stream over any number of connections: the time that is left, and when the next one is opened."""

    def __init__(self, timeout: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = None if timeout is None else clock() + timeout
        self._begun = False
        self._failures = 0
        self._silent_since = clock()

    def left(self) -> float | None:
        """Seconds that the next connection may take; None for no limit."""
        return None if self._end is None else max(self._end - self._clock(), _LEAST_SECS)

    def arrived(self) -> bool:
        """Something has arrived. Whether it is the first after a break."""
        again = self._begun and self._failures > 0
        self._begun, self._failures = True, 0
        return again

    def pause(self, retry: RetryPolicy, failure: SandboxConnectionError) -> float | None:
        """Seconds until the next connection after one broke; None when it is time to give up."""
        now = self._clock()
        if self._failures == 0:
            self._silent_since = now
        self._failures += 1
        left = self._silent_since + PATIENCE_SECS - now
        if self._end is not None:
            left = min(left, self._end - now)
        attempt = self._failures
        if self._begun and retry.max_attempts > 1:
            # The policy's bound on attempts is for single calls: a stream that had begun is worth more patience.
            attempt = min(attempt, retry.max_attempts - 1)
        return retry.pause(attempt, left, failure.retry_after)


class NamedPools:
    """What was seen of the pools that a watch names."""

    def __init__(self, pool_ids: Iterable[str]) -> None:
        self._unseen = words("pool_ids", pool_ids) or []
        self._seen: dict[str, Pool] = {}

    @property
    def refs(self) -> list[str]:
        """What to ask for next: identifiers where they are known, so that a new pool of an old name is not meant."""
        return [*self._unseen, *self._seen]

    def take(self, event: PoolEvent) -> PoolEvent:
        """Notes an event; gives it back."""
        pool = event.pool
        self._unseen = [ref for ref in self._unseen if ref not in {pool.pool_id, pool.name}]
        if event.type is PoolEventType.DELETED:
            self._seen.pop(pool.pool_id, None)
        else:
            self._seen[pool.pool_id] = pool
        return event

    def deleted(self, failure: PoolNotFoundError) -> PoolEvent | None:
        """The event for a pool that was deleted while nobody watched; None where there never was one."""
        gone = self._seen.get(failure.resource_name)
        return None if gone is None else PoolEvent(PoolEventType.DELETED, gone)


class AllPools:
    """What was seen of all pools, by a watch over any number of connections."""

    def __init__(self) -> None:
        self._seen: dict[str, Pool] = {}
        self._untold: set[str] = set()

    def begin(self) -> None:
        """A connection begins: what it does not tell before its bookmark was deleted while nobody watched."""
        self._untold = set(self._seen)

    def take(self, event: PoolEvent | None) -> list[PoolEvent]:
        """The events that one of a connection means; None for the bookmark."""
        if event is None:
            return [PoolEvent(PoolEventType.DELETED, self._seen.pop(pool_id)) for pool_id in sorted(self._untold)]
        if event.type is PoolEventType.DELETED:
            self._seen.pop(event.pool.pool_id, None)
        else:
            self._seen[event.pool.pool_id] = event.pool
        self._untold.discard(event.pool.pool_id)
        return [event]


def incomplete_upload(path: str, failure: SandboxConnectionError) -> SandboxConnectionError:
    """The error for a folder of which only a part may have arrived."""
    return SandboxConnectionError(
        f"the connection broke each time that a folder was sent: a part of it may be in {path}; send it again, which "
        f"replaces what is there ({failure})",
        code=failure.code,
        reason="UPLOAD_INCOMPLETE",
        resource_type="file",
        resource_name=path,
        retry_after=failure.retry_after,
    )
