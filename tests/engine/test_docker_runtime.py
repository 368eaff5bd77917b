"""The runtime's contract on a real engine, and what is Docker's alone: labels, cancellation, prune, purge."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.ports import Runtime, RuntimeEvent, RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, RuntimeSettings
from tests.engine.conftest import MakeSandbox
from tests.support.members import make_member
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
    """Containers that carry the server's label, as an observer sees them."""
    found = engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
    return sorted(name.lstrip("/") for one in found for name in one["Names"])


@pytest.fixture
def foreign(engine: docker.APIClient) -> Iterator[str]:
    """A container of somebody else, named as one of ours."""
    name = f"sandpool-{make_member().id}"
    container = engine.create_container("busybox:latest", command=["true"], name=name)
    yield name
    engine.remove_container(container["Id"], force=True)


async def test_what_carries_no_label_of_ours_is_neither_listed_nor_removed(
    runtime: DockerRuntime, engine: docker.APIClient, foreign: str
) -> None:
    assert await runtime.members() == []
    await runtime.remove(foreign.removeprefix("sandpool-"))
    assert await runtime.purge() == 0
    assert engine.inspect_container(foreign)["State"]["Status"] == "created"
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_member(member_id=foreign.removeprefix("sandpool-")), TOKEN)
    assert failed.value.reason is FailureReason.START_FAILED
    assert engine.inspect_container(foreign)["State"]["Status"] == "created"


async def test_two_servers_on_one_engine_leave_each_other_alone(
    runtime: DockerRuntime, own_settings: RuntimeSettings, engine: docker.APIClient
) -> None:
    other = DockerRuntime(own_settings)
    try:
        mine, theirs = make_member(), make_member()
        await runtime.launch(mine, TOKEN)
        await other.launch(theirs, TOKEN)
        assert [ref.member_id for ref in await runtime.members()] == [mine.id]
        await runtime.remove(theirs.id)
        assert await other.purge() == 1
        assert names(engine, own_settings.server_id) == []
        assert engine.networks(filters={"label": f"sandpool.server={own_settings.server_id}"}) == []
        assert [ref.member_id for ref in await runtime.members()] == [mine.id]
    finally:
        await other.close()


@pytest.mark.parametrize("after_secs", [0.0, 0.02, 0.1, 0.2, 0.3])
async def test_a_cancelled_launch_leaves_nothing(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str, after_secs: float
) -> None:
    launch = asyncio.create_task(runtime.launch(make_member(), TOKEN))
    await asyncio.wait({launch}, timeout=after_secs)  # Wherever the launch is by then.
    launch.cancel()
    await asyncio.wait({launch})
    if launch.cancelled():
        assert names(engine, server_id) == []
    else:  # It was done before.
        assert len(names(engine, server_id)) == 1


async def test_a_member_can_be_removed_while_it_starts(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str
) -> None:
    member = make_member()
    events = runtime.events()
    await anext(events)
    launch = asyncio.create_task(runtime.launch(member, TOKEN))
    while not names(engine, server_id):  # noqa: ASYNC110 (the engine tells only when asked)
        await asyncio.sleep(0.005)
    await runtime.remove(member.id)
    await asyncio.wait({launch})
    await runtime.remove(member.id)
    assert names(engine, server_id) == []
    error = launch.exception()
    assert error is None or isinstance(error, LaunchFailed)


async def test_an_event_within_a_second_of_a_removal_behind_our_back(
    runtime: DockerRuntime, engine: docker.APIClient
) -> None:
    member = make_member()
    await runtime.launch(member, TOKEN)
    events = runtime.events()
    assert (await anext(events)).kind is RuntimeEventKind.RESYNC
    await asyncio.to_thread(engine.kill, f"sandpool-{member.id}")
    assert (await next_event(events, RuntimeEventKind.DIED, member.id, secs=1)).exit_code == 137
    await asyncio.to_thread(engine.remove_container, f"sandpool-{member.id}", force=True)
    await next_event(events, RuntimeEventKind.REMOVED, member.id, secs=1)


async def test_a_pause_behind_our_back_is_an_event(runtime: DockerRuntime, engine: docker.APIClient) -> None:
    member = make_member()
    await runtime.launch(member, TOKEN)
    events = runtime.events()
    await anext(events)
    await asyncio.to_thread(engine.pause, f"sandpool-{member.id}")
    await next_event(events, RuntimeEventKind.PAUSED, member.id, secs=1)
    (ref,) = await runtime.members()
    assert (ref.running, ref.paused) == (True, True)
    assert ref.address
    await runtime.remove(member.id)
    assert await runtime.members() == []


@pytest.mark.parametrize("first_process", [True, False], ids=["first process", "child"])
async def test_out_of_memory_is_told_before_the_end(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str, first_process: bool
) -> None:
    """In containers without our agent, which the kernel spares."""
    member = make_member()
    events = runtime.events()
    await anext(events)
    container = engine.create_container(
        "busybox:latest",
        ["sh", "-c", "exec tail /dev/zero" if first_process else "tail /dev/zero; exit 3"],
        name=f"sandpool-{member.id}",
        labels={"sandpool.server": server_id, "sandpool.member": member.id},
        host_config=engine.create_host_config(mem_limit="16m", memswap_limit="16m"),
    )
    await asyncio.to_thread(engine.start, container)
    seen: list[RuntimeEvent] = []
    async with asyncio.timeout(10):
        while len(seen) < 2:
            event = await anext(events)
            # A stream begins with what happened in its first second, also to members of the test before.
            seen += [event] if event.member_id == member.id else []
    assert [event.kind for event in seen] == [RuntimeEventKind.OOM, RuntimeEventKind.DIED]
    assert seen[1].exit_code == (137 if first_process else 3)


async def test_an_ended_container_is_listed_with_its_exit_code(
    runtime: DockerRuntime, engine: docker.APIClient
) -> None:
    member = make_member()
    await runtime.launch(member, TOKEN)
    await asyncio.to_thread(engine.kill, f"sandpool-{member.id}")
    await asyncio.to_thread(engine.wait, f"sandpool-{member.id}")
    (ref,) = await runtime.members()
    assert (ref.running, ref.address, ref.exit_code) == (False, "", 137)


async def test_more_than_the_engine_has_is_a_limit_unsupported(
    runtime: DockerRuntime, engine: docker.APIClient, server_id: str
) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_member(cpus=250.0), TOKEN)
    assert failed.value.reason is FailureReason.LIMIT_UNSUPPORTED
    assert "CPU" in failed.value.message
    assert names(engine, server_id) == []


async def test_an_unknown_oci_runtime_is_a_clear_failure(settings: RuntimeSettings) -> None:
    runtime = DockerRuntime(replace(settings, oci_runtime="sandpool-no-such-runtime"))
    try:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(make_member(), TOKEN)
        assert failed.value.reason is FailureReason.START_FAILED
        assert "runtime" in failed.value.message
        assert await runtime.members() == []
    finally:
        await runtime.close()


async def test_a_network_in_the_way_is_reported_and_left_alone(
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


async def test_what_the_container_is_made_of(
    runtime: DockerRuntime, engine: docker.APIClient, make_sandbox: MakeSandbox, server_id: str
) -> None:
    sandbox = await make_sandbox(cpus=0.5, memory_mb=64)
    found = engine.inspect_container(f"sandpool-{sandbox.member.id}")
    host = found["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 64 << 20, 64 << 20)
    assert found["Config"]["Labels"] == {
        "sandpool.server": server_id,
        "sandpool.member": sandbox.member.id,
        "sandpool.pool": "",
        "sandpool.agent": runtime.agent_version,
    }
    assert [mount["Destination"] for mount in found["Mounts"]] == ["/.sandpool"]
    assert not found["Mounts"][0]["RW"]
    assert host["Binds"] is None
    assert not host["Privileged"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "1", "max-size": "1m"}}
