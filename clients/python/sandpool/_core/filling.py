"""A pool that fills, as somebody sees it who waits for it."""

from __future__ import annotations

from sandpool._core.enums import PoolEventType, PoolState
from sandpool._core.model import Pool, PoolEvent
from sandpool._core.steps import Step
from sandpool.errors import PoolNotFoundError, PoolPausedError, ResourceTimeoutError


class Filling:
    """What was seen of a pool so far."""

    def __init__(self, pool_id: str, warm: int | None) -> None:
        self.pool_id = pool_id
        self._warm = warm
        self._last: Pool | None = None

    def seen(self, event: PoolEvent) -> Pool:
        """The pool of an event. Raises PoolNotFoundError when it is deleted, PoolPausedError when it cannot fill."""
        if event.type is PoolEventType.DELETED:
            raise PoolNotFoundError(
                f"pool {self.pool_id!r} was deleted",
                reason="POOL_NOT_FOUND",
                resource_type="pool",
                resource_name=self.pool_id,
            )
        pool = event.pool
        if (pool.paused or pool.drain) and not self.is_full(pool):
            raise PoolPausedError(
                f"pool {self.pool_id!r} is {pool.status.state} and does not fill; resume_pool lets it work again",
                reason="POOL_DRAINED" if pool.drain else "POOL_PAUSED",
                resource_type="pool",
                resource_name=self.pool_id,
            )
        self._last = pool
        return pool

    def is_full(self, pool: Pool) -> bool:
        """Whether there are as many ready containers as are waited for."""
        if self._warm is not None:
            return pool.status.warm >= self._warm
        return pool.status.state is PoolState.READY

    def step(self, pool: Pool) -> Step:
        """How far the pool is: by its containers, or by the bytes of its image while that is pulled."""
        pull = pool.status.image_pull
        if pull is not None:
            return Step(pull.current_bytes, pull.total_bytes or None)
        wanted = self._wanted(pool)
        return Step(min(pool.status.warm, wanted), wanted, " containers")

    def line(self, pool: Pool) -> str:
        """What it is doing."""
        name = pool.name or pool.pool_id
        pull = pool.status.image_pull
        if pull is not None:
            return f"{name}: pulling {pull.image}"
        error = pool.status.last_error
        return f"{name}: {error.reason}" if error is not None else name

    def timed_out(self, timeout: float) -> ResourceTimeoutError:
        """The error for a pool that was not full in time."""
        pool, why, state = self._last, "", ""
        if pool is not None:
            state = str(pool.status.state)
            why = f": {pool.status.warm} of {self._wanted(pool)} are ready"
            if pool.status.last_error is not None:
                why += f"; the last failure: {pool.status.last_error.message}"
        found = ResourceTimeoutError(
            f"pool {self.pool_id!r} was not full within {timeout:g} s{why}",
            resource_type="pool",
            resource_name=self.pool_id,
        )
        found.last_status = state
        return found

    def _wanted(self, pool: Pool) -> int:
        return pool.status.wanted if self._warm is None else self._warm
