"""A server in memory and a client of it, for each test."""

import socket
from collections.abc import Iterator

import pytest

from sandpool import Pool, RetryPolicy, SandboxClient
from sandpool.v1 import pool_pb2
from tests.clients.python.processes import Processes
from tests.clients.python.servicer import serving
from tests.clients.python.state import State

FAST = RetryPolicy(max_attempts=4, initial_delay=0.001, max_delay=0.004)
STEPS = [
    pool_pb2.PoolStatus(
        state=pool_pb2.POOL_STATE_FILLING,
        desired=2,
        image_pull=pool_pb2.ImagePull(image="i", current_bytes=25 << 20, total_bytes=100 << 20),
    ),
    pool_pb2.PoolStatus(
        state=pool_pb2.POOL_STATE_FILLING,
        desired=2,
        warm=1,
        last_error=pool_pb2.PoolError(reason=pool_pb2.POOL_ERROR_REASON_START_FAILED),
    ),
    pool_pb2.PoolStatus(state=pool_pb2.POOL_STATE_READY, desired=2, warm=2),
]


@pytest.fixture
def state() -> State:
    """The state of the server in memory."""
    return State()


@pytest.fixture
def processes(state: State) -> Processes:
    """The processes of the server in memory."""
    return Processes(state)


@pytest.fixture
def address(state: State, processes: Processes) -> Iterator[str]:
    """The address of the server in memory."""
    with serving(state, processes=processes) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[SandboxClient]:
    """A client of the server in memory that retries without delay."""
    with SandboxClient(address, request_timeout=5.0, retry=FAST) as found:
        yield found


@pytest.fixture
def unused_address() -> str:
    """A local address on which no process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture
def pool(client: SandboxClient, state: State) -> Pool:
    """A pool that becomes full while it is watched."""
    made = client.create_pool("p", image="i", warm_containers=2)
    state.pool_steps.extend(STEPS)
    return made
