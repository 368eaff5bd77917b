"""Waiting for a state by the streams that tell of it; a test that waits in vain fails with what it saw last."""

import time
from collections.abc import Callable

from sandpool import Pool, SandboxClient, SandboxInfo

WAIT_SECS = 90.0
_LOOK_SECS = 0.02


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Look again and again until a condition holds of which nothing tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(_LOOK_SECS)


def wait_for_pool(client: SandboxClient, pool_id: str, wanted: Callable[[Pool], bool]) -> Pool:
    """The pool's first state that is as wanted."""
    seen: Pool | None = None
    for event in client.watch_pools([pool_id], timeout=WAIT_SECS):
        seen = event.pool
        if wanted(seen):
            return seen
    raise AssertionError(f"the pool never became as wanted; the last that was seen: {seen}")


def wait_until_warm(client: SandboxClient, pool_id: str, count: int) -> Pool:
    """The pool once it has that many ready members and is busy with nothing."""
    return wait_for_pool(
        client,
        pool_id,
        lambda pool: (pool.status.warm, pool.status.creating, pool.status.removing) == (count, 0, 0),
    )


def wait_for_sandbox(client: SandboxClient, sandbox_id: str, wanted: Callable[[SandboxInfo], bool]) -> SandboxInfo:
    """The sandbox's first state that is as wanted."""
    seen: SandboxInfo | None = None
    for seen in client.watch_sandbox(sandbox_id, timeout=WAIT_SECS):
        if wanted(seen):
            return seen
    raise AssertionError(f"the sandbox never became as wanted; the last that was seen: {seen}")
