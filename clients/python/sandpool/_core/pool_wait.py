"""Waiting until a pool has its warm containers."""

from __future__ import annotations

from sandpool._core.progress import Step
from sandpool._models.enums import PoolEventType, PoolState
from sandpool._models.pool import Pool, PoolEvent
from sandpool.errors import PoolNotFoundError, PoolPausedError, ResourceTimeoutError, SandpoolError


class PoolWait:
    """The observed states of a pool that a caller waits for."""

    def __init__(self, pool_id: str, warm: int | None) -> None:
        self.pool_id = pool_id
        self._warm = warm
        self._last: Pool | None = None

    def take(self, event: PoolEvent) -> Pool:
        """Return the pool of an event.

        Raises:
            PoolNotFoundError: The pool was deleted.
            PoolPausedError: The pool is paused or drained, so that it creates no containers.
        """
        if event.type is PoolEventType.DELETED:
            raise PoolNotFoundError(
                f"pool {self.pool_id!r} was deleted during the wait",
                reason="POOL_NOT_FOUND",
                resource_type="pool",
                resource_name=self.pool_id,
            )
        pool = event.pool
        if (pool.paused or pool.drained) and not self.is_full(pool):
            raise PoolPausedError(
                f"pool {self.pool_id!r} is {pool.status.state} and creates no containers; "
                "resume it with update_pool(paused=False, drained=False)",
                reason="POOL_DRAINED" if pool.drained else "POOL_PAUSED",
                resource_type="pool",
                resource_name=self.pool_id,
            )
        self._last = pool
        return pool

    def is_full(self, pool: Pool) -> bool:
        """Return whether the pool has enough warm containers."""
        if self._warm is not None:
            return pool.status.warm >= self._warm
        return pool.status.state is PoolState.READY

    def step(self, pool: Pool) -> Step:
        """Return the progress: the warm containers, or the received bytes of the image while it is pulled."""
        pull = pool.status.image_pull
        if pull is not None:
            return Step(pull.current_bytes, pull.total_bytes or None)
        target = self._target(pool)
        return Step(min(pool.status.warm, target), target, " containers")

    def label(self, pool: Pool) -> str:
        """Return a text that describes what the pool does."""
        name = pool.name or pool.pool_id
        pull = pool.status.image_pull
        if pull is not None:
            return f"{name}: pulling {pull.image}"
        error = pool.status.last_error
        return f"{name}: {error.reason}" if error is not None else name

    def timed_out(self, timeout: float, kind: type[SandpoolError] = ResourceTimeoutError) -> SandpoolError:
        """Return the error for a pool that did not have its warm containers in time."""
        pool, details = self._last, ""
        if pool is not None:
            details = f": {pool.status.warm} of {self._target(pool)} containers are warm"
            if pool.status.last_error is not None:
                details += f"; last error: {pool.status.last_error.message}"
        return kind(
            f"pool {self.pool_id!r} was not ready within {timeout:g} s{details}",
            resource_type="pool",
            resource_name=self.pool_id,
        )

    def _target(self, pool: Pool) -> int:
        return pool.status.desired if self._warm is None else self._warm
