"""Calls that are passed on to agents which are hostile: each caller gets a clean error, and nobody else notices."""

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
from sandpool_server.runtime import relay_answers
from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.relay import GrpcRelay
from tests.support.hostile_agent import HostileAgent, saying, serving

KEY = b"k" * 32
MEMBER = "sbx-1"
GET = "/sandpool.v1.ProcessService/GetProcess"
ATTACH = "/sandpool.v1.ProcessService/AttachProcess"
CONNECT = "/sandpool.v1.ProcessService/ConnectProcess"
READ = "/sandpool.v1.FileService/ReadFile"
WRITE = "/sandpool.v1.FileService/WriteFile"
TUNNEL = "/sandpool.v1.PortService/OpenTunnel"
LOGS = "/sandpool.v1.MonitorService/ReadLogs"
STDOUT = process_pb2.OUTPUT_STREAM_STDOUT


class Rig:
    """A relay, and one hostile agent that it speaks to."""

    def __init__(self, agents: GrpcAgents, agent: HostileAgent, address: str) -> None:
        self.agents = agents
        self.relay = GrpcRelay(agents.connect)
        self.agent = agent
        self.address = address

    async def get(self, timeout_secs: float = 5.0) -> Any:
        request = pb.GetProcessRequest(sandbox_id="s", process_id="p")
        return await self.relay.call(MEMBER, self.address, GET, once(request), timeout_secs)

    def stream(self, method: str, request: Any) -> Any:
        return self.relay.stream(MEMBER, self.address, method, once(request))

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
    """The message with a field that no version has."""
    return data + b"\xf2\x3f\x03new"


async def test_what_is_right_comes_through_without_what_nobody_knows(rig: Rig) -> None:
    rig.agent.behave = saying(with_unknown(record(process_id="p")))
    answer = await rig.get()
    assert answer.process.process_id == "p"
    assert answer.SerializeToString() == record(process_id="p")
    rig.agent.behave = saying(output(), with_unknown(event(ended=process_pb2.ProcessEnd(exit_code=0))))
    async with aclosing(rig.attach()) as answers:
        seen = [answer.event.WhichOneof("event") async for answer in answers]
    assert seen == ["output", "ended"]


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff",
        record(start_time={"seconds": 1 << 60}),
        record(end_time={"nanos": -1}),
        record(stdin_bytes=-1),
        record(stdout={"begin": (1 << 63) - 1}),
        record(stdout={"end": -5}),
    ],
    ids=["garbage", "a year that is none", "negative nanos", "negative count", "huge count", "negative offset"],
)
async def test_an_answer_that_no_honest_agent_gives(rig: Rig, answer: bytes) -> None:
    rig.agent.behave = saying(answer)
    with pytest.raises(Unavailable, match="no sensible answer"):
        await rig.get()


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [
        (ATTACH, pb.AttachProcessRequest(), b"\xff\xff"),
        (ATTACH, pb.AttachProcessRequest(), b""),
        (ATTACH, pb.AttachProcessRequest(), event()),
        (ATTACH, pb.AttachProcessRequest(), output(data=b"")),
        (ATTACH, pb.AttachProcessRequest(), output(data=bytes(65537))),
        (ATTACH, pb.AttachProcessRequest(), output(offset=-1)),
        (ATTACH, pb.AttachProcessRequest(), output(stream=7)),
        (ATTACH, pb.AttachProcessRequest(), event(gap={"begin": -1})),
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
            monitor_service_pb2.ReadLogsResponse(lost_entries=-1).SerializeToString(),
        ),
    ],
)
async def test_a_stream_of_what_no_honest_agent_sends(rig: Rig, method: str, request_: Any, answer: bytes) -> None:
    rig.agent.behave = saying(answer)
    with pytest.raises(Unavailable) as told:
        async with aclosing(rig.stream(method, request_)) as answers:
            [answer async for answer in answers]
    assert told.value.reason == "SANDBOX_UNREACHABLE"


def refusing(code: grpc.StatusCode, message: str, *details: Any) -> Any:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        box = AnyProto()
        box.Pack(detail)
        status.details.append(box)

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
async def test_a_refusal_becomes_the_error_of_its_reason(
    rig: Rig, code: grpc.StatusCode, reason: str, kind: type[SandpoolError]
) -> None:
    rig.agent.behave = refusing(code, "it\x1b[31m is\nso", info(reason, "/a\x00b"))
    with pytest.raises(kind) as told:
        await rig.get()
    assert told.value.reason == reason
    assert all(character.isprintable() for character in told.value.message)
    if isinstance(told.value, NotFound | AlreadyExists | Aborted):
        assert told.value.resource_name == "/a b"


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
        (grpc.StatusCode.UNIMPLEMENTED, (), "SANDBOX_TOO_OLD"),
    ],
)
async def test_of_a_refusal_that_is_none_nothing_is_believed(
    rig: Rig, code: grpc.StatusCode, details: Any, reason: str
) -> None:
    rig.agent.behave = refusing(code, "evil words", *details) if code is not grpc.StatusCode.OK else saying()
    with pytest.raises(SandpoolError) as told:
        await rig.get()
    assert told.value.reason == reason
    assert "evil" not in told.value.message


async def test_wrong_fields_are_told_cut_and_cleaned(rig: Rig) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    wrong = [violation(field="working_directory", description="x" * 10_000)]
    wrong += [violation(field=f"f{i}\n", description="no") for i in range(100)]
    rig.agent.behave = refusing(
        grpc.StatusCode.INVALID_ARGUMENT, "no", error_details_pb2.BadRequest(field_violations=wrong)
    )
    with pytest.raises(InvalidArgument) as told:
        await rig.get()
    assert told.value.violations[0].field == "working_dir"
    assert len(told.value.violations) == 8
    assert all(len(one.description) <= 500 and one.field.isprintable() for one in told.value.violations)


async def test_trailers_without_end(rig: Rig) -> None:
    async def behave(_method: str, context: Any) -> None:
        context.set_trailing_metadata((("x", "y" * 500_000),))

    rig.agent.behave = behave
    with pytest.raises(SandpoolError) as told:
        await rig.get()
    assert told.value.reason == "SANDBOX_UNREACHABLE"


async def test_an_agent_that_never_answers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="in time"):
        await rig.get(timeout_secs=0.1)
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()
    monkeypatch.setattr(relay_answers, "_GRACE_SECS", 0.0)
    with pytest.raises(Unavailable, match="silent"):
        async with aclosing(rig.attach(keep_alive_secs=0.1)) as answers:
            [answer async for answer in answers]


async def test_bytes_that_are_no_http() -> None:
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
    """And a sandbox beside it is served meanwhile."""
    message = output(data=bytes(65536))
    rig.agent.behave = lambda method, context: rig.agent.flood(method, context, message)
    async with aclosing(rig.attach()) as answers, connected() as other:
        await anext(answers)
        other.agent.behave = saying(record(process_id="other"))
        before = -1
        while before != rig.agent.sent_bytes:
            before = rig.agent.sent_bytes
            for _ in range(20):
                assert (await other.get()).process.process_id == "other"
        assert before < 16 * 1024 * 1024
        await anext(answers)
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()


async def test_what_is_wrong_with_the_requests_is_what_the_caller_hears(rig: Rig) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield pb.ConnectProcessRequest(attach=pb.AttachProcessRequest(process_id="p"))
        raise InvalidArgument(FieldViolation("input.data", "is too long"))

    with pytest.raises(InvalidArgument, match="too long"):
        async with aclosing(rig.relay.stream(MEMBER, rig.address, CONNECT, requests())) as answers:
            [answer async for answer in answers]
    async with asyncio.timeout(5):
        await rig.agent.cancelled.wait()

    async def parts() -> AsyncIterator[Any]:
        yield file_service_pb2.WriteFileRequest(target=file_service_pb2.WriteFileTarget(path="/a"))
        raise InvalidArgument(FieldViolation("data", "is too long"))

    with pytest.raises(InvalidArgument, match="too long"):
        await rig.relay.call(MEMBER, rig.address, WRITE, parts(), 5.0)


async def test_an_upload_that_is_refused_in_the_middle_ends_at_once(rig: Rig) -> None:
    rig.agent.behave = refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", info("DISK_FULL", "/a"))

    async def slow() -> AsyncIterator[Any]:
        yield file_service_pb2.WriteFileRequest(target=file_service_pb2.WriteFileTarget(path="/a"))
        await asyncio.Event().wait()

    async with asyncio.timeout(5):
        with pytest.raises(Exhausted, match="full"):
            await rig.relay.call(MEMBER, rig.address, WRITE, slow(), 60.0)


async def test_a_caller_who_leaves_ends_the_call_in_the_sandbox(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.get(60.0))
    async with asyncio.timeout(5):
        await rig.agent.entered.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await rig.agent.cancelled.wait()


async def test_a_sandbox_that_ends_ends_its_calls(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.get(60.0))
    async with asyncio.timeout(5):
        await rig.agent.entered.wait()
        rig.agents.forget(MEMBER)
        with pytest.raises(Unavailable) as told:
            await waiting
    assert told.value.reason == "SANDBOX_STOPPED"
