"""The agent's volume: filled once, by whoever comes first, whatever an earlier life left behind."""

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
from tests.support.members import make_member
from tests.support.runtime_contract import TOKEN
from tests.support.second_engine import second_engine

pytestmark = pytest.mark.engine

EMPTY_TAR = b"\0" * 1024


@pytest.fixture
def fresh_binary(agent_binary: Path, tmp_path: Path) -> Path:
    """An agent that no engine has seen: the real one, with a tail that does not matter to it."""
    path = tmp_path / "agent"
    path.write_bytes(agent_binary.read_bytes() + secrets.token_bytes(16))
    return path


@pytest.fixture
async def server(
    own_settings: RuntimeSettings, fresh_binary: Path, engine: docker.APIClient
) -> AsyncIterator[DockerRuntime]:
    """A server whose agent's volume does not exist yet."""
    runtime = DockerRuntime(replace(own_settings, agent_binary=fresh_binary))
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
    """Containers and images that filling leaves when it is not tidy."""
    containers = engine.containers(all=True, filters={"name": f"sandpool-agent-filler-{version}"})
    return [one["Id"] for one in containers]


def leave_filler(engine: docker.APIClient, server_id: str, version: str, content: bytes | None) -> str:
    """Leave what a server leaves that is killed while it fills the volume."""
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


async def works(runtime: DockerRuntime) -> None:
    """The agent starts and answers."""
    agents = GrpcAgents(b"k" * 32)
    try:
        member = make_member()
        address = await runtime.launch(member, agents.token_sha256(member.id))
        await agents.wait_ready(member.id, address, 20)
    finally:
        await agents.close()


async def test_two_servers_fill_the_same_volume_at_once(
    server: DockerRuntime,
    own_settings: RuntimeSettings,
    settings: RuntimeSettings,
    fresh_binary: Path,
    engine: docker.APIClient,
) -> None:
    other = DockerRuntime(replace(settings, agent_binary=fresh_binary))
    try:
        await asyncio.gather(server.prepare(), other.prepare())
        assert volumes(engine, server.agent_version) == [f"sandpool-agent-{server.agent_version}"]
        assert fillers(engine, server.agent_version) == []
        assert engine.images(name=f"sandpool-agent-filler-{own_settings.server_id}") == []
        await works(server)
        await works(other)
        await server.purge()
        assert volumes(engine, server.agent_version)  # The other server's member still uses it.
    finally:
        await other.purge()
        await other.close()


async def test_what_this_server_left_half_done_is_finished_at_once(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    leave_filler(engine, own_settings.server_id, server.agent_version, content=b"half of it")
    async with asyncio.timeout(10):
        await server.prepare()
    assert fillers(engine, server.agent_version) == []
    await works(server)


async def test_what_a_dead_server_left_is_taken_over_after_a_while(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_STALE_LOCK_SECS", 0.5)
    dead = f"{own_settings.server_id}-dead"
    leave_filler(engine, dead, server.agent_version, content=None)
    await server.prepare()
    assert fillers(engine, server.agent_version) == []
    engine.remove_image(f"sandpool-agent-filler-{dead}", force=True)
    await works(server)


async def test_who_fills_is_waited_for(
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
    await works(server)


async def test_a_volume_and_a_network_pruned_behind_our_back_are_made_again(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    await server.prepare()
    engine.remove_volume(f"sandpool-agent-{server.agent_version}")
    await works(server)
    for ref in await server.members():
        await server.remove(ref.member_id)
    engine.remove_network(f"sandpool-{own_settings.server_id}")
    await works(server)


async def test_a_volume_in_the_way_is_reported_and_left_alone(server: DockerRuntime, engine: docker.APIClient) -> None:
    name = f"sandpool-agent-{server.agent_version}"
    engine.create_volume(name)
    try:
        with pytest.raises(Unavailable, match="no sandpool server made"):
            await server.prepare()
        assert engine.inspect_volume(name)["Name"] == name
    finally:
        engine.remove_volume(name)


async def test_the_volume_is_still_ours_after_the_engine_was_started_anew(
    own_settings: RuntimeSettings, fresh_binary: Path, engine: docker.APIClient
) -> None:
    with second_engine("overlay2", engine) as second:
        settings = replace(own_settings, agent_binary=fresh_binary, base_url=second.host, route="published")
        for _ in range(2):
            runtime = DockerRuntime(settings)
            try:
                await runtime.prepare()
            finally:
                await runtime.close()
            await asyncio.to_thread(second.restart)


def test_the_version_is_that_of_the_content(fresh_binary: Path, agent_binary: Path) -> None:
    fresh, real = AgentBinary.read(fresh_binary), AgentBinary.read(agent_binary)
    assert fresh.version != real.version
    assert len(real.version) == 12
    assert fresh.size == real.size + 16


async def test_a_launch_prepares_what_was_not_prepared(server: DockerRuntime) -> None:
    assert server.disk_enforcement is None
    await server.launch(make_member(), TOKEN)
    assert server.disk_enforcement is not None


async def test_purge_removes_the_images_that_a_kill_left(
    server: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    label = f"sandpool.server={own_settings.server_id}"
    engine.import_image_from_data(EMPTY_TAR, changes=[f"LABEL {label}"])
    assert engine.images(all=True, filters={"label": label})
    await server.purge()
    assert engine.images(all=True, filters={"label": label}) == []
