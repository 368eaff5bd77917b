"""A real server on a real engine for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support.engine_view import EngineView, engine_view
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of a module."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server for one test alone, that it may kill."""
    with ServerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SandboxClient]:
    """A Python client of the module's server."""
    with SandboxClient(server.address) as made:
        yield made


@pytest.fixture
def engine() -> Iterator[EngineView]:
    """The engine, seen by a client of its own."""
    with engine_view() as view:
        yield view
