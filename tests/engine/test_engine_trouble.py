"""An engine that hangs, refuses or breaks connections, simulated by a proxy in front of the real engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, RuntimeSettings
from tests.support.engine_proxy import EngineProxy, Mode
from tests.support.instances import make_instance
from tests.support.proxied_engine import FaultyEngine
from tests.support.runtime_contract import TOKEN, next_event

pytestmark = [
    pytest.mark.engine,
    # docker-py leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture
async def proxy(docker_host: str, tmp_path: Path) -> AsyncIterator[FaultyEngine]:
    proxy = FaultyEngine(docker_host, tmp_path / "engine.sock")
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
async def runtime(
    settings: RuntimeSettings, engine: docker.APIClient, proxy: EngineProxy
) -> AsyncIterator[DockerRuntime]:
    """Yield a prepared runtime that uses the engine through the proxy, with short deadlines."""
    runtime = DockerRuntime(
        replace(
            settings,
            base_url=proxy.base_url,
            create_parallelism=2,
            ping_secs=0.5,
            query_secs=1.0,
            launch_secs=3.0,
            remove_secs=2.0,
            queue_secs=5.0,
            undo_secs=0.5,
            event_idle_secs=20.0,
        )
    )
    try:
        await runtime.prepare()
        yield runtime
    finally:
        await runtime.close()
        for container in engine.containers(all=True, filters={"label": f"sandpool.server={settings.server_id}"}):
            engine.remove_container(container["Id"], v=True, force=True)


def events_until_removal(engine: docker.APIClient, instance_id: str, since: int) -> list[str]:
    """Return the events of the instance's container from `since` until its removal. Wait for it up to 20 seconds."""
    label = {"label": f"sandpool.instance={instance_id}"}
    seen = []
    for event in engine.events(since=since, until=int(time.time()) + 20, decode=True, filters=label):
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    return seen


async def test_stopped_engine_is_unreachable_immediately(runtime: DockerRuntime, proxy: EngineProxy) -> None:
    await proxy.set_mode(Mode.REFUSE)
    began = time.monotonic()
    for call in (runtime.ping(), runtime.instances(), runtime.remove(make_instance().id), runtime.prepare()):
        with pytest.raises(Unavailable) as refused:
            await call
        assert refused.value.reason == "ENGINE_UNREACHABLE"
        assert "cannot be reached" in refused.value.message
    for launch in (runtime.launch(make_instance(), TOKEN), runtime.ensure_image("busybox:latest")):
        with pytest.raises(LaunchFailed) as failed:
            await launch
        assert failed.value.reason is FailureReason.ENGINE_UNREACHABLE
    assert time.monotonic() - began < 3
    await proxy.set_mode(Mode.PASS)
    await runtime.ping()
    await runtime.launch(make_instance(), TOKEN)


async def test_calls_to_frozen_engine_fail_at_deadlines_until_it_resumes(
    runtime: DockerRuntime, proxy: EngineProxy
) -> None:
    await proxy.set_mode(Mode.HANG)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await runtime.ping()
    assert time.monotonic() - began < 1.5
    with pytest.raises(Unavailable):
        await runtime.instances()
    with pytest.raises(Unavailable):
        await runtime.remove(make_instance().id)
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(), TOKEN)
    assert failed.value.reason is FailureReason.ENGINE_UNREACHABLE
    assert time.monotonic() - began < 12
    await proxy.set_mode(Mode.PASS)
    async with asyncio.timeout(10):
        await runtime.ping()
        await runtime.launch(make_instance(), TOKEN)


async def test_hanging_starts_do_not_block_removal_and_ping(
    runtime: DockerRuntime, proxy: EngineProxy, engine: docker.APIClient
) -> None:
    existing = make_instance()
    await runtime.launch(existing, TOKEN)
    proxy.hang_on = "/start"
    stuck = [asyncio.create_task(runtime.launch(make_instance(), TOKEN)) for _ in range(2)]
    async with asyncio.timeout(5):
        while proxy.hung < 2:  # noqa: ASYNC110 (the proxy counts)
            await asyncio.sleep(0.01)
    async with asyncio.timeout(1.5):
        await runtime.ping()
        await runtime.remove(existing.id)
    assert [ref.running for ref in await runtime.instances()] == [False, False]
    for launch in stuck:
        with pytest.raises(LaunchFailed) as failed:
            await launch
        assert failed.value.reason is FailureReason.ENGINE_UNREACHABLE
    assert await runtime.instances() == []
    proxy.release()
    await runtime.launch(make_instance(), TOKEN)


async def test_removes_instance_immediately_while_its_start_hangs(
    runtime: DockerRuntime, proxy: EngineProxy, engine: docker.APIClient
) -> None:
    instance = make_instance()
    proxy.hang_on = "/start"
    stuck = asyncio.create_task(runtime.launch(instance, TOKEN))
    async with asyncio.timeout(5):
        while not proxy.hung:  # noqa: ASYNC110 (the proxy counts)
            await asyncio.sleep(0.01)
    async with asyncio.timeout(1.5):
        await runtime.remove(instance.id)
    assert await runtime.instances() == []
    proxy.release()
    with pytest.raises(LaunchFailed):
        await stuck
    assert await runtime.instances() == []


@pytest.mark.parametrize(
    ("request_part", "status", "message", "reason"),
    [
        (
            "/containers/create",
            500,
            "mkdir /var/lib/docker/overlay2/x: no space left on device",
            FailureReason.DISK_FULL,
        ),
        ("/start", 500, "failed to create task: write /run/x: no space left on device", FailureReason.DISK_FULL),
        (
            "/containers/create",
            500,
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            FailureReason.LIMIT_UNSUPPORTED,
        ),
        (
            "/start",
            500,
            "OCI runtime create failed: process_linux.go: setting cgroup config: failed to write to memory.limit",
            FailureReason.LIMIT_UNSUPPORTED,
        ),
        ("/start", 500, "OCI runtime create failed: something else", FailureReason.START_FAILED),
        ("/containers/create", 404, "No such image: busybox:latest", FailureReason.IMAGE_NOT_FOUND),
    ],
)
async def test_refused_launch_has_reason_and_leaves_no_container(
    runtime: DockerRuntime, proxy: FaultyEngine, request_part: str, status: int, message: str, reason: FailureReason
) -> None:
    proxy.faults[request_part] = (status, message)
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(), TOKEN)
    assert failed.value.reason is reason
    assert await runtime.instances() == []
    proxy.faults.clear()
    await runtime.launch(make_instance(), TOKEN)


async def test_pull_fails_with_disk_full(runtime: DockerRuntime, proxy: FaultyEngine) -> None:
    proxy.faults["/images/create"] = (500, "write /var/lib/docker/tmp/GetImageBlob1: no space left on device")
    with pytest.raises(LaunchFailed) as failed:
        await runtime.ensure_image("busybox:latest", PullPolicy.ALWAYS)
    assert failed.value.reason is FailureReason.DISK_FULL
    assert runtime.pulls() == {}


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "timed out"])
async def test_removes_container_that_engine_creates_late(
    runtime: DockerRuntime, proxy: EngineProxy, engine: docker.APIClient, cancelled: bool
) -> None:
    """The create request hangs. The engine creates the container after the launch has failed or was cancelled."""
    since = int(time.time())
    instance = make_instance()
    proxy.hang_on = "/containers/create"
    launch = asyncio.create_task(runtime.launch(instance, TOKEN))
    async with asyncio.timeout(5):
        while not proxy.hung:  # noqa: ASYNC110 (the proxy counts)
            await asyncio.sleep(0.01)
    if cancelled:
        launch.cancel()
    await asyncio.wait({launch})
    assert launch.cancelled() == cancelled
    assert cancelled or isinstance(launch.exception(), LaunchFailed)
    proxy.release()
    assert await asyncio.to_thread(events_until_removal, engine, instance.id, since) == ["create", "destroy"]


async def test_events_resync_when_stream_breaks(
    runtime: DockerRuntime, proxy: EngineProxy, engine: docker.APIClient
) -> None:
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    events = runtime.events()
    await next_event(events, RuntimeEventKind.RESYNC)
    await proxy.break_connections()
    await next_event(events, RuntimeEventKind.RESYNC, secs=2)
    await asyncio.to_thread(engine.remove_container, f"sandpool-{instance.id}", force=True)
    await next_event(events, RuntimeEventKind.REMOVED, instance.id, secs=1)


async def test_events_resume_after_engine_was_unavailable(
    runtime: DockerRuntime, proxy: EngineProxy, engine: docker.APIClient
) -> None:
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    events = runtime.events()
    await next_event(events, RuntimeEventKind.RESYNC)
    await proxy.set_mode(Mode.REFUSE)
    await asyncio.to_thread(engine.remove_container, f"sandpool-{instance.id}", force=True)
    await proxy.set_mode(Mode.PASS)
    await next_event(events, RuntimeEventKind.RESYNC, secs=10)
    assert await runtime.instances() == []


async def test_close_ends_events_and_hanging_calls(
    settings: RuntimeSettings, runtime: DockerRuntime, proxy: EngineProxy
) -> None:
    events = runtime.events()
    await next_event(events, RuntimeEventKind.RESYNC)
    await proxy.set_mode(Mode.HANG)
    hanging = asyncio.create_task(runtime.instances())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await runtime.close()
        with pytest.raises(Unavailable):
            await hanging
        assert [event async for event in events if event.kind is RuntimeEventKind.RESYNC] == []
    with pytest.raises(Unavailable, match="stopping"):
        await runtime.ping()
