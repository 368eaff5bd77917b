"""Health and reflection; and how long calls end when the server stops."""

import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from structlog.testing import capture_logs

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


async def test_nothing_serves_before_the_first_round(rig: Rig) -> None:
    assert await statuses(rig) == {NOT_SERVING}
    await rig.health.refresh()
    assert await statuses(rig) == {SERVING}


@pytest.mark.parametrize("name", ["database", "engine"])
@pytest.mark.parametrize("error", [Unavailable("X", "no answer"), RuntimeError("a bug")], ids=["unavailable", "bug"])
async def test_one_that_does_not_answer_is_enough(rig: Rig, name: str, error: Exception) -> None:
    await rig.health.refresh()
    rig.probes.errors[name] = error
    with capture_logs() as logs:
        await rig.health.refresh()
        await rig.health.refresh()
    assert await statuses(rig) == {NOT_SERVING}
    assert list(rig.health.failing) == [name]
    assert len([line for line in logs if line["event"] == "not serving"]) == 1, "a change is logged, not a state"
    rig.probes.errors[name] = None
    await rig.health.refresh()
    assert await statuses(rig) == {SERVING}


async def test_a_probe_that_hangs_is_given_up() -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    reporter = HealthReporter({"engine": hangs}, Drain(), timeout_secs=0.01)
    await asyncio.wait_for(reporter.refresh(), 5)
    assert not reporter.serving
    assert reporter.failing == {"engine": "no answer within 0.01 s"}


async def test_it_refreshes_until_the_drain() -> None:
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
    """What a check tells beside the status."""
    call = rig.health_stub.Check(HealthCheckRequest())
    await call
    return dict(await call.trailing_metadata()).get(DETAIL_KEY)


async def test_a_check_tells_the_facts_and_what_fails(rig: Rig) -> None:
    assert await detail_of(rig) == "failing=database,engine"
    await rig.health.refresh()
    assert await detail_of(rig) is None
    rig.details |= {"engine": "tcp://10.0.0.1:2376", "route": "direct"}
    assert await detail_of(rig) == "engine=tcp://10.0.0.1:2376; route=direct"
    rig.details["route"] = "published"
    rig.probes.errors["engine"] = Unavailable("X", "no answer")
    await rig.health.refresh()
    assert await detail_of(rig) == "engine=tcp://10.0.0.1:2376; route=published; failing=engine"


async def test_facts_are_made_fit_for_a_header(rig: Rig) -> None:
    await rig.health.refresh()
    rig.details |= {"a": " x;y=\r\n\0é\udc80~ ", "b": "€" * 5000, **{f"c{i}": "c" * 500 for i in range(100)}}
    detail = await detail_of(rig)
    assert detail is not None
    assert detail.startswith("a=x?y=?????~; b=" + "?" * 200 + "; c0=ccc")
    assert len(detail) == 2000


async def test_an_unknown_service_is_not_found(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.health_stub.Check(HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = rig.health_stub.Watch(HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_watch_of_health_tells_changes_and_the_drain(rig: Rig) -> None:
    watch = rig.health_stub.Watch(HealthCheckRequest(service="sandpool.v1.PoolService"))
    assert (await watch.read()).status == NOT_SERVING
    await rig.health.refresh()
    assert (await watch.read()).status == SERVING
    rig.drain.begin()
    assert (await watch.read()).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_drain_is_told_at_once(rig: Rig) -> None:
    await rig.health.refresh()
    rig.drain.begin()
    assert await statuses(rig) == {NOT_SERVING}


async def test_watches_end_at_the_drain_with_when_to_come_back(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))
    await rig.pools.CreatePool(p.CreatePoolRequest(image="i"))
    pools = rig.pools.WatchPools(p.WatchPoolsRequest())
    sandbox = rig.sandboxes.WatchSandbox(s.WatchSandboxRequest(sandbox_id="one"))
    await pools.read()
    await sandbox.read()
    rig.drain.begin()
    for watch in (pools, sandbox):
        answer = await refused(asyncio.wait_for(watch.read(), 5))
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        assert answer.details[RetryInfo].retry_delay.seconds == 1
    assert not rig.fakes.pools.watchers
    assert not rig.fakes.sandboxes.watchers


async def test_a_stop_waits_for_no_stream(rig: Rig) -> None:
    reflection = ServerReflectionStub(rig.channel).ServerReflectionInfo()
    await reflection.write(ServerReflectionRequest(list_services=""))
    await reflection.read()
    watches = [rig.pools.WatchPools(p.WatchPoolsRequest()), rig.health_stub.Watch(HealthCheckRequest())]
    await watches[1].read()
    await rig.fakes.faults.signal.until(lambda: bool(rig.fakes.pools.watchers))
    rig.drain.begin()
    await asyncio.wait_for(rig.server.stop(60), 5)
    assert await reflection.code() is grpc.StatusCode.UNAVAILABLE


async def test_reflection_knows_every_service(rig: Rig) -> None:
    reflection = ServerReflectionStub(rig.channel).ServerReflectionInfo()
    await reflection.write(ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await reflection.read()).list_services_response.service}
    assert set(SERVICES[1:]) | {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == listed
    await reflection.write(ServerReflectionRequest(file_containing_symbol="sandpool.v1.SandboxService"))
    answer = await reflection.read()
    file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
    assert file.name == "sandpool/v1/sandbox_service.proto"
    await reflection.write(ServerReflectionRequest(file_containing_symbol="sandpool.v1.SandboxService.RunCommand"))
    assert (await reflection.read()).file_descriptor_response == answer.file_descriptor_response
    await reflection.write(ServerReflectionRequest(file_containing_symbol="sandpool.v1.SandboxService.Absent"))
    assert (await reflection.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    await reflection.done_writing()
    assert await reflection.read() is grpc.aio.EOF
    assert await reflection.code() is grpc.StatusCode.OK
