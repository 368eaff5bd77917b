"""Stores for tests, one for each kind of database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandpool_server.store import SqlStore
from tests.support.builders import ManualClock


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new, empty database."""
    assert request.param == "sqlite"
    return f"sqlite:///{tmp_path}/data/sandpool.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def notified() -> list[frozenset[str]]:
    """Return the list of notifications of the store about its commits."""
    return []


@pytest.fixture
async def store(url: str, clock: ManualClock, notified: list[frozenset[str]]) -> AsyncIterator[SqlStore]:
    """Yield an open store with an empty database."""
    store = SqlStore(url, notified.append, clock)
    await store.open()
    yield store
    await store.close()
