"""Calls in general: deadlines, cancellation, logs, limits of size and number."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from sandpool.v1 import container_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool_server.domain.errors import Unavailable
from sandpool_server.rpc import calls
from sandpool_server.rpc.calls import Calls
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.sandboxes import SandboxServicer
from sandpool_server.rpc.server import MAX_REQUEST_BYTES, RpcOptions
from sandpool_server.rpc.validation import RequestValidator
from tests.rpc.conftest import Rig, TestClock, refused
from tests.support.fake_usecases import FakeUseCases


@pytest.fixture
def options() -> RpcOptions:
    return RpcOptions(max_concurrent_rpcs=3)


def last_line(logs: list[Any]) -> Any:
    return next(line for line in reversed(logs) if line["event"] == "call")


async def test_cancels_call_of_cancelled_caller(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    with capture_logs() as logs:
        call = rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="one", command="sleep 9"))
        await rig.fakes.faults.entered.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await rig.fakes.faults.cancelled.wait()
    line = last_line(logs)
    assert (line["code"], line["sandbox_id"]) == ("CANCELLED", "one")
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_call_ends_at_its_deadline(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    with capture_logs() as logs:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="one", command="sleep 9"), timeout=0.1)
        async with asyncio.timeout(5):
            await rig.fakes.faults.cancelled.wait()
    # Client and server both check the deadline; either can be first.
    assert last_line(logs)["code"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelled_stream_releases_its_watch(rig: Rig) -> None:
    watch = rig.pools.WatchPools(p.WatchPoolsRequest())
    await rig.fakes.faults.signal.until(lambda: bool(rig.fakes.pools.watchers))
    watch.cancel()
    await rig.fakes.faults.signal.until(lambda: not rig.fakes.pools.watchers)


class Aborted(Exception):
    """The exception with which gRPC ends an aborted call."""


class LateContext:
    """The context of a call with the given remaining time."""

    def __init__(self, remaining: float | None) -> None:
        self.remaining = remaining
        self.aborted: Any = None

    def time_remaining(self) -> float | None:
        return self.remaining

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.aborted = code
        raise Aborted(details)


def create_handler(fakes: FakeUseCases) -> Any:
    """Return the handler of CreateSandbox as gRPC calls it."""
    registered: list[Any] = []
    server = SimpleNamespace(add_generic_rpc_handlers=registered.extend)
    service = s.DESCRIPTOR.services_by_name["SandboxService"]
    wrapper: Any = Calls(RequestValidator(), Drain())
    servicer: Any = SandboxServicer(fakes.sandboxes, TestClock())  # type: ignore[arg-type]
    wrapper.register(server, service, servicer)
    details = SimpleNamespace(method="/sandpool.v1.SandboxService/CreateSandbox", invocation_metadata=())
    return registered[0].service(details).unary_unary


async def test_does_not_begin_call_after_its_deadline() -> None:
    fakes, context = FakeUseCases(), LateContext(remaining=-0.001)
    with pytest.raises(Aborted, match="nothing was changed"):
        await create_handler(fakes)(s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i")), context)
    assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not fakes.faults.calls


async def test_does_not_log_unread_request() -> None:
    request = s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"), name="n" * 1_000_000)
    with capture_logs() as logs, pytest.raises(Aborted):
        await create_handler(FakeUseCases())(request, LateContext(remaining=0))
    assert [line["code"] for line in logs] == ["DEADLINE_EXCEEDED"]
    assert "name" not in logs[0]


async def test_begins_call_without_deadline() -> None:
    fakes = FakeUseCases()
    response = await create_handler(fakes)(
        s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i")), LateContext(remaining=None)
    )
    assert response.sandbox.spec.image == "i"


async def test_propagates_cancellation() -> None:
    fakes = FakeUseCases()
    fakes.faults.gate = asyncio.Event()
    call = asyncio.create_task(
        create_handler(fakes)(
            s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i")), LateContext(remaining=None)
        )
    )
    await fakes.faults.entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()


async def test_logs_resource_of_each_call_and_no_secrets(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=container_pb2.ContainerSpec(image="i"), name="one"))
    with capture_logs() as logs:
        await rig.sandboxes.CreateSandbox(
            s.CreateSandboxRequest(
                spec=container_pb2.ContainerSpec(image="i"), name="two", metadata={"k": "hush1"}, request_id="r-1"
            )
        )
        await rig.sandboxes.RunCommand(
            s.RunCommandRequest(sandbox_id="one", argv=["hush2"], env={"A": "hush3"}, working_dir="/hush4")
        )
        await refused(rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="No", command="x", env={"hush 5": ""})))
        await refused(rig.sandboxes.GetSandbox(s.GetSandboxRequest(sandbox_id="absent")))
    assert "hush" not in str(logs)
    assert all(line["event"] == "call" and line["ms"] >= 0 for line in logs)
    assert [line["log_level"] for line in logs] == ["debug", "debug", "info", "info"], (
        "successful calls are logged at level debug"
    )
    assert [{k: v for k, v in line.items() if k not in ("event", "log_level", "ms")} for line in logs] == [
        {"method": "sandpool.v1.SandboxService.CreateSandbox", "code": "OK", "name": "two", "request_id": "r-1"},
        {"method": "sandpool.v1.SandboxService.RunCommand", "code": "OK", "sandbox_id": "one"},
        {"method": "sandpool.v1.SandboxService.RunCommand", "code": "INVALID_ARGUMENT", "reason": "INVALID_FIELD"},
        {
            "method": "sandpool.v1.SandboxService.GetSandbox",
            "code": "NOT_FOUND",
            "reason": "SANDBOX_NOT_FOUND",
            "sandbox_id": "absent",
        },
    ]


async def test_logs_slow_call_at_level_info(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_SLOW_SECS", 0.0)
    with capture_logs() as logs:
        await rig.pools.ListPools(p.ListPoolsRequest())
    assert [(line["code"], line["log_level"]) for line in logs] == [("OK", "info")]


async def test_rejects_calls_above_limit(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    running = [rig.pools.GetPool(p.GetPoolRequest(pool_id="x")) for _ in range(3)]
    await rig.fakes.faults.signal.until(lambda: len(rig.fakes.faults.calls) == 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.pools.GetPool(p.GetPoolRequest(pool_id="x"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    rig.fakes.faults.gate.set()
    for call in running:
        assert (await refused(call)).reason == "POOL_NOT_FOUND"
    assert (await refused(rig.pools.GetPool(p.GetPoolRequest(pool_id="x")))).reason == "POOL_NOT_FOUND"


async def test_rejects_oversized_request(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.raw("SandboxService/RunCommand", b"\x12" + b"\xff\xff\xff\x7f" + b"x" * MAX_REQUEST_BYTES)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_server_does_not_share_its_port(rig: Rig) -> None:
    second = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    with pytest.raises(RuntimeError):
        second.add_insecure_port(f"127.0.0.1:{rig.port}")


async def test_running_calls_finish_while_server_stops(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    call = asyncio.ensure_future(rig.pools.ListPools(p.ListPoolsRequest()))
    await rig.fakes.faults.entered.wait()
    rig.drain.begin()
    stopping = asyncio.create_task(rig.server.stop(10))
    rig.fakes.faults.gate.set()
    assert len((await call).pools) == 0
    await asyncio.wait_for(stopping, 5)


async def test_server_works_after_failed_use_case(rig: Rig) -> None:
    rig.fakes.faults.error = Unavailable("ENGINE_UNREACHABLE", "unreachable")
    await refused(rig.pools.ListPools(p.ListPoolsRequest()))
    rig.fakes.faults.error = None
    assert len((await rig.pools.ListPools(p.ListPoolsRequest())).pools) == 0
