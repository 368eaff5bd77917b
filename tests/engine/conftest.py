"""A real engine for the tests marked `engine`; all that a test run makes there carries the run's own server id."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest

from sandpool_server.domain.model import Command, CommandResult, Member
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings
from sandpool_server.runtime.shared import AgentBinary
from tests.support.members import make_member
from tests.support.second_engine import SecondEngine, second_engine

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN_KEY = b"a key of the tests, 32 bytes long"


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The engine's address. Without one these tests fail: they must not be skipped unnoticed."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        pytest.fail(
            "DOCKER_HOST is not set. Tests marked `engine` need a Docker Engine with python:3.11-slim and "
            "busybox:latest: run `make test`, which starts one, or set DOCKER_HOST; `pytest -m 'not engine'` leaves "
            "them out.",
            pytrace=False,
        )
    return host


@pytest.fixture(scope="session")
def agent_binary() -> Path:
    path = Path(os.environ.get("SANDPOOL_AGENT_BINARY") or REPOSITORY / "build" / "agent-linux-amd64")
    if not path.is_file():
        pytest.fail(f"there is no agent at {path}; run `make setup`, or set SANDPOOL_AGENT_BINARY", pytrace=False)
    return path


@pytest.fixture(scope="session")
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    """The engine as an observer sees it, past all code under test."""
    client = docker.APIClient(base_url=docker_host, timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="session")
def server_id(engine: docker.APIClient, agent_binary: Path) -> Iterator[str]:
    """The id of this test run. Whatever carries it is removed in the end, whatever happened."""
    name = f"test-{secrets.token_hex(5)}"
    yield name
    remove_all(engine, name)
    with contextlib.suppress(docker.errors.APIError):  # Another server uses the same agent.
        engine.remove_volume(f"sandpool-agent-{AgentBinary.read(agent_binary).version}")


def remove_all(engine: docker.APIClient, server_id: str) -> None:
    """Remove what carries the server id."""
    label = {"label": f"sandpool.server={server_id}"}
    for container in engine.containers(all=True, filters=label):
        engine.remove_container(container["Id"], v=True, force=True)
    for network in engine.networks(filters=label):
        engine.remove_network(network["Id"])


@pytest.fixture
def settings(docker_host: str, server_id: str, agent_binary: Path) -> RuntimeSettings:
    """Settings for this run; the route is given, for finding it out takes a container each time."""
    return RuntimeSettings(server_id=server_id, agent_binary=agent_binary, base_url=docker_host, route="direct")


@pytest.fixture
async def runtime(settings: RuntimeSettings, engine: docker.APIClient) -> AsyncIterator[DockerRuntime]:
    """A prepared runtime without members; what a test leaves is removed."""
    runtime = DockerRuntime(settings)
    try:
        await runtime.prepare()
        yield runtime
    finally:
        await runtime.close()
        for container in engine.containers(all=True, filters={"label": f"sandpool.server={settings.server_id}"}):
            engine.remove_container(container["Id"], v=True, force=True)


@pytest.fixture(scope="session")
def remote_engine(engine: docker.APIClient) -> Iterator[SecondEngine]:
    """An engine in a network of its own, whose containers the server has no route to."""
    with second_engine("overlay2", engine) as second:
        yield second


@pytest.fixture(scope="session")
def btrfs_engine(engine: docker.APIClient) -> Iterator[SecondEngine]:
    """An engine whose storage knows limits."""
    with second_engine("btrfs", engine) as second:
        yield second


@pytest.fixture
async def own_settings(settings: RuntimeSettings, engine: docker.APIClient) -> AsyncIterator[RuntimeSettings]:
    """Settings of another server, for tests that change what members share."""
    own = replace(settings, server_id=f"{settings.server_id}-{secrets.token_hex(3)}")
    yield own
    remove_all(engine, own.server_id)


@pytest.fixture
async def agents() -> AsyncIterator[GrpcAgents]:
    agents = GrpcAgents(TOKEN_KEY)
    yield agents
    await agents.close()


@dataclass(frozen=True)
class Sandbox:
    """A running member, ready for commands."""

    member: Member
    address: str
    agents: GrpcAgents

    async def run(self, *argv: str, shell: str = "", timeout_secs: float = 20.0, user: str = "") -> CommandResult:
        """Run a command."""
        return await self.agents.run(
            self.member.id, self.address, Command(timeout_secs, shell=shell, argv=argv, user=user)
        )

    async def text(self, shell: str, user: str = "") -> str:
        """Standard output of a command line that must succeed."""
        result = await self.run(shell=shell, user=user)
        assert result.exit_code == 0, result
        return result.stdout.decode().strip()


MakeSandbox = Callable[..., Awaitable[Sandbox]]


async def launch_sandbox(runtime: DockerRuntime, agents: GrpcAgents, member: Member) -> Sandbox:
    """Launch a member and wait until it takes commands."""
    config = await runtime.ensure_image(member.spec.image, member.pull_policy)
    address = await runtime.launch(member, agents.token_sha256(member.id))
    await agents.wait_ready(member.id, address, 20)
    await agents.configure(member.id, address, config, member.spec)
    return Sandbox(member, address, agents)


@pytest.fixture
def make_sandbox(runtime: DockerRuntime, agents: GrpcAgents) -> MakeSandbox:
    """Launch a member and wait until it takes commands."""

    async def make(image: str = "busybox:latest", entrypoint: tuple[str, ...] = (), **spec: object) -> Sandbox:
        return await launch_sandbox(runtime, agents, make_member(image, entrypoint=entrypoint, **spec))

    return make


@pytest.fixture
def test_registry() -> str:
    """A registry that the engine may ask, as `host:port`."""
    registry = os.environ.get("SANDPOOL_TEST_REGISTRY")
    if not registry:
        pytest.fail("SANDPOOL_TEST_REGISTRY is not set; `make test` sets it to its own registry", pytrace=False)
    return registry
