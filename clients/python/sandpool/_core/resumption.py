"""Streams that continue after a broken connection, and the changes that a client missed in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sandpool._core.arguments import UNSET, Timeout, text
from sandpool._core.retry import RetryPolicy
from sandpool._models.enums import PoolEventType
from sandpool._models.pool import Pool, PoolEvent
from sandpool.errors import PoolNotFoundError, SandboxConnectionError

RESUME_TIMEOUT: Final = 60.0
"""How long a broken stream is resumed without progress, in seconds."""
_LEAST_SECONDS: Final = 0.001
"""The time limit of a call whose time has passed, so that it fails with the error for a timeout."""


def resume_pause(
    retry: RetryPolicy, failures: int, remaining: float | None, retry_after: float | None, started: bool
) -> float | None:
    """Return the delay before a stream is resumed in seconds, or None to give up.

    `RetryPolicy.max_attempts` limits the attempts only until the stream has started. After that, `remaining` is the
    limit.
    """
    if started and retry.max_attempts > 1:
        failures = min(failures, retry.max_attempts - 1)
    return retry.pause(failures, remaining, retry_after)


class Resumption:
    """One stream over any number of connections: the remaining time, and the delay before the next connection."""

    def __init__(self, timeout: Timeout, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timeout = timeout
        self._end = None if timeout is None or timeout is UNSET else clock() + timeout
        self._started = False
        self._failures = 0
        self._last_progress = clock()

    def left(self) -> Timeout:
        """Return the time limit of the next connection in seconds. None and UNSET are passed on."""
        return self._timeout if self._end is None else max(self._end - self._clock(), _LEAST_SECONDS)

    def progress(self) -> bool:
        """Note that something was received. Return whether it is the first after a broken connection."""
        resumed = self._started and self._failures > 0
        self._started, self._failures = True, 0
        return resumed

    def pause(self, retry: RetryPolicy, failure: SandboxConnectionError) -> float | None:
        """Return the delay before the next connection in seconds, or None to give up."""
        now = self._clock()
        if self._failures == 0:
            self._last_progress = now
        self._failures += 1
        remaining = self._last_progress + RESUME_TIMEOUT - now
        if self._end is not None:
            remaining = min(remaining, self._end - now)
        return resume_pause(retry, self._failures, remaining, failure.retry_after, self._started)


class NamedPools:
    """The observed states of the pools that a watch names."""

    def __init__(self, pool_ids: Iterable[str]) -> None:
        self._unseen = [text("pool_ids", pool_id) for pool_id in pool_ids]
        self._seen: dict[str, Pool] = {}

    @property
    def refs(self) -> list[str]:
        """The pools to watch next, by identifier if it is known: a new pool with the same name is not watched."""
        return [*self._unseen, *self._seen]

    def take(self, event: PoolEvent) -> PoolEvent:
        """Note an event and return it."""
        pool = event.pool
        self._unseen = [ref for ref in self._unseen if ref not in {pool.pool_id, pool.name}]
        if event.type is PoolEventType.DELETED:
            self._seen.pop(pool.pool_id, None)
        else:
            self._seen[pool.pool_id] = pool
        return event

    def deleted(self, failure: PoolNotFoundError) -> PoolEvent | None:
        """Return the event for a pool that was deleted between two connections, or None if it never existed."""
        pool = self._seen.get(failure.resource_name or "")
        return None if pool is None else PoolEvent(PoolEventType.DELETED, pool)


class AllPools:
    """The observed states of all pools, by a watch over any number of connections."""

    def __init__(self) -> None:
        self._seen: dict[str, Pool] = {}
        self._unconfirmed: set[str] = set()

    def begin(self) -> None:
        """Note that a connection starts. Pools that it does not report before its bookmark have been deleted."""
        self._unconfirmed = set(self._seen)

    def take(self, event: PoolEvent | None) -> list[PoolEvent]:
        """Return the events for an event of a connection, or for its bookmark (None)."""
        if event is None:
            return [PoolEvent(PoolEventType.DELETED, self._seen.pop(pool_id)) for pool_id in sorted(self._unconfirmed)]
        if event.type is PoolEventType.DELETED:
            self._seen.pop(event.pool.pool_id, None)
        else:
            self._seen[event.pool.pool_id] = event.pool
        self._unconfirmed.discard(event.pool.pool_id)
        return [event]


def incomplete_upload(path: str, failure: SandboxConnectionError) -> SandboxConnectionError:
    """Return the error for a directory that was uploaded only in part."""
    return SandboxConnectionError(
        f"the upload to {path} broke each time it was sent, and {path} may contain a part of the directory; upload it "
        f"again, which replaces the existing files ({failure})",
        code=failure.code,
        reason="UPLOAD_INCOMPLETE",
        resource_type="file",
        resource_name=path,
        retry_after=failure.retry_after,
    )
