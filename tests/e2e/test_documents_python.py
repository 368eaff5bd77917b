"""The Python code of the two model products' documents on a real server, with only the import line replaced.

Where the documents are not there, the tests of the second half show the same calls.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from sandpool import (
    Pool,
    PoolEventType,
    PoolInUseError,
    PoolNotFoundError,
    PoolState,
    SandboxClient,
    SandboxStart,
    SandboxState,
    TemplateInUseError,
)
from tests.support import documents
from tests.support.server_process import ServerProcess

IMAGE = "python:3.11-slim"
PATIENCE = 90.0
"""Seconds that a pool may take to fill."""

needs_documents = pytest.mark.skipif(
    not documents.folder().is_dir(),
    reason=f"the products' documents are not in {documents.folder()}; {documents.FOLDER_VARIABLE} says where else",
)


def wait_for(client: SandboxClient, pool_id: str, condition: Callable[[Pool], bool]) -> Pool:
    """The pool as soon as the condition holds; a ResourceTimeoutError if that takes too long."""
    with closing(client.watch_pools([pool_id], timeout=PATIENCE)) as events:
        for event in events:
            assert event.type is not PoolEventType.DELETED
            if condition(event.pool):
                return event.pool
    raise AssertionError("the watch ended")


def filled(warm: int) -> Callable[[Pool], bool]:
    """Whether a pool is ready with as many containers as that."""
    return lambda pool: pool.status.state is PoolState.READY and pool.status.warm == warm


@pytest.fixture
def namespace(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where a document's code runs, on a machine whose environment names the server."""
    monkeypatch.setenv("SANDPOOL_ADDRESS", server.address)
    return {}


@needs_documents
def test_the_documents_hold_as_much_code_as_is_run_here():
    assert len(documents.python_blocks(documents.document("tensorlake"))) == 7
    assert len(documents.python_blocks(documents.document("langsmith"))) == 1


@needs_documents
@pytest.mark.engine
def test_the_document_of_the_pool_id_style(client: SandboxClient, namespace: dict[str, Any]):
    blocks = documents.python_blocks(documents.document("tensorlake"))
    create_pool, create, list_pools, get_pool, update_pool, delete_pool, create_with_limit = blocks

    (printed,) = documents.run(create_pool, namespace)
    pool = namespace["pool"]
    assert printed == f"Pool ID: {pool.pool_id}"
    assert (pool.image, pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb) == (IMAGE, 1.0, 512, 1024)
    wait_for(client, pool.pool_id, filled(3))

    (printed,) = documents.run(create, namespace)
    sandbox = namespace["sandbox"]
    assert printed == f"Sandbox ID: {sandbox.sandbox_id}"
    assert sandbox.start is SandboxStart.WARM, "the pool was full"
    assert (sandbox.image, sandbox.memory_mb) == (IMAGE, 512), "inherited"
    assert client.get_pool(pool.pool_id).status.hits == 1

    assert f"{pool.pool_id}: {IMAGE} (3 warm)" in documents.run(list_pools, namespace)
    # The document's loop leaves the last pool in its variable: the newest, so that the code goes on with its own.
    assert namespace["pool"].pool_id == pool.pool_id
    assert documents.run(get_pool, namespace) == [f"Image: {IMAGE}", "Warm containers: 3", "Max containers: None"]

    documents.run(update_pool, namespace)
    assert (namespace["updated_pool"].warm_containers, namespace["updated_pool"].max_containers) == (5, 20)
    wait_for(client, pool.pool_id, filled(5))
    assert client.get_sandbox(sandbox.sandbox_id).state is SandboxState.RUNNING, "a sandbox in use stays"

    # "A pool cannot be deleted while it has active sandboxes. Terminate all sandboxes in the pool first."
    with pytest.raises(PoolInUseError, match=sandbox.sandbox_id):
        documents.run(delete_pool, namespace)
    sandbox.terminate()
    documents.run(delete_pool, namespace)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)

    documents.run(create_with_limit, namespace)
    limited = namespace["pool"]
    assert limited.pool_id != pool.pool_id
    full = wait_for(client, limited.pool_id, filled(5))
    assert (full.warm_containers, full.max_containers) == (5, 50)
    client.delete_pool(limited.pool_id)
    namespace["client"].close()


@needs_documents
@pytest.mark.engine
def test_the_document_of_the_template_style(client: SandboxClient, namespace: dict[str, Any]):
    client.create_template("python-sandbox", IMAGE)
    (block,) = documents.python_blocks(documents.document("langsmith"))

    assert documents.run(block, namespace) == []
    pool = client.get_pool("python-pool")
    assert (pool.template_name, pool.size, pool.image) == ("python-sandbox", 5, IMAGE)
    wait_for(client, "python-pool", filled(5))

    # "To use a pool, create a sandbox with the same template as the pool. No additional configuration is needed."
    with namespace["client"].sandbox(template_name="python-sandbox") as sandbox:
        assert (sandbox.start, sandbox.pool_id) == (SandboxStart.WARM, pool.pool_id)
        assert sandbox.run("echo it runs").stdout == "it runs\n"
    # "When a sandbox is deleted, the pool automatically replenishes to maintain the target size."
    wait_for(client, "python-pool", filled(5))
    client.delete_pool("python-pool")
    client.delete_template("python-sandbox")
    namespace["client"].close()


@needs_documents
@pytest.mark.engine
async def test_both_documents_with_asyncio(client: SandboxClient, namespace: dict[str, Any]):
    """The same code with the import line replaced and the client's calls awaited."""
    create_pool, create, list_pools, get_pool, update_pool, delete_pool, create_with_limit = documents.python_blocks(
        documents.document("tensorlake")
    )
    (printed,) = await documents.run_awaited(create_pool, namespace)
    pool = namespace["pool"]
    assert printed == f"Pool ID: {pool.pool_id}"
    wait_for(client, pool.pool_id, filled(3))
    (printed,) = await documents.run_awaited(create, namespace)
    assert printed == f"Sandbox ID: {namespace['sandbox'].sandbox_id}"
    assert namespace["sandbox"].start is SandboxStart.WARM
    assert f"{pool.pool_id}: {IMAGE} (3 warm)" in await documents.run_awaited(list_pools, namespace)
    assert (await documents.run_awaited(get_pool, namespace))[0] == f"Image: {IMAGE}"
    await documents.run_awaited(update_pool, namespace)
    assert namespace["updated_pool"].max_containers == 20
    with pytest.raises(PoolInUseError):
        await documents.run_awaited(delete_pool, namespace)
    await namespace["sandbox"].terminate()
    await documents.run_awaited(delete_pool, namespace)
    await documents.run_awaited(create_with_limit, namespace)
    client.delete_pool(namespace["pool"].pool_id)
    await namespace["client"].close()

    client.create_template("python-sandbox", IMAGE)
    (block,) = documents.python_blocks(documents.document("langsmith"))
    await documents.run_awaited(block, namespace)
    wait_for(client, "python-pool", filled(5))
    async with namespace["client"].sandbox(template_name="python-sandbox") as sandbox:
        assert (await sandbox.run("echo it runs")).stdout == "it runs\n"
    client.delete_pool("python-pool")
    client.delete_template("python-sandbox")
    await namespace["client"].close()


@pytest.mark.engine
def test_the_pool_id_style_in_our_own_words(client: SandboxClient):
    pool = client.create_pool(image=IMAGE, cpus=0.5, memory_mb=128, ephemeral_disk_mb=256, warm_containers=1)
    assert pool.pool_id.startswith("pool-")
    assert pool.max_containers is None
    wait_for(client, pool.pool_id, filled(1))

    sandbox = client.create(pool_id=pool.pool_id)
    assert sandbox.start is SandboxStart.WARM
    result = sandbox.run(
        ["python3", "-c", "import os; print(os.environ['A'], os.getcwd())"], env={"A": "b"}, cwd="/tmp"
    )
    assert (result.stdout, result.exit_code, result.success) == ("b /tmp\n", 0, True)

    assert pool.pool_id in [found.pool_id for found in client.list_pools(page_size=1)]
    assert [found.sandbox_id for found in client.list_sandboxes(pool_id=pool.pool_id)] == [sandbox.sandbox_id]
    updated = client.update_pool(pool.pool_id, image=IMAGE, warm_containers=2, max_containers=4)
    assert (updated.warm_containers, updated.max_containers, updated.memory_mb) == (2, 4, 128)
    assert wait_for(client, pool.pool_id, filled(2)).status.active == 1

    with pytest.raises(PoolInUseError, match=sandbox.sandbox_id):
        client.delete_pool(pool.pool_id)
    sandbox.terminate()
    client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)


@pytest.mark.engine
def test_the_template_style_in_our_own_words(client: SandboxClient):
    template = client.create_template("own-template", IMAGE, memory_mb=128)
    pool = client.create_pool("own-pool", "own-template", 1)
    assert (pool.name, pool.template_name, pool.replicas) == ("own-pool", "own-template", 1)
    wait_for(client, "own-pool", filled(1))

    with client.sandbox(template_name="own-template", name="own-sandbox") as sandbox:
        assert (sandbox.start, sandbox.pool_id, sandbox.memory_mb) == (SandboxStart.WARM, pool.pool_id, 128)
        assert client.get_sandbox("own-sandbox").sandbox_id == sandbox.sandbox_id
        assert sandbox.run("exit 3").exit_code == 3
    assert sandbox.state in {SandboxState.TERMINATING, SandboxState.TERMINATED}

    wait_for(client, "own-pool", filled(1))
    claimed = client.claim("own-pool")
    assert claimed.start is SandboxStart.WARM
    claimed.delete()
    with pytest.raises(TemplateInUseError):
        client.delete_template("own-template")
    client.delete_pool("own-pool")
    client.delete_template(template.template_id)
