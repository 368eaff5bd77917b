"""The contract of the runtime with a real engine, and behaviour specific to Docker: labels, cancellation, purge."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.interfaces import Runtime, RuntimeEvent, RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, RuntimeSettings
from tests.engine.conftest import MakeSandbox
from tests.support.instances import make_instance
from tests.support.runtime_contract import TOKEN, RuntimeContract, next_event

pytestmark = pytest.mark.engine


class TestDockerRuntime(RuntimeContract):
    @pytest.fixture(autouse=True)
    def _unknown_image(self, test_registry: str) -> None:
        self.unknown_image = f"{test_registry}/sandpool-test/does-not-exist:1"

    @pytest.fixture
    async def runtime(self, runtime: DockerRuntime) -> Runtime:
        return runtime


def names(engine: docker.APIClient, server_id: str) -> list[str]:
    """Return the names of the containers with the label of the server."""
    found = engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
    return sorted(name.lstrip("/") for one in found for name in one["Names"])


@pytest.fixture
def foreign(engine: docker.APIClient) -> Iterator[str]:
    """Create a container of another client with a name like that of an instance."""
    name = f"sandpool-{make_instance().id}"
    container = engine.create_container("busybox:latest", command=["true"], name=name)
    yield name
    engine.remove_container(container["Id"], force=True)


async def test_ignores_containers_without_label_of_server(
    runtime: DockerRuntime, engine: docker.APIClient, foreign: str
) -> None:
    assert await runtime.instances() == []
    await runtime.remove(foreign.removeprefix("sandpool-"))
    assert await runtime.purge() == 0
    assert engine.inspect_container(foreign)["State"]["Status"] == "created"
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(instance_id=foreign.removeprefix("sandpool-")), TOKEN)
    assert failed.value.reason is FailureReason.START_FAILED
    assert engine.inspect_container(foreign)["State"]["Status"] == "created"


async def test_two_servers_on_one_engine_do_not_affect_each_other(
    runtime: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    other = DockerRuntime(own_settings)
    try:
        own, foreign = make_instance(), make_instance()
        await runtime.launch(own, TOKEN)
        await other.launch(foreign, TOKEN)
        assert [ref.instance_id for ref in await runtime.instances()] == [own.id]
        await runtime.remove(foreign.id)
        assert await other.purge() == 1
        assert names(engine, own_settings.server_id) == []
        assert engine.networks(filters={"label": f"sandpool.server={own_settings.server_id}"}) == []
        assert [ref.instance_id for ref in await runtime.instances()] == [own.id]
    finally:
        await other.close()


@pytest.mark.parametrize("after_secs", [0.0, 0.02, 0.1, 0.2, 0.3])
async def test_cancelled_launch_leaves_no_container(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str, after_secs: float
) -> None:
    launch = asyncio.create_task(runtime.launch(make_instance(), TOKEN))
    await asyncio.wait({launch}, timeout=after_secs)  # Cancel the launch at different points.
    launch.cancel()
    await asyncio.wait({launch})
    if launch.cancelled():
        assert names(engine, server_id) == []
    else:  # The launch had already finished.
        assert len(names(engine, server_id)) == 1


async def test_removes_instance_while_it_starts(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str
) -> None:
    instance = make_instance()
    events = runtime.events()
    await anext(events)
    launch = asyncio.create_task(runtime.launch(instance, TOKEN))
    while not names(engine, server_id):  # noqa: ASYNC110 (the engine must be polled)
        await asyncio.sleep(0.005)
    await runtime.remove(instance.id)
    await asyncio.wait({launch})
    await runtime.remove(instance.id)
    assert names(engine, server_id) == []
    error = launch.exception()
    assert error is None or isinstance(error, LaunchFailed)


async def test_reports_external_removal_within_a_second(runtime: DockerRuntime, engine: docker.APIClient) -> None:
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    events = runtime.events()
    assert (await anext(events)).kind is RuntimeEventKind.RESYNC
    await asyncio.to_thread(engine.kill, f"sandpool-{instance.id}")
    assert (await next_event(events, RuntimeEventKind.DIED, instance.id, secs=1)).exit_code == 137
    await asyncio.to_thread(engine.remove_container, f"sandpool-{instance.id}", force=True)
    await next_event(events, RuntimeEventKind.REMOVED, instance.id, secs=1)


async def test_reports_external_pause(runtime: DockerRuntime, engine: docker.APIClient) -> None:
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    events = runtime.events()
    await anext(events)
    await asyncio.to_thread(engine.pause, f"sandpool-{instance.id}")
    await next_event(events, RuntimeEventKind.PAUSED, instance.id, secs=1)
    (ref,) = await runtime.instances()
    assert (ref.running, ref.paused) == (True, True)
    assert ref.address
    await runtime.remove(instance.id)
    assert await runtime.instances() == []


@pytest.mark.parametrize("first_process", [True, False], ids=["first process", "child"])
async def test_reports_out_of_memory_before_exit(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str, first_process: bool
) -> None:
    """The containers have no agent, because the kernel does not kill the agent."""
    instance = make_instance()
    events = runtime.events()
    await anext(events)
    container = engine.create_container(
        "busybox:latest",
        ["sh", "-c", "exec tail /dev/zero" if first_process else "tail /dev/zero; exit 3"],
        name=f"sandpool-{instance.id}",
        labels={"sandpool.server": server_id, "sandpool.instance": instance.id},
        host_config=engine.create_host_config(mem_limit="16m", memswap_limit="16m"),
    )
    await asyncio.to_thread(engine.start, container)
    seen: list[RuntimeEvent] = []
    async with asyncio.timeout(10):
        while len(seen) < 2:
            event = await anext(events)
            # A stream begins with the events of its first second, including those of the previous test.
            seen += [event] if event.instance_id == instance.id else []
    assert [event.kind for event in seen] == [RuntimeEventKind.OOM, RuntimeEventKind.DIED]
    assert seen[1].exit_code == (137 if first_process else 3)


async def test_lists_exited_container_with_exit_code(runtime: DockerRuntime, engine: docker.APIClient) -> None:
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    await asyncio.to_thread(engine.kill, f"sandpool-{instance.id}")
    await asyncio.to_thread(engine.wait, f"sandpool-{instance.id}")
    (ref,) = await runtime.instances()
    assert (ref.running, ref.address, ref.exit_code) == (False, "", 137)


async def test_rejects_limits_above_capacity_of_engine(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str
) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(cpus=250.0), TOKEN)
    assert failed.value.reason is FailureReason.LIMIT_UNSUPPORTED
    assert "CPU" in failed.value.message
    assert names(engine, server_id) == []


async def test_rejects_unknown_oci_runtime(settings: RuntimeSettings) -> None:
    runtime = DockerRuntime(replace(settings, oci_runtime="sandpool-no-such-runtime"))
    try:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(make_instance(), TOKEN)
        assert failed.value.reason is FailureReason.START_FAILED
        assert "runtime" in failed.value.message
        assert await runtime.instances() == []
    finally:
        await runtime.close()


async def test_reports_conflicting_network_without_changing_it(
    own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    name = f"sandpool-{own_settings.server_id}"
    network = engine.create_network(name, driver="bridge")
    runtime = DockerRuntime(own_settings)
    try:
        with pytest.raises(Unavailable, match="remove that network"):
            await runtime.prepare()
        assert engine.inspect_network(network["Id"])["Name"] == name
    finally:
        await runtime.close()
        engine.remove_network(network["Id"])


async def test_creates_container_with_limits_labels_and_mounts(
    runtime: DockerRuntime, engine: docker.APIClient, make_sandbox: MakeSandbox, server_id: str
) -> None:
    sandbox = await make_sandbox(cpus=0.5, memory_mb=64)
    found = engine.inspect_container(f"sandpool-{sandbox.instance.id}")
    host = found["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 64 << 20, 64 << 20)
    assert found["Config"]["Labels"] == {
        "sandpool.server": server_id,
        "sandpool.instance": sandbox.instance.id,
        "sandpool.pool": "",
        "sandpool.agent": runtime.agent_version,
    }
    assert [mount["Destination"] for mount in found["Mounts"]] == ["/.sandpool"]
    assert not found["Mounts"][0]["RW"]
    assert host["Binds"] is None
    assert not host["Privileged"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "1", "max-size": "1m"}}
