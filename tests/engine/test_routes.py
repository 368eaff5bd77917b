"""Routes to agents: addresses of containers or published ports, with engines on a local socket, TLS and ssh."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from structlog.testing import capture_logs

from sandpool_server.domain.errors import Unavailable
from sandpool_server.interfaces import RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, GrpcAgents, Route, RuntimeSettings
from tests.engine.conftest import launch_sandbox
from tests.support.instances import make_instance
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
    """Yield a runtime, and purge its resources afterwards."""
    runtime = DockerRuntime(settings)
    try:
        yield runtime
        await runtime.purge()
    finally:
        await runtime.close()


async def check_runtime(runtime: DockerRuntime, agents: GrpcAgents) -> str:
    """Launch an instance, run a command, check the list and the events. Return the address of the agent."""
    events = runtime.events()
    await next_event(events, RuntimeEventKind.RESYNC)
    sandbox = await launch_sandbox(runtime, agents, make_instance())
    instance, address = sandbox.instance, sandbox.address
    assert await sandbox.text("echo $((6 * 7))") == "42"
    (ref,) = await runtime.instances()
    assert (ref.instance_id, ref.running, ref.address) == (instance.id, True, address)
    agents.forget(instance.id)
    await runtime.remove(instance.id)
    await next_event(events, RuntimeEventKind.REMOVED, instance.id)
    await events.aclose()
    return address


def containers(engine: docker.APIClient, server_id: str) -> list[str]:
    found = engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
    return [name for one in found for name in one["Names"]]


async def test_detects_direct_route_and_removes_probe(
    own_settings: RuntimeSettings, agents: GrpcAgents, engine: docker.APIClient
) -> None:
    async with running(replace(own_settings, route="auto")) as runtime:
        assert runtime.route is None
        await runtime.prepare()
        assert runtime.route == "direct"
        assert containers(engine, own_settings.server_id) == []
        assert engine.images(name=f"sandpool-agent-filler-{own_settings.server_id}") == []
        assert (await check_runtime(runtime, agents)).endswith(":10240")


async def test_replaces_probe_of_killed_server(own_settings: RuntimeSettings, engine: docker.APIClient) -> None:
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


async def test_keeps_image_of_another_owner(own_settings: RuntimeSettings, engine: docker.APIClient) -> None:
    name = f"sandpool-probe-{own_settings.server_id}"
    labels = {"sandpool.server": own_settings.server_id}
    engine.create_container("busybox:latest", command=["true"], name=name, labels=labels)
    async with running(replace(own_settings, route="auto")) as runtime:
        await runtime.prepare()
        assert containers(engine, own_settings.server_id) == []
        assert engine.inspect_image("busybox:latest")


async def test_publishes_ports_of_local_engine_only_on_loopback(
    own_settings: RuntimeSettings, agents: GrpcAgents, engine: docker.APIClient
) -> None:
    async with running(replace(own_settings, route="published")) as runtime:
        await runtime.prepare()
        assert (await check_runtime(runtime, agents)).startswith("127.0.0.1:")
        instance = make_instance()
        await runtime.launch(instance, TOKEN)
        (binding,) = engine.port(f"sandpool-{instance.id}", 10240)
        assert binding["HostIp"] == "127.0.0.1"


@pytest.mark.parametrize(("first_route", "next_route"), [("published", "direct"), ("direct", "published")])
async def test_instances_keep_address_after_change_of_route(
    own_settings: RuntimeSettings, agents: GrpcAgents, first_route: Route, next_route: Route
) -> None:
    instance = make_instance()
    async with running(replace(own_settings, route=next_route)) as later:
        await later.prepare()
        first = DockerRuntime(replace(own_settings, route=first_route))
        try:
            await first.launch(instance, agents.token_sha256(instance.id))
        finally:
            await first.close()
        (ref,) = await later.instances()
        await agents.wait_ready(instance.id, ref.address, 20)


async def test_detects_published_route_for_engine_with_tls(
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
        assert (await check_runtime(runtime, agents)).startswith(f"{remote_engine.address}:")
    async with running(replace(settings, route="published", publish_ip="0.0.0.0")) as runtime:
        await runtime.prepare()
        assert (await check_runtime(runtime, agents)).startswith(f"{remote_engine.address}:")


async def test_uses_address_of_engine_from_environment(
    remote_engine: SecondEngine, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", remote_engine.tls_host)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(remote_engine.certificates.client))
    runtime = DockerRuntime(replace(settings, base_url=""))
    await runtime.ping()
    await runtime.close()


@pytest.mark.parametrize("certificate", ["untrusted", "none"])
async def test_engine_with_tls_rejects_untrusted_client(
    remote_engine: SecondEngine, settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch, certificate: str
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    if certificate == "untrusted":
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(remote_engine.certificates.untrusted))
    runtime = DockerRuntime(replace(settings, base_url=remote_engine.tls_host))
    try:
        with pytest.raises(Unavailable):
            await runtime.ping()
    finally:
        await runtime.close()


async def test_rejects_internal_network_with_published_route(
    own_settings: RuntimeSettings,
) -> None:
    async with running(replace(own_settings, route="published", network_internal=True)) as runtime:
        with pytest.raises(Unavailable, match="internal network"):
            await runtime.prepare()


@pytest.fixture
def ssh(tmp_path: Path, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshServer]:
    """Run an ssh server on the loopback interface that gives access to the engine."""
    with ssh_server(tmp_path, docker_host) as server:
        monkeypatch.setenv("PATH", f"{server.programs}:{server.path}")
        yield server


async def wait_until_reachable(runtime: DockerRuntime) -> None:
    """Return when the engine responds. The login may take longer than the deadline of a ping."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await runtime.ping()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_uses_engine_over_ssh(ssh: SshServer, own_settings: RuntimeSettings, agents: GrpcAgents) -> None:
    async with running(replace(own_settings, route="published", base_url=ssh.url)) as runtime:
        await wait_until_reachable(runtime)
        await runtime.prepare()
        assert (await check_runtime(runtime, agents)).startswith("127.0.0.1:")


async def test_ssh_calls_fail_at_deadline_and_log_the_reason(ssh: SshServer, settings: RuntimeSettings) -> None:
    runtime = DockerRuntime(replace(settings, base_url=ssh.url))
    try:
        await wait_until_reachable(runtime)
        with ssh.frozen():
            async with asyncio.timeout(3):
                with pytest.raises(Unavailable, match="in time"):
                    await runtime.ping()
        await wait_until_reachable(runtime)
        with capture_logs() as logs:
            ssh.revoke_access()
            async with asyncio.timeout(30):
                while not any("Permission denied" in entry.get("output", "") for entry in logs):
                    with pytest.raises(Unavailable):
                        await runtime.ping()
                    await asyncio.sleep(0.05)
    finally:
        await runtime.close()
