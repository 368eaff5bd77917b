"""Reaching agents: on the containers' addresses or on published ports, over a local socket, TLS and ssh."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from structlog.testing import capture_logs

from sandpool_server.domain.errors import Unavailable
from sandpool_server.ports import RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, GrpcAgents, Route, RuntimeSettings
from tests.engine.conftest import launch_sandbox
from tests.support.members import make_member
from tests.support.runtime_contract import TOKEN, next_event
from tests.support.second_engine import SecondEngine
from tests.support.ssh_server import SshServer, ssh_server

pytestmark = [
    pytest.mark.engine,
    # docker-py leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning"),
]


@asynccontextmanager
async def running(settings: RuntimeSettings) -> AsyncIterator[DockerRuntime]:
    """A runtime whose own things are gone afterwards."""
    runtime = DockerRuntime(settings)
    try:
        yield runtime
        await runtime.purge()
    finally:
        await runtime.close()


async def works(runtime: DockerRuntime, agents: GrpcAgents) -> str:
    """Launch a member, run a command in it, see it in the list and in the events; returns its agent's address."""
    events = runtime.events()
    await next_event(events, RuntimeEventKind.RESYNC)
    sandbox = await launch_sandbox(runtime, agents, make_member())
    member, address = sandbox.member, sandbox.address
    assert await sandbox.text("echo $((6 * 7))") == "42"
    (ref,) = await runtime.members()
    assert (ref.member_id, ref.running, ref.address) == (member.id, True, address)
    agents.forget(member.id)
    await runtime.remove(member.id)
    await next_event(events, RuntimeEventKind.REMOVED, member.id)
    await events.aclose()
    return address


def containers(engine: docker.APIClient, server_id: str) -> list[str]:
    found = engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
    return [name for one in found for name in one["Names"]]


async def test_where_containers_can_be_reached_the_probe_finds_it_and_leaves_nothing(
    own_settings: RuntimeSettings, agents: GrpcAgents, engine: docker.APIClient
) -> None:
    async with running(replace(own_settings, route="auto")) as runtime:
        assert runtime.route is None
        await runtime.prepare()
        assert runtime.route == "direct"
        assert containers(engine, own_settings.server_id) == []
        assert engine.images(name=f"sandpool-agent-filler-{own_settings.server_id}") == []
        assert (await works(runtime, agents)).endswith(":10240")


async def test_a_probe_that_a_killed_server_left_is_in_nobodys_way(
    own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    name = f"sandpool-probe-{own_settings.server_id}"
    label = f"sandpool.server={own_settings.server_id}"
    image = f"sandpool-agent-filler-{own_settings.server_id}"
    engine.import_image_from_data(b"\0" * 1024, repository=image, tag="latest", changes=[f"LABEL {label}"])
    engine.create_container(image, command=["x"], name=name, labels=dict([label.split("=")]))
    async with running(replace(own_settings, route="auto")) as runtime:
        await runtime.prepare()
        assert runtime.route == "direct"
        assert containers(engine, own_settings.server_id) == []
        assert engine.images(filters={"label": label}, all=True) == []


async def test_an_image_that_is_not_ours_is_kept_whatever_its_container_is_called(
    own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    name = f"sandpool-probe-{own_settings.server_id}"
    labels = {"sandpool.server": own_settings.server_id}
    engine.create_container("busybox:latest", command=["true"], name=name, labels=labels)
    async with running(replace(own_settings, route="auto")) as runtime:
        await runtime.prepare()
        assert containers(engine, own_settings.server_id) == []
        assert engine.inspect_image("busybox:latest")


async def test_a_local_engines_ports_are_published_for_this_machine_alone(
    own_settings: RuntimeSettings, agents: GrpcAgents, engine: docker.APIClient
) -> None:
    async with running(replace(own_settings, route="published")) as runtime:
        await runtime.prepare()
        assert (await works(runtime, agents)).startswith("127.0.0.1:")
        member = make_member()
        await runtime.launch(member, TOKEN)
        (binding,) = engine.port(f"sandpool-{member.id}", 10240)
        assert binding["HostIp"] == "127.0.0.1"


@pytest.mark.parametrize(("made", "then"), [("published", "direct"), ("direct", "published")])
async def test_members_made_another_way_keep_an_address(
    own_settings: RuntimeSettings, agents: GrpcAgents, made: Route, then: Route
) -> None:
    member = make_member()
    async with running(replace(own_settings, route=then)) as later:
        await later.prepare()
        first = DockerRuntime(replace(own_settings, route=made))
        try:
            await first.launch(member, agents.token_sha256(member.id))
        finally:
            await first.close()
        (ref,) = await later.members()
        await agents.wait_ready(member.id, ref.address, 20)


async def test_an_engine_behind_tls_whose_containers_are_out_of_reach(
    remote_engine: SecondEngine,
    own_settings: RuntimeSettings,
    agents: GrpcAgents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(remote_engine.certificates.client))
    settings = replace(own_settings, route="auto", base_url=remote_engine.tls_host, probe_secs=0.5)
    async with running(settings) as runtime:
        await runtime.ping()
        await runtime.prepare()
        assert runtime.route == "published"
        assert (await works(runtime, agents)).startswith(f"{remote_engine.address}:")
    async with running(replace(settings, route="published", publish_ip="0.0.0.0")) as runtime:
        await runtime.prepare()
        assert (await works(runtime, agents)).startswith(f"{remote_engine.address}:")


async def test_the_engines_address_may_come_from_the_environment(
    remote_engine: SecondEngine, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", remote_engine.tls_host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(remote_engine.certificates.client))
    runtime = DockerRuntime(replace(settings, base_url=""))
    await runtime.ping()
    await runtime.close()


@pytest.mark.parametrize("who", ["stranger", "nobody"])
async def test_an_engine_behind_tls_lets_no_stranger_in(
    remote_engine: SecondEngine, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    if who == "stranger":
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(remote_engine.certificates.stranger))
    runtime = DockerRuntime(replace(settings, base_url=remote_engine.tls_host))
    try:
        with pytest.raises(Unavailable):
            await runtime.ping()
    finally:
        await runtime.close()


async def test_an_internal_network_and_no_way_to_its_containers_is_told_at_once(
    own_settings: RuntimeSettings,
) -> None:
    async with running(replace(own_settings, route="published", network_internal=True)) as runtime:
        with pytest.raises(Unavailable, match="internal network"):
            await runtime.prepare()


@pytest.fixture
def ssh(tmp_path: Path, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """A way to the engine over ssh on the loopback."""
    with ssh_server(tmp_path, docker_host) as server:
        monkeypatch.setenv("PATH", f"{server.programs}:{server.path}")
        yield server


async def answers(runtime: DockerRuntime) -> None:
    """Return when the engine answers; logging in may take longer than a ping is given, and goes on meanwhile."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await runtime.ping()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_an_engine_behind_ssh(ssh: SshServer, own_settings: RuntimeSettings, agents: GrpcAgents) -> None:
    async with running(replace(own_settings, route="published", base_url=ssh.url)) as runtime:
        await answers(runtime)
        await runtime.prepare()
        assert (await works(runtime, agents)).startswith("127.0.0.1:")


async def test_ssh_keeps_the_deadlines_and_says_what_is_wrong(ssh: SshServer, settings: RuntimeSettings) -> None:
    runtime = DockerRuntime(replace(settings, base_url=ssh.url))
    try:
        await answers(runtime)
        with ssh.frozen():
            async with asyncio.timeout(3):
                with pytest.raises(Unavailable, match="in time"):
                    await runtime.ping()
        await answers(runtime)
        with capture_logs() as logs:
            ssh.close_to_us()
            async with asyncio.timeout(30):
                while not any("Permission denied" in entry.get("said", "") for entry in logs):
                    with pytest.raises(Unavailable):
                        await runtime.ping()
                    await asyncio.sleep(0.05)
    finally:
        await runtime.close()
