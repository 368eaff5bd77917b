"""Calls that the server proxies to hostile agents: each caller gets a clear error, and no other call is affected."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyProto
from google.rpc import error_details_pb2, status_pb2

from sandpool.v1 import file_service_pb2, monitor_service_pb2, port_service_pb2, process_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool_server.domain.errors import (
    Aborted,
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    OutOfRange,
    SandpoolError,
    Unavailable,
)
from sandpool_server.runtime import proxy_responses
from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.proxy import GrpcProxy
from tests.support.hostile_agent import HostileAgent, sending, serving

KEY = b"k" * 32
INSTANCE = "sbx-1"
GET = "/sandpool.v1.ProcessService/GetProcess"
ATTACH = "/sandpool.v1.ProcessService/AttachProcess"
CONNECT = "/sandpool.v1.ProcessService/ConnectProcess"
READ = "/sandpool.v1.FileService/ReadFile"
WRITE = "/sandpool.v1.FileService/WriteFile"
TUNNEL = "/sandpool.v1.PortService/OpenTunnel"
LOGS = "/sandpool.v1.MonitorService/ReadLogs"
STDOUT = process_pb2.OUTPUT_STREAM_STDOUT


class Rig:
    """A proxy that is connected to one hostile agent."""

    def __init__(self, agents: GrpcAgents, agent: HostileAgent, address: str) -> None:
        self.agents = agents
        self.proxy = GrpcProxy(agents.connect)
        self.agent = agent
        self.address = address

    async def get(self, timeout_secs: float = 5.0) -> Any:
        request = pb.GetProcessRequest(sandbox_id="s", process_id="p")
        return await self.proxy.call(INSTANCE, self.address, GET, once(request), timeout_secs)

    def stream(self, method: str, request: Any) -> Any:
        return self.proxy.stream(INSTANCE, self.address, method, once(request))

    def attach(self, **fields: Any) -> Any:
        return self.stream(ATTACH, pb.AttachProcessRequest(sandbox_id="s", process_id="p", **fields))


async def once(request: Any) -> AsyncIterator[Any]:
    yield request


@asynccontextmanager
async def connected() -> AsyncIterator[Rig]:
    agents, agent = GrpcAgents(KEY), HostileAgent()
    async with serving(agent) as address:
        try:
            yield Rig(agents, agent, address)
        finally:
            await agents.close()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with connected() as made:
        yield made


def output(**fields: Any) -> bytes:
    printed = process_pb2.ProcessOutput(**{"stream": STDOUT, "offset": 0, "data": b"a", **fields})
    return event(output=printed)


def event(**fields: Any) -> bytes:
    data: bytes = pb.AttachProcessResponse(event=process_pb2.ProcessEvent(**fields)).SerializeToString()
    return data


def record(**fields: Any) -> bytes:
    data: bytes = pb.GetProcessResponse(process=process_pb2.Process(**fields)).SerializeToString()
    return data


def with_unknown(data: bytes) -> bytes:
    """Return the message with an additional field that no version defines."""
    return data + b"\xf2\x3f\x03new"


async def test_forwards_valid_responses_without_unknown_fields(rig: Rig) -> None:
    rig.agent.behave = sending(with_unknown(record(process_id="p")))
    response = await rig.get()
    assert response.process.process_id == "p"
    assert response.SerializeToString() == record(process_id="p")
    rig.agent.behave = sending(output(), with_unknown(event(exited=process_pb2.ProcessExit(exit_code=0))))
    async with aclosing(rig.attach()) as responses:
        seen = [response.event.WhichOneof("event") async for response in responses]
    assert seen == ["output", "exited"]


@pytest.mark.parametrize(
    "response",
    [
        b"\xff\xff\xff",
        record(start_time={"seconds": 1 << 60}),
        record(end_time={"nanos": -1}),
        record(stdin_bytes=-1),
        record(stdout={"start_offset": (1 << 63) - 1}),
        record(stdout={"end_offset": -5}),
    ],
    ids=["garbage", "year out of range", "negative nanos", "negative count", "huge count", "negative offset"],
)
async def test_rejects_invalid_response(rig: Rig, response: bytes) -> None:
    rig.agent.behave = sending(response)
    with pytest.raises(Unavailable, match="invalid response"):
        await rig.get()


@pytest.mark.parametrize(
    ("method", "request_", "response"),
    [
        (ATTACH, pb.AttachProcessRequest(), b"\xff\xff"),
        (ATTACH, pb.AttachProcessRequest(), b""),
        (ATTACH, pb.AttachProcessRequest(), event()),
        (ATTACH, pb.AttachProcessRequest(), output(data=b"")),
        (ATTACH, pb.AttachProcessRequest(), output(data=bytes(65537))),
        (ATTACH, pb.AttachProcessRequest(), output(offset=-1)),
        (ATTACH, pb.AttachProcessRequest(), output(stream=7)),
        (ATTACH, pb.AttachProcessRequest(), event(gap={"start_offset": -1})),
        (ATTACH, pb.AttachProcessRequest(), bytes(11 * 1024 * 1024)),
        (READ, file_service_pb2.ReadFileRequest(), b""),
        (
            READ,
            file_service_pb2.ReadFileRequest(),
            file_service_pb2.ReadFileResponse(data=bytes(1024 * 1024 + 1)).SerializeToString(),
        ),
        (
            TUNNEL,
            port_service_pb2.OpenTunnelRequest(),
            port_service_pb2.OpenTunnelResponse(data=bytes(65537)).SerializeToString(),
        ),
        (
            LOGS,
            monitor_service_pb2.ReadLogsRequest(),
            monitor_service_pb2.ReadLogsResponse(dropped_entries=-1).SerializeToString(),
        ),
    ],
)
async def test_rejects_invalid_message_of_stream(rig: Rig, method: str, request_: Any, response: bytes) -> None:
    rig.agent.behave = sending(response)
    with pytest.raises(Unavailable) as failed:
        async with aclosing(rig.stream(method, request_)) as responses:
            [response async for response in responses]
    assert failed.value.reason == "SANDBOX_UNREACHABLE"


def refusing(code: grpc.StatusCode, message: str, *details: Any) -> Any:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)

    async def behave(_method: str, context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(code, message)

    return behave


def info(reason: str, resource: str = "", domain: str = "sandpool") -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"resource": resource})


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND", NotFound),
        (grpc.StatusCode.NOT_FOUND, "PROCESS_NOT_FOUND", NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, "FILE_ALREADY_EXISTS", AlreadyExists),
        (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", Aborted),
        (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE", OutOfRange),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", Exhausted),
        (grpc.StatusCode.FAILED_PRECONDITION, "IS_A_DIRECTORY", FailedPrecondition),
        (grpc.StatusCode.NOT_FOUND, "EXECUTABLE_NOT_FOUND", FailedPrecondition),
        (grpc.StatusCode.UNAVAILABLE, "PORT_UNREACHABLE", Unavailable),
    ],
)
async def test_converts_refusal_to_error_of_its_reason(
    rig: Rig, code: grpc.StatusCode, reason: str, kind: type[SandpoolError]
) -> None:
    rig.agent.behave = refusing(code, "it\x1b[31m is\nso", info(reason, "/a\x00b"))
    with pytest.raises(kind) as failed:
        await rig.get()
    assert failed.value.reason == reason
    assert all(character.isprintable() for character in failed.value.message)
    if isinstance(failed.value, NotFound | AlreadyExists | Aborted):
        assert failed.value.resource_name == "/a b"


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        (grpc.StatusCode.NOT_FOUND, (), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.NOT_FOUND, (info("POOL_NOT_FOUND"),), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.FAILED_PRECONDITION, (info("POOL_IN_USE"),), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.FAILED_PRECONDITION, (info("IS_A_DIRECTORY", domain="evil"),), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.UNAUTHENTICATED, (info("INTERNAL"),), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.INTERNAL, (), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.OK, (), "SANDBOX_UNREACHABLE"),
        (grpc.StatusCode.UNIMPLEMENTED, (), "AGENT_VERSION_UNSUPPORTED"),
    ],
)
async def test_ignores_text_of_invalid_refusal(rig: Rig, code: grpc.StatusCode, details: Any, reason: str) -> None:
    rig.agent.behave = refusing(code, "evil text", *details) if code is not grpc.StatusCode.OK else sending()
    with pytest.raises(SandpoolError) as failed:
        await rig.get()
    assert failed.value.reason == reason
    assert "evil" not in failed.value.message


async def test_truncates_and_cleans_field_violations(rig: Rig) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    wrong = [violation(field="working_directory", description="x" * 10_000)]
    wrong += [violation(field=f"f{i}\n", description="no") for i in range(100)]
    rig.agent.behave = refusing(
        grpc.StatusCode.INVALID_ARGUMENT, "no", error_details_pb2.BadRequest(field_violations=wrong)
    )
    with pytest.raises(InvalidArgument) as failed:
        await rig.get()
    assert failed.value.violations[0].field == "working_dir"
    assert len(failed.value.violations) == 8
    assert all(len(one.description) <= 500 and one.field.isprintable() for one in failed.value.violations)


async def test_rejects_oversized_trailers(rig: Rig) -> None:
    async def behave(_method: str, context: Any) -> None:
        context.set_trailing_metadata((("x", "y" * 500_000),))

    rig.agent.behave = behave
    with pytest.raises(SandpoolError) as failed:
        await rig.get()
    assert failed.value.reason == "SANDBOX_UNREACHABLE"


async def test_unresponsive_agent_is_unavailable_at_deadline(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="in time"):
        await rig.get(timeout_secs=0.1)
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()
    monkeypatch.setattr(proxy_responses, "_GRACE_SECS", 0.0)
    with pytest.raises(Unavailable, match="stopped sending data"):
        async with aclosing(rig.attach(keep_alive_interval={"nanos": 100_000_000})) as responses:
            [response async for response in responses]


async def test_rejects_bytes_that_are_not_http() -> None:
    async def garbage(_reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)) * 100)
        await writer.drain()
        writer.close()

    agents = GrpcAgents(KEY)
    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    try:
        address = "{}:{}".format(*server.sockets[0].getsockname())
        with pytest.raises(Unavailable):
            await Rig(agents, HostileAgent(), address).get()
    finally:
        await agents.close()
        server.close()
        await server.wait_closed()


async def test_endless_output_waits_for_its_reader(rig: Rig) -> None:
    """Another sandbox is served in the meantime."""
    message = output(data=bytes(65536))
    rig.agent.behave = lambda method, context: rig.agent.flood(method, context, message)
    async with aclosing(rig.attach()) as responses, connected() as other:
        await anext(responses)
        other.agent.behave = sending(record(process_id="other"))
        before = -1
        while before != rig.agent.sent_bytes:
            before = rig.agent.sent_bytes
            for _ in range(20):
                assert (await other.get()).process.process_id == "other"
        assert before < 16 * 1024 * 1024
        await anext(responses)
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()


async def test_reports_invalid_requests_of_the_caller(rig: Rig) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield pb.ConnectProcessRequest(attach=pb.AttachProcessRequest(process_id="p"))
        raise InvalidArgument(FieldViolation("input.data", "is too long"))

    with pytest.raises(InvalidArgument, match="too long"):
        async with aclosing(rig.proxy.stream(INSTANCE, rig.address, CONNECT, requests())) as responses:
            [response async for response in responses]
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()

    async def parts() -> AsyncIterator[Any]:
        yield file_service_pb2.WriteFileRequest(target=file_service_pb2.WriteFileTarget(path="/a"))
        raise InvalidArgument(FieldViolation("data", "is too long"))

    with pytest.raises(InvalidArgument, match="too long"):
        await rig.proxy.call(INSTANCE, rig.address, WRITE, parts(), 5.0)


async def test_refused_upload_ends_immediately(rig: Rig) -> None:
    rig.agent.behave = refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info("DISK_FULL", "/a"))

    async def slow() -> AsyncIterator[Any]:
        yield file_service_pb2.WriteFileRequest(target=file_service_pb2.WriteFileTarget(path="/a"))
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(Exhausted, match="full"):
            await rig.proxy.call(INSTANCE, rig.address, WRITE, slow(), 60.0)


async def test_cancelled_call_is_cancelled_in_the_sandbox(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.get(60.0))
    async with asyncio.timeout(5):
        await rig.agent.entered.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await rig.agent.cancelled.wait()


async def test_terminated_sandbox_ends_its_calls(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.get(60.0))
    async with asyncio.timeout(5):
        await rig.agent.entered.wait()
        rig.agents.forget(INSTANCE)
        with pytest.raises(Unavailable) as failed:
            await waiting
    assert failed.value.reason == "SANDBOX_TERMINATED"
