"""Fixtures: a server on a container engine, clients and images."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandpool import Pool, PoolNotFoundError, SandboxClient
from tests.support.bare_image import bare_image as one_binary
from tests.support.engine_view import EngineView, engine_view
from tests.support.own_images import OwnImages
from tests.support.server_process import ServerProcess

MakePool = Callable[..., Pool]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run one server for the tests of a module."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server for one test, which can kill it."""
    with ServerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SandboxClient]:
    """Return a Python client of the module's server."""
    with SandboxClient(server.address) as made:
        yield made


@pytest.fixture
def make_pool(client: SandboxClient) -> Iterator[MakePool]:
    """Return a function that creates busybox pools. They are deleted after the test, with their sandboxes."""
    made: list[Pool] = []

    def make(**fields: object) -> Pool:
        source = {} if "template_name" in fields else {"image": "busybox:latest"}
        pool: Pool = client.create_pool(**{**source, **fields})  # type: ignore[call-overload]
        made.append(pool)
        return pool

    yield make
    for pool in made:
        with contextlib.suppress(PoolNotFoundError):
            client.delete_pool(pool.pool_id, force=True)


@pytest.fixture
def engine() -> Iterator[EngineView]:
    """Return a view of the engine through a separate client."""
    with engine_view() as view:
        yield view


@pytest.fixture(scope="module")
def bare_image() -> Iterator[str]:
    """Return the name of an image that contains only one static binary."""
    with engine_view() as view, one_binary(view) as name:
        yield name


@pytest.fixture
def registry() -> str:
    """Return the address of a registry that the engine can use, as `host:port`."""
    found = os.environ.get("SANDPOOL_TEST_REGISTRY")
    if not found:
        pytest.fail("SANDPOOL_TEST_REGISTRY is not set; `make test` sets it to its own registry", pytrace=False)
    return found


@pytest.fixture
def images(engine: EngineView, registry: str) -> Iterator[OwnImages]:
    """Build images for one test. Request `make_pool` after it, so that the pools are deleted before the images."""
    made = OwnImages(engine, registry)
    yield made
    made.remove()
