"""Clients of the compatibility modules, connected to the server in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest

from sandpool.compat import langsmith, tensorlake
from tests.clients.python.conftest import FAST


@pytest.fixture
def lake(address: str) -> Iterator[tensorlake.SandboxClient]:
    """A client of the module `tensorlake` that retries without delay."""
    with tensorlake.SandboxClient(address, request_timeout=5.0, retry=FAST) as found:
        yield found


@pytest.fixture
async def async_lake(address: str) -> AsyncIterator[tensorlake.AsyncSandboxClient]:
    """An asyncio client of the module `tensorlake`."""
    async with tensorlake.AsyncSandboxClient(address, request_timeout=5.0, retry=FAST) as found:
        yield found


@pytest.fixture
def smith(address: str) -> Iterator[langsmith.SandboxClient]:
    """A client of the module `langsmith` that retries without delay."""
    with langsmith.SandboxClient(address, timeout=5.0, retry=FAST) as found:
        yield found


@pytest.fixture
async def async_smith(address: str) -> AsyncIterator[langsmith.AsyncSandboxClient]:
    """An asyncio client of the module `langsmith`."""
    async with langsmith.AsyncSandboxClient(address, timeout=5.0, retry=FAST) as found:
        yield found
