"""Waiting for a sandbox."""

from __future__ import annotations

from contextlib import aclosing

from sandpool import (
    AsyncSandboxClient,
    ResourceTimeoutError,
    SandboxInfo,
    SandboxNotReadyError,
    SandboxState,
)
from sandpool.compat._core import langsmith


async def wait_until_running(client: AsyncSandboxClient, sandbox_id: str, timeout: float | None) -> SandboxInfo:
    """Return a sandbox as soon as it is running.

    Raises:
        SandboxNotFoundError: The sandbox does not exist.
        SandboxNotReadyError: The sandbox is terminated.
        ResourceTimeoutError: The time limit passed.
    """
    state: SandboxState | None = None
    try:
        async with aclosing(client.watch_sandbox(sandbox_id, timeout=timeout)) as changes:
            async for info in changes:
                state = info.state
                if state is SandboxState.RUNNING:
                    return info
                if state is not SandboxState.STARTING:
                    break
    except ResourceTimeoutError as failure:
        if isinstance(failure, langsmith.ResourceTimeoutError):
            failure.last_status = state
        raise
    raise SandboxNotReadyError(
        f"sandbox {sandbox_id!r} is terminated; create another one",
        reason="SANDBOX_TERMINATED",
        resource_type="sandbox",
        resource_name=sandbox_id,
    )
