"""A real engine for the tests marked `engine`. All resources of a test run have the label of its server id."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest

from sandpool_server.domain.model import Command, CommandResult, Instance
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings
from sandpool_server.runtime.shared import AgentBinary
from tests.support.instances import make_instance
from tests.support.second_engine import SecondEngine, second_engine

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN_KEY = b"a key of the tests, 32 bytes long"


@pytest.fixture(scope="session")
def docker_host() -> str:
    """Return the address of the engine. Fail without one, so that the tests are never skipped by accident."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        pytest.fail(
            "DOCKER_HOST is not set. Tests marked `engine` need a Docker Engine with python:3.11-slim and "
            "busybox:latest: run `make test`, which starts one, or set DOCKER_HOST; to skip them, run "
            "`pytest -m 'not engine'`.",
            pytrace=False,
        )
    return host


@pytest.fixture(scope="session")
def agent_binary() -> Path:
    path = Path(os.environ.get("SANDPOOL_AGENT_BINARY") or REPOSITORY / "build" / "agent-linux-amd64")
    if not path.is_file():
        pytest.fail(f"the agent {path} does not exist; run `make setup`, or set SANDPOOL_AGENT_BINARY", pytrace=False)
    return path


@pytest.fixture(scope="session")
def engine(docker_host: str) -> Iterator[docker.APIClient]:
    """Yield a separate client of the engine, independent of the code under test."""
    client = docker.APIClient(base_url=docker_host, timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="session")
def server_id(engine: docker.APIClient, agent_binary: Path) -> Iterator[str]:
    """Yield the server id of this test run. At the end, remove all resources with this id."""
    name = f"test-{secrets.token_hex(5)}"
    yield name
    remove_all(engine, name)
    with contextlib.suppress(docker.errors.APIError):  # Another server may use the same agent.
        engine.remove_volume(f"sandpool-agent-{AgentBinary.read(agent_binary).version}")


def remove_all(engine: docker.APIClient, server_id: str) -> None:
    """Remove all containers and networks with the label of the server id."""
    label = {"label": f"sandpool.server={server_id}"}
    for container in engine.containers(all=True, filters=label):
        engine.remove_container(container["Id"], v=True, force=True)
    for network in engine.networks(filters=label):
        engine.remove_network(network["Id"])


@pytest.fixture
def settings(docker_host: str, server_id: str, agent_binary: Path) -> RuntimeSettings:
    """Return the settings of this run. They specify the route, because its detection starts a container each time."""
    return RuntimeSettings(server_id=server_id, agent_binary=agent_binary, base_url=docker_host, route="direct")


@pytest.fixture
async def runtime(settings: RuntimeSettings, engine: docker.APIClient) -> AsyncIterator[DockerRuntime]:
    """Yield a prepared runtime without instances. Remove the remaining containers of the test."""
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
    """Run an engine in a separate network. The server has no route to its containers."""
    with second_engine("overlay2", engine) as second:
        yield second


@pytest.fixture(scope="session")
def btrfs_engine(engine: docker.APIClient) -> Iterator[SecondEngine]:
    """Run an engine whose storage driver supports size limits."""
    with second_engine("btrfs", engine) as second:
        yield second


@pytest.fixture
async def own_settings(settings: RuntimeSettings, engine: docker.APIClient) -> AsyncIterator[RuntimeSettings]:
    """Yield the settings of another server, for tests that change shared resources of instances."""
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
    """A running instance that accepts commands."""

    instance: Instance
    address: str
    agents: GrpcAgents

    async def run(self, *argv: str, shell: str = "", timeout_secs: float = 20.0, user: str = "") -> CommandResult:
        """Run a command."""
        return await self.agents.run(
            self.instance.id, self.address, Command(timeout_secs, shell=shell, argv=argv, user=user)
        )

    async def text(self, shell: str, user: str = "") -> str:
        """Run a shell command that must succeed, and return its standard output."""
        result = await self.run(shell=shell, user=user)
        assert result.exit_code == 0, result
        return result.stdout.decode().strip()


MakeSandbox = Callable[..., Awaitable[Sandbox]]


async def launch_sandbox(runtime: DockerRuntime, agents: GrpcAgents, instance: Instance) -> Sandbox:
    """Launch an instance and return it when it accepts commands."""
    config = await runtime.ensure_image(instance.spec.image, instance.spec.pull_policy)
    address = await runtime.launch(instance, agents.token_sha256(instance.id))
    await agents.wait_ready(instance.id, address, 20)
    await agents.configure(instance.id, address, config, instance.spec)
    return Sandbox(instance, address, agents)


@pytest.fixture
def make_sandbox(runtime: DockerRuntime, agents: GrpcAgents) -> MakeSandbox:
    """Return a function that launches an instance and waits until it accepts commands."""

    async def make(image: str = "busybox:latest", entrypoint: tuple[str, ...] = (), **spec: object) -> Sandbox:
        return await launch_sandbox(runtime, agents, make_instance(image, entrypoint=entrypoint, **spec))

    return make


@pytest.fixture
def test_registry() -> str:
    """Return the address of a registry that the engine can use, as `host:port`."""
    registry = os.environ.get("SANDPOOL_TEST_REGISTRY")
    if not registry:
        pytest.fail("SANDPOOL_TEST_REGISTRY is not set; `make test` sets it to its own registry", pytrace=False)
    return registry
