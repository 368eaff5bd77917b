"""The client in one process with other products' SDKs. `make pythons` makes environments that have both.

SANDPOOL_TEST_PEERS names the SDKs that the environment must have.
"""

import importlib
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

import sandpool
from sandpool import SandboxClient
from tests.clients.python.state import State

PEERS = os.environ.get("SANDPOOL_TEST_PEERS", "").split()

pytestmark = pytest.mark.skipif(not PEERS, reason="this environment has no other SDKs; `make pythons` makes some")


@pytest.fixture(autouse=True, scope="module")
def peers() -> None:
    """The other SDKs, in this process. Their warnings are not about this client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PEERS:
            importlib.import_module(name)
        for name in {"langsmith", "tensorlake"} & set(PEERS):
            importlib.import_module(f"{name}.sandbox")


def test_the_client_is_the_installed_wheel() -> None:
    assert Path(sandpool.__file__).is_relative_to(sys.prefix)
    tops = {path.parts[0] for path in metadata.files("sandpool") or () if path.suffix == ".py"}
    assert tops == {"sandpool"}


def test_all_are_imported_into_one_descriptor_pool() -> None:
    assert set(PEERS) <= set(sys.modules)
    pool = descriptor_pool.Default()
    assert pool.FindMessageTypeByName("sandpool.v1.CreateSandboxRequest")
    with pytest.raises(KeyError):
        pool.FindFileByName("buf/validate/validate.proto")


def test_a_pool_of_an_image(client: SandboxClient, state: State) -> None:
    pool = client.create_pool(
        image="python:3.11-slim", cpus=1.0, memory_mb=512, ephemeral_disk_mb=1024, warm_containers=3
    )
    sandbox = client.create(pool_id=pool.pool_id)
    assert sandbox.sandbox_id
    assert sandbox.run("make").exit_code == 0
    assert [found.pool_id for found in client.list_pools()] == [pool.pool_id]
    assert client.get_pool(pool.pool_id).image == "python:3.11-slim"
    updated = client.update_pool(pool_id=pool.pool_id, image="python:3.11-slim", warm_containers=5, max_containers=20)
    assert (updated.warm_containers, updated.max_containers) == (5, 20)
    sandbox.delete()
    client.delete_pool(pool.pool_id)
    assert state.sent("DeletePool")


def test_a_pool_of_a_template(client: SandboxClient) -> None:
    client.create_template(name="python-sandbox", image="i")
    pool = client.create_pool(name="python-pool", template_name="python-sandbox", size=5)
    assert pool.warm_containers == 5
    assert client.create(template_name="python-sandbox").sandbox_id
