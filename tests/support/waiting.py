"""Functions that wait for a state with watches. When a wait fails, its error contains the last state."""

import time
from collections.abc import Callable

from sandpool import Pool, SandboxClient, SandboxInfo

WAIT_SECS = 90.0
_POLL_SECS = 0.02


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until a condition holds for which there is no watch. Fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(_POLL_SECS)


def wait_for_pool(client: SandboxClient, pool_id: str, condition: Callable[[Pool], bool]) -> Pool:
    """Return the first state of the pool that satisfies the condition."""
    seen: Pool | None = None
    for event in client.watch_pools(pool_id, timeout=WAIT_SECS):
        seen = event.pool
        if condition(seen):
            return seen
    raise AssertionError(f"the pool did not reach the expected state; its last state: {seen}")


def wait_until_warm(client: SandboxClient, pool_id: str, count: int) -> Pool:
    """Return the pool when it has `count` warm instances and no other instance is being created or removed."""
    return wait_for_pool(
        client,
        pool_id,
        lambda pool: (pool.status.warm, pool.status.creating, pool.status.removing) == (count, 0, 0),
    )


def wait_for_sandbox(client: SandboxClient, sandbox_id: str, condition: Callable[[SandboxInfo], bool]) -> SandboxInfo:
    """Return the first state of the sandbox that satisfies the condition."""
    seen: SandboxInfo | None = None
    for seen in client.watch_sandbox(sandbox_id, timeout=WAIT_SECS):
        if condition(seen):
            return seen
    raise AssertionError(f"the sandbox did not reach the expected state; its last state: {seen}")
