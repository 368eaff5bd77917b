"""Health checks, and the end of long calls when the server stops."""

import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from structlog.testing import capture_logs

from sandpool.v1 import container_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool_server.domain.errors import Unavailable
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.health import DETAIL_KEY, HealthReporter
from tests.rpc.conftest import Rig, refused

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICES = (
    "",
    "sandpool.v1.PoolService",
    "sandpool.v1.TemplateService",
    "sandpool.v1.SandboxService",
    "sandpool.v1.SecretService",
    "sandpool.v1.ProcessService",
    "sandpool.v1.FileService",
    "sandpool.v1.PortService",
    "sandpool.v1.MonitorService",
)


async def statuses(rig: Rig) -> set[int]:
    return {(await rig.health_stub.Check(HealthCheckRequest(service=name))).status for name in SERVICES}


async def test_not_serving_before_first_refresh(rig: Rig) -> None:
    assert await statuses(rig) == {NOT_SERVING}
    await rig.health.refresh()
    assert await statuses(rig) == {SERVING}


@pytest.mark.parametrize("name", ["database", "engine"])
@pytest.mark.parametrize("error", [Unavailable("X", "no response"), RuntimeError("a bug")], ids=["unavailable", "bug"])
async def test_one_failing_probe_means_not_serving(rig: Rig, name: str, error: Exception) -> None:
    await rig.health.refresh()
    rig.probes.errors[name] = error
    with capture_logs() as logs:
        await rig.health.refresh()
        await rig.health.refresh()
    assert await statuses(rig) == {NOT_SERVING}
    assert list(rig.health.failing) == [name]
    assert len([line for line in logs if line["event"] == "not serving"]) == 1, "only changes are logged"
    rig.probes.errors[name] = None
    await rig.health.refresh()
    assert await statuses(rig) == {SERVING}


async def test_hanging_probe_fails_at_timeout() -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    reporter = HealthReporter({"engine": hangs}, Drain(), timeout_secs=0.01)
    await asyncio.wait_for(reporter.refresh(), 5)
    assert not reporter.serving
    assert reporter.failing == {"engine": "no response within 0.01 s"}


async def test_refreshes_until_drain() -> None:
    rounds = asyncio.Semaphore(0)

    async def probe() -> None:
        rounds.release()

    drain = Drain()
    reporter = HealthReporter({"database": probe}, drain, interval_secs=0.001)
    task = asyncio.create_task(reporter.run())
    async with asyncio.timeout(5):
        for _ in range(3):
            await rounds.acquire()
        assert reporter.serving
        drain.begin()
        await task
    assert not reporter.serving


async def detail_of(rig: Rig) -> str | None:
    """Return the detail of a health check."""
    call = rig.health_stub.Check(HealthCheckRequest())
    await call
    return dict(await call.trailing_metadata()).get(DETAIL_KEY)


async def test_check_returns_facts_and_failing_probes(rig: Rig) -> None:
    assert await detail_of(rig) == "failing=database,engine"
    await rig.health.refresh()
    assert await detail_of(rig) is None
    rig.details |= {"engine": "tcp://10.0.0.1:2376", "route": "direct"}
    assert await detail_of(rig) == "engine=tcp://10.0.0.1:2376; route=direct"
    rig.details["route"] = "published"
    rig.probes.errors["engine"] = Unavailable("X", "no response")
    await rig.health.refresh()
    assert await detail_of(rig) == "engine=tcp://10.0.0.1:2376; route=published; failing=engine"


async def test_cleans_and_truncates_facts_for_header(rig: Rig) -> None:
    await rig.health.refresh()
    rig.details |= {"a": " x;y=\r\n\0é\udc80~ ", "b": "€" * 5000, **{f"c{i}": "c" * 500 for i in range(100)}}
    detail = await detail_of(rig)
    assert detail is not None
    assert detail.startswith("a=x?y=?????~; b=" + "?" * 200 + "; c0=ccc")
    assert len(detail) == 2000


async def test_unknown_service_is_not_found(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.health_stub.Check(HealthCheckRequest(service="unknown"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = rig.health_stub.Watch(HealthCheckRequest(service="unknown"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_health_watch_reports_changes_and_drain(rig: Rig) -> None:
    watch = rig.health_stub.Watch(HealthCheckRequest(service="sandpool.v1.PoolService"))
    assert (await watch.read()).status == NOT_SERVING
    await rig.health.refresh()
    assert (await watch.read()).status == SERVING
    rig.drain.begin()
    assert (await watch.read()).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_reports_drain_immediately(rig: Rig) -> None:
    await rig.health.refresh()
    rig.drain.begin()
    assert await statuses(rig) == {NOT_SERVING}


async def test_watches_end_at_drain_with_retry_delay(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"), name="one"))
    await rig.pools.CreatePool(p.CreatePoolRequest(spec=container_pb2.ContainerSpec(image="i")))
    pools = rig.pools.WatchPools(p.WatchPoolsRequest())
    sandbox = rig.sandboxes.WatchSandbox(s.WatchSandboxRequest(sandbox_id="one"))
    await pools.read()
    await sandbox.read()
    rig.drain.begin()
    for watch in (pools, sandbox):
        reported = await refused(asyncio.wait_for(watch.read(), 5))
        assert (reported.code, reported.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        assert reported.details[RetryInfo].retry_delay.seconds == 1
    assert not rig.fakes.pools.watchers
    assert not rig.fakes.sandboxes.watchers


async def test_stop_does_not_wait_for_streams(rig: Rig) -> None:
    reflection = ServerReflectionStub(rig.channel).ServerReflectionInfo()
    await reflection.write(ServerReflectionRequest(list_services=""))
    await reflection.read()
    watches = [rig.pools.WatchPools(p.WatchPoolsRequest()), rig.health_stub.Watch(HealthCheckRequest())]
    await watches[1].read()
    await rig.fakes.faults.signal.until(lambda: bool(rig.fakes.pools.watchers))
    rig.drain.begin()
    await asyncio.wait_for(rig.server.stop(60), 5)
    assert await reflection.code() is grpc.StatusCode.UNAVAILABLE
