"""The conformance suite of the clients with the Python client, blocking and for asyncio, on a real server."""

import uuid
from contextlib import suppress

import pytest

from sandpool import AsyncSandboxClient, SandboxClient
from sandpool.errors import ResourceNotFoundError
from tests.support.conformance import Case, Run, cases
from tests.support.server_process import ServerProcess

IMAGE = "busybox:latest"


def given() -> dict[str, object]:
    """What every case may refer to."""
    return {"image": IMAGE, "missing_image": "127.0.0.1:1/missing:none", "unique": f"u-{uuid.uuid4().hex[:12]}"}


def sweep(client: SandboxClient) -> None:
    """Remove whatever is there."""
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
@pytest.mark.parametrize("case", cases(), ids=str)
@pytest.mark.parametrize("flavour", [SandboxClient, AsyncSandboxClient], ids=["blocking", "asyncio"])
async def test_conformance(flavour: type, case: Case, server: ServerProcess, client: SandboxClient):
    made = flavour(server.address)
    try:
        await Run(made, given()).run(case)
    finally:
        closed = made.close()
        if closed is not None:
            await closed
        sweep(client)
