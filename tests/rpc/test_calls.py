"""Around the calls: deadlines, cancellation, the log, limits on size and number."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

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


async def test_a_call_that_its_caller_cancels_is_cancelled(rig: Rig) -> None:
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


async def test_a_call_ends_at_its_deadline(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    with capture_logs() as logs:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="one", command="sleep 9"), timeout=0.1)
        async with asyncio.timeout(5):
            await rig.fakes.faults.cancelled.wait()
    # The client's own clock and the server's race for it.
    assert last_line(logs)["code"] in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_that_its_caller_leaves_lets_go(rig: Rig) -> None:
    watch = rig.pools.WatchPools(p.WatchPoolsRequest())
    await rig.fakes.faults.signal.until(lambda: bool(rig.fakes.pools.watchers))
    watch.cancel()
    await rig.fakes.faults.signal.until(lambda: not rig.fakes.pools.watchers)


class Aborted(Exception):
    """Stands for the exception with which grpc ends an aborted call."""


class LateContext:
    """The context of a call whose deadline is over when it is looked at."""

    def __init__(self, remaining: float | None) -> None:
        self.remaining = remaining
        self.aborted: Any = None

    def time_remaining(self) -> float | None:
        return self.remaining

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.aborted = code
        raise Aborted(details)


def create_handler(fakes: FakeUseCases) -> Any:
    """The handler of CreateSandbox as grpc would call it."""
    registered: list[Any] = []
    server = SimpleNamespace(add_generic_rpc_handlers=registered.extend)
    service = s.DESCRIPTOR.services_by_name["SandboxService"]
    wrapper: Any = Calls(RequestValidator(), Drain())
    servicer: Any = SandboxServicer(fakes.sandboxes, TestClock())  # type: ignore[arg-type]
    wrapper.register(server, service, servicer)
    details = SimpleNamespace(method="/sandpool.v1.SandboxService/CreateSandbox", invocation_metadata=())
    return registered[0].service(details).unary_unary


async def test_a_call_whose_deadline_is_over_is_not_begun() -> None:
    fakes, context = FakeUseCases(), LateContext(remaining=-0.001)
    with pytest.raises(Aborted, match="nothing was done"):
        await create_handler(fakes)(s.CreateSandboxRequest(image="i"), context)
    assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not fakes.faults.calls


async def test_what_was_not_looked_at_is_not_logged() -> None:
    request = s.CreateSandboxRequest(image="i", name="n" * 1_000_000)
    with capture_logs() as logs, pytest.raises(Aborted):
        await create_handler(FakeUseCases())(request, LateContext(remaining=0))
    assert [line["code"] for line in logs] == ["DEADLINE_EXCEEDED"]
    assert "name" not in logs[0]


async def test_a_call_without_a_deadline_is_begun() -> None:
    fakes = FakeUseCases()
    answer = await create_handler(fakes)(s.CreateSandboxRequest(image="i"), LateContext(remaining=None))
    assert answer.sandbox.image == "i"


async def test_a_cancellation_is_passed_on() -> None:
    fakes = FakeUseCases()
    fakes.faults.gate = asyncio.Event()
    call = asyncio.create_task(create_handler(fakes)(s.CreateSandboxRequest(image="i"), LateContext(remaining=None)))
    await fakes.faults.entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()


async def test_one_line_a_call_names_what_it_was_about_and_no_secrets(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))
    with capture_logs() as logs:
        await rig.sandboxes.CreateSandbox(
            s.CreateSandboxRequest(image="i", name="two", metadata={"k": "hush1"}, request_id="r-1")
        )
        await rig.sandboxes.RunCommand(
            s.RunCommandRequest(sandbox_id="one", argv=["hush2"], env={"A": "hush3"}, working_dir="/hush4")
        )
        await refused(rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="No", command="x", env={"hush 5": ""})))
        await refused(rig.sandboxes.GetSandbox(s.GetSandboxRequest(sandbox_id="absent")))
    assert "hush" not in str(logs)
    assert all(line["event"] == "call" and line["ms"] >= 0 for line in logs)
    assert [line["log_level"] for line in logs] == ["debug", "debug", "info", "info"], "what goes well is no news"
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


async def test_a_call_that_took_long_is_news(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_SLOW_SECS", 0.0)
    with capture_logs() as logs:
        await rig.pools.ListPools(p.ListPoolsRequest())
    assert [(line["code"], line["log_level"]) for line in logs] == [("OK", "info")]


async def test_calls_past_the_limit_are_refused_and_not_queued(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    taken = [rig.pools.GetPool(p.GetPoolRequest(pool_id="x")) for _ in range(3)]
    await rig.fakes.faults.signal.until(lambda: len(rig.fakes.faults.calls) == 3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.pools.GetPool(p.GetPoolRequest(pool_id="x"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    rig.fakes.faults.gate.set()
    for call in taken:
        assert (await refused(call)).reason == "POOL_NOT_FOUND"
    assert (await refused(rig.pools.GetPool(p.GetPoolRequest(pool_id="x")))).reason == "POOL_NOT_FOUND"


async def test_a_request_that_is_too_large_is_refused(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.raw("SandboxService/RunCommand", b"\x12" + b"\xff\xff\xff\x7f" + b"x" * MAX_REQUEST_BYTES)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_server_does_not_share_its_port(rig: Rig) -> None:
    second = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    with pytest.raises(RuntimeError):
        second.add_insecure_port(f"127.0.0.1:{rig.port}")


async def test_calls_under_way_may_finish_while_the_server_stops(rig: Rig) -> None:
    rig.fakes.faults.gate = asyncio.Event()
    call = asyncio.ensure_future(rig.pools.ListPools(p.ListPoolsRequest()))
    await rig.fakes.faults.entered.wait()
    rig.drain.begin()
    stopping = asyncio.create_task(rig.server.stop(10))
    rig.fakes.faults.gate.set()
    assert len((await call).pools) == 0
    await asyncio.wait_for(stopping, 5)


async def test_a_failing_use_case_leaves_the_server_well(rig: Rig) -> None:
    rig.fakes.faults.error = Unavailable("ENGINE_UNREACHABLE", "gone")
    await refused(rig.pools.ListPools(p.ListPoolsRequest()))
    rig.fakes.faults.error = None
    assert len((await rig.pools.ListPools(p.ListPoolsRequest())).pools) == 0
