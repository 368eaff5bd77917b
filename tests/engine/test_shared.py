"""The volume of the agent: the first server fills it, even after an interrupted attempt."""

import asyncio
import io
import secrets
import tarfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from sandpool_server.domain.errors import Unavailable
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings, shared
from sandpool_server.runtime.shared import AgentBinary
from tests.support.instances import make_instance
from tests.support.runtime_contract import TOKEN
from tests.support.second_engine import second_engine

pytestmark = pytest.mark.engine

EMPTY_TAR = b"\0" * 1024


@pytest.fixture
def new_binary(agent_binary: Path, tmp_path: Path) -> Path:
    """Return an agent with a new version: the real agent with additional bytes, which have no effect."""
    path = tmp_path / "agent"
    path.write_bytes(agent_binary.read_bytes() + secrets.token_bytes(16))
    return path


@pytest.fixture
async def server(
    own_settings: RuntimeSettings, new_binary: Path, engine: docker.APIClient
) -> AsyncIterator[DockerRuntime]:
    """Yield a server whose agent volume does not exist yet."""
    runtime = DockerRuntime(replace(own_settings, agent_binary=new_binary))
    try:
        yield runtime
    finally:
        await runtime.purge()
        await runtime.close()
        assert volumes(engine, runtime.agent_version) == []


def volumes(engine: docker.APIClient, version: str) -> list[str]:
    found = engine.volumes(filters={"label": f"sandpool.agent={version}"})["Volumes"] or []
    return [volume["Name"] for volume in found]


def fillers(engine: docker.APIClient, version: str) -> list[str]:
    """Return the ids of the containers that fill the volume."""
    containers = engine.containers(all=True, filters={"name": f"sandpool-agent-filler-{version}"})
    return [one["Id"] for one in containers]


def leave_filler(engine: docker.APIClient, server_id: str, version: str, content: bytes | None) -> str:
    """Create the resources that a server leaves when it is killed while it fills the volume."""
    image = f"sandpool-agent-filler-{server_id}"
    label = f"LABEL sandpool.server={server_id}"
    engine.import_image_from_data(EMPTY_TAR, repository=image, tag="latest", changes=[label])
    volume = f"sandpool-agent-{version}"
    engine.create_volume(volume, labels={"sandpool.agent": version})
    container = engine.create_container(
        image,
        entrypoint=["/.sandpool/agent"],
        name=f"sandpool-agent-filler-{version}",
        labels={"sandpool.server": server_id, "sandpool.agent": version},
        host_config=engine.create_host_config(binds=[f"{volume}:/.sandpool"]),
    )["Id"]
    if content is not None:
        entry = tarfile.TarInfo("agent")
        entry.size = len(content)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content))
        engine.put_archive(container, "/.sandpool", buffer.getvalue())
    return container


async def check_agent_starts(runtime: DockerRuntime) -> None:
    """Check that the agent starts and responds."""
    agents = GrpcAgents(b"k" * 32)
    try:
        instance = make_instance()
        address = await runtime.launch(instance, agents.token_sha256(instance.id))
        await agents.wait_ready(instance.id, address, 20)
    finally:
        await agents.close()


async def test_two_servers_fill_the_same_volume_concurrently(
    server: DockerRuntime,
    own_settings: RuntimeSettings,
    settings: RuntimeSettings,
    new_binary: Path,
    engine: docker.APIClient,
) -> None:
    other = DockerRuntime(replace(settings, agent_binary=new_binary))
    try:
        await asyncio.gather(server.prepare(), other.prepare())
        assert volumes(engine, server.agent_version) == [f"sandpool-agent-{server.agent_version}"]
        assert fillers(engine, server.agent_version) == []
        assert engine.images(name=f"sandpool-agent-filler-{own_settings.server_id}") == []
        await check_agent_starts(server)
        await check_agent_starts(other)
        await server.purge()
        assert volumes(engine, server.agent_version)  # The instance of the other server still uses it.
    finally:
        await other.purge()
        await other.close()


async def test_finishes_own_interrupted_fill_immediately(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    leave_filler(engine, own_settings.server_id, server.agent_version, content=b"half of it")
    async with asyncio.timeout(10):
        await server.prepare()
    assert fillers(engine, server.agent_version) == []
    await check_agent_starts(server)


async def test_takes_over_fill_of_dead_server_after_timeout(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_STALE_LOCK_SECS", 0.5)
    dead = f"{own_settings.server_id}-dead"
    leave_filler(engine, dead, server.agent_version, content=None)
    await server.prepare()
    assert fillers(engine, server.agent_version) == []
    engine.remove_image(f"sandpool-agent-filler-{dead}", force=True)
    await check_agent_starts(server)


async def test_waits_for_server_that_fills_the_volume(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    busy = f"{own_settings.server_id}-busy"
    container = leave_filler(engine, busy, server.agent_version, content=None)
    preparing = asyncio.create_task(server.prepare())
    done, _ = await asyncio.wait({preparing}, timeout=1.5)
    assert not done
    engine.remove_container(container, force=True)
    engine.remove_image(f"sandpool-agent-filler-{busy}", force=True)
    async with asyncio.timeout(10):
        await preparing
    await check_agent_starts(server)


async def test_recreates_externally_pruned_volume_and_network(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    await server.prepare()
    engine.remove_volume(f"sandpool-agent-{server.agent_version}")
    await check_agent_starts(server)
    for ref in await server.instances():
        await server.remove(ref.instance_id)
    engine.remove_network(f"sandpool-{own_settings.server_id}")
    await check_agent_starts(server)


async def test_reports_conflicting_volume_without_changing_it(server: DockerRuntime, engine: docker.APIClient) -> None:
    name = f"sandpool-agent-{server.agent_version}"
    engine.create_volume(name)
    try:
        with pytest.raises(Unavailable, match="no sandpool server created"):
            await server.prepare()
        assert engine.inspect_volume(name)["Name"] == name
    finally:
        engine.remove_volume(name)


async def test_recognises_volume_after_restart_of_engine(
    own_settings: RuntimeSettings, new_binary: Path, engine: docker.APIClient
) -> None:
    with second_engine("overlay2", engine) as second:
        settings = replace(own_settings, agent_binary=new_binary, base_url=second.host, route="published")
        for _ in range(2):
            runtime = DockerRuntime(settings)
            try:
                await runtime.prepare()
            finally:
                await runtime.close()
            await asyncio.to_thread(second.restart)


def test_version_of_agent_depends_on_content(new_binary: Path, agent_binary: Path) -> None:
    new, real = AgentBinary.read(new_binary), AgentBinary.read(agent_binary)
    assert new.version != real.version
    assert len(real.version) == 12
    assert new.size == real.size + 16


async def test_launch_prepares_runtime(server: DockerRuntime) -> None:
    assert server.disk_enforcement is None
    await server.launch(make_instance(), TOKEN)
    assert server.disk_enforcement is not None


async def test_purge_removes_images_of_killed_server(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    label = f"sandpool.server={own_settings.server_id}"
    engine.import_image_from_data(EMPTY_TAR, changes=[f"LABEL {label}"])
    assert engine.images(all=True, filters={"label": label})
    await server.purge()
    assert engine.images(all=True, filters={"label": label}) == []
