"""The Python code of the documents of two other products on a server, with only the import line replaced.

The last tests make the same calls and do not need the documents.
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
    SandboxState,
    StartType,
    TemplateInUseError,
)
from tests.support import documents
from tests.support.server_process import ServerProcess

IMAGE = "python:3.11-slim"
FILL_TIMEOUT = 90.0
"""Time limit for a pool to become full, in seconds."""

needs_documents = pytest.mark.skipif(
    not documents.directory().is_dir(),
    reason=f"the documents are not in {documents.directory()}; {documents.DIRECTORY_VARIABLE} names their directory",
)


def wait_for(client: SandboxClient, pool_id: str, condition: Callable[[Pool], bool]) -> Pool:
    """Return the pool when the condition holds. Raise ResourceTimeoutError after FILL_TIMEOUT."""
    with closing(client.watch_pools(pool_id, timeout=FILL_TIMEOUT)) as events:
        for event in events:
            assert event.type is not PoolEventType.DELETED
            if condition(event.pool):
                return event.pool
    raise AssertionError("the watch ended")


def filled(warm: int) -> Callable[[Pool], bool]:
    """Return a condition: the pool is ready with `warm` warm containers."""
    return lambda pool: pool.status.state is PoolState.READY and pool.status.warm == warm


@pytest.fixture
def namespace(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the namespace in which the code of a document runs. The environment contains the server's address."""
    monkeypatch.setenv("SANDPOOL_ADDRESS", server.address)
    return {}


@needs_documents
def test_documents_have_the_expected_number_of_code_blocks():
    assert len(documents.python_blocks(documents.document("tensorlake"))) == 7
    assert len(documents.python_blocks(documents.document("langsmith"))) == 1


@needs_documents
@pytest.mark.engine
def test_runs_the_document_with_pool_ids(client: SandboxClient, namespace: dict[str, Any]):
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
    assert sandbox.start_type is StartType.WARM, "the pool was full"
    assert (sandbox.info.image, sandbox.info.memory_mb) == (IMAGE, 512), "inherited"
    assert client.get_pool(pool.pool_id).status.hits == 1

    assert f"{pool.pool_id}: {IMAGE} (3 warm)" in documents.run(list_pools, namespace)
    # After the loop of the document, the variable contains the last listed pool: the newest, which the code created.
    assert namespace["pool"].pool_id == pool.pool_id
    assert documents.run(get_pool, namespace) == [f"Image: {IMAGE}", "Warm containers: 3", "Max containers: None"]

    documents.run(update_pool, namespace)
    assert (namespace["updated_pool"].warm_containers, namespace["updated_pool"].max_containers) == (5, 20)
    wait_for(client, pool.pool_id, filled(5))
    assert client.get_sandbox(sandbox.sandbox_id).state is SandboxState.RUNNING, "an active sandbox continues to run"

    # "A pool cannot be deleted while it has active sandboxes. Terminate all sandboxes in the pool first."
    with pytest.raises(PoolInUseError, match=sandbox.sandbox_id):
        documents.run(delete_pool, namespace)
    sandbox.delete()
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
def test_runs_the_document_with_templates(client: SandboxClient, namespace: dict[str, Any]):
    client.create_template("python-sandbox", image=IMAGE)
    (block,) = documents.python_blocks(documents.document("langsmith"))

    assert documents.run(block, namespace) == []
    pool = client.get_pool("python-pool")
    assert (pool.template_name, pool.warm_containers, pool.image) == ("python-sandbox", 5, IMAGE)
    wait_for(client, "python-pool", filled(5))

    # "To use a pool, create a sandbox with the same template as the pool. No additional configuration is needed."
    with namespace["client"].create(template_name="python-sandbox") as sandbox:
        assert (sandbox.start_type, sandbox.info.pool_id) == (StartType.WARM, pool.pool_id)
        assert sandbox.run("echo it runs").stdout == "it runs\n"
    # "When a sandbox is deleted, the pool automatically replenishes to maintain the target size."
    wait_for(client, "python-pool", filled(5))
    client.delete_pool("python-pool")
    client.delete_template("python-sandbox")
    namespace["client"].close()


@needs_documents
@pytest.mark.engine
async def test_runs_both_documents_with_asyncio(client: SandboxClient, namespace: dict[str, Any]):
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
    assert namespace["sandbox"].start_type is StartType.WARM
    assert f"{pool.pool_id}: {IMAGE} (3 warm)" in await documents.run_awaited(list_pools, namespace)
    assert (await documents.run_awaited(get_pool, namespace))[0] == f"Image: {IMAGE}"
    await documents.run_awaited(update_pool, namespace)
    assert namespace["updated_pool"].max_containers == 20
    with pytest.raises(PoolInUseError):
        await documents.run_awaited(delete_pool, namespace)
    await namespace["sandbox"].delete()
    await documents.run_awaited(delete_pool, namespace)
    await documents.run_awaited(create_with_limit, namespace)
    client.delete_pool(namespace["pool"].pool_id)
    await namespace["client"].close()

    client.create_template("python-sandbox", image=IMAGE)
    (block,) = documents.python_blocks(documents.document("langsmith"))
    await documents.run_awaited(block, namespace)
    wait_for(client, "python-pool", filled(5))
    async with namespace["client"].create(template_name="python-sandbox") as sandbox:
        assert (await sandbox.run("echo it runs")).stdout == "it runs\n"
    client.delete_pool("python-pool")
    client.delete_template("python-sandbox")
    await namespace["client"].close()


@pytest.mark.engine
def test_supports_the_calls_of_the_document_with_pool_ids(client: SandboxClient):
    pool = client.create_pool(image=IMAGE, cpus=0.5, memory_mb=128, ephemeral_disk_mb=256, warm_containers=1)
    assert pool.pool_id.startswith("pool-")
    assert pool.max_containers is None
    wait_for(client, pool.pool_id, filled(1))

    sandbox = client.create(pool_id=pool.pool_id)
    assert sandbox.start_type is StartType.WARM
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
    sandbox.delete()
    client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)


@pytest.mark.engine
def test_supports_the_calls_of_the_document_with_templates(client: SandboxClient):
    template = client.create_template("own-template", image=IMAGE, memory_mb=128)
    pool = client.create_pool("own-pool", template_name="own-template", size=1)
    assert (pool.name, pool.template_name, pool.warm_containers) == ("own-pool", "own-template", 1)
    wait_for(client, "own-pool", filled(1))

    with client.create(template_name="own-template", name="own-sandbox") as sandbox:
        assert (sandbox.start_type, sandbox.info.pool_id, sandbox.info.memory_mb) == (StartType.WARM, pool.pool_id, 128)
        assert client.get_sandbox("own-sandbox").sandbox_id == sandbox.sandbox_id
        assert sandbox.run("exit 3").exit_code == 3
    assert sandbox.state in {SandboxState.TERMINATING, SandboxState.TERMINATED}

    wait_for(client, "own-pool", filled(1))
    claimed = client.create(pool_id="own-pool")
    assert claimed.start_type is StartType.WARM
    claimed.delete()
    with pytest.raises(TemplateInUseError):
        client.delete_template("own-template")
    client.delete_pool("own-pool")
    client.delete_template(template.template_id)
