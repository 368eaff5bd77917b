"""The conformance suite with the Python client, blocking and with asyncio, on a server with an engine."""

import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from sandpool import AsyncSandboxClient, SandboxClient
from sandpool.errors import ResourceNotFoundError
from tests.support.conformance import Case, Run, cases, client_options, local_directory
from tests.support.server_process import ServerProcess

IMAGE = "busybox:latest"


def given(directory: Path) -> dict[str, object]:
    """Return the values that every case can refer to."""
    return {
        "image": IMAGE,
        "missing_image": "127.0.0.1:1/missing:none",
        "unique": f"u-{uuid.uuid4().hex[:12]}",
        "local": str(local_directory(directory / "local")),
    }


def sweep(client: SandboxClient) -> None:
    """Delete all resources that a case left."""
    for pool in client.list_pools():
        client.delete_pool(pool.pool_id, force=True)
    for sandbox in client.list_sandboxes():
        with suppress(ResourceNotFoundError):
            sandbox.delete()
    for template in client.list_templates():
        client.delete_template(template.name)
    for secret in client.list_secrets():
        client.delete_secret(secret.name, force=True)


@pytest.mark.engine
@pytest.mark.parametrize("case", cases(scripted=False), ids=str)
@pytest.mark.parametrize("variant", [SandboxClient, AsyncSandboxClient], ids=["blocking", "asyncio"])
async def test_conformance(variant: type, case: Case, server: ServerProcess, client: SandboxClient, tmp_path: Path):
    tested = variant(server.address, **client_options(case))
    try:
        await Run(tested, given(tmp_path)).run(case)
    finally:
        closed = tested.close()
        if closed is not None:
            await closed
        sweep(client)
