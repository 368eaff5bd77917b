"""Commands over the channel to agents, against agents on loopback that answer rightly, wrongly, or not at all."""

import asyncio
import hashlib
import hmac
import socket
from typing import Any

import grpc.aio
import pytest

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import process_pb2
from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FailureReason,
    InvalidArgument,
    LaunchFailed,
    SandpoolError,
    Unavailable,
)
from sandpool_server.domain.model import Command, CommandEndReason
from sandpool_server.runtime import GrpcAgents
from sandpool_server.runtime import agents as agents_module
from tests.support.scripted_agent import KEY, Answer, ScriptedAgent, answering, exited, hang, refusing

ECHO = Command(5.0, argv=("echo",))


async def test_the_token_is_derived_and_sent(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    await agents.wait_ready("sbx-1", address, 5)
    token = hmac.new(KEY, b"sbx-1", hashlib.sha256).hexdigest()
    assert agent.authorization == [f"Bearer {token}"]
    assert agents.token_sha256("sbx-1") == hashlib.sha256(token.encode()).hexdigest()
    assert agents.token_sha256("sbx-2") != agents.token_sha256("sbx-1")


async def test_a_command_and_its_result(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = answering(exited(3, stdout=b"out", stderr=b"err", stdout_truncated_bytes=7))
    command = Command(1.5, argv=("a", "b"), env={"X": "1"}, working_dir="/srv", user="app:app")
    result = await agents.run("sbx-1", address, command)
    assert (result.stdout, result.stderr, result.exit_code, result.signal) == (b"out", b"err", 3, None)
    assert (result.reason, result.stdout_dropped_bytes) == (CommandEndReason.EXITED, 7)
    (request,) = agent.run_requests
    assert list(request.argv) == ["a", "b"]
    assert dict(request.environment) == {"X": "1"}
    assert (request.working_directory, request.user) == ("/srv", "app:app")
    assert request.timeout.ToTimedelta().total_seconds() == 1.5


def response(**fields: Any) -> agent_pb.RunCommandResponse:
    end = {name: fields.pop(name) for name in ("exit_code", "signal", "reason") if name in fields}
    return agent_pb.RunCommandResponse(end=process_pb2.ProcessEnd(**end) if end else None, **fields)


@pytest.mark.parametrize(
    "lie",
    [
        response(),
        response(exit_code=0),
        response(exit_code=256, reason=1),
        response(exit_code=-1, reason=1),
        response(signal=0, reason=2),
        response(signal=65, reason=2),
        response(reason=1),
        response(signal=9, reason=1),
        response(exit_code=0, reason=2),
        response(exit_code=0, reason=77),
        response(exit_code=0, reason=1, stdout_truncated_bytes=-1),
        response(exit_code=0, reason=1, stderr_truncated_bytes=2**63 - 1),
    ],
    ids=str,
)
async def test_a_result_that_no_honest_agent_gives_is_refused(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, lie: agent_pb.RunCommandResponse
) -> None:
    agent.answer = answering(lie)
    with pytest.raises(Unavailable, match="no sensible answer"):
        await agents.run("sbx-1", address, ECHO)


async def test_too_much_output_is_cut_and_counted(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = answering(exited(stdout=b"x" * (1024 * 1024 + 5), stderr_truncated_bytes=2))
    result = await agents.run("sbx-1", address, ECHO)
    assert len(result.stdout) == 1024 * 1024
    assert (result.stdout_dropped_bytes, result.stderr_dropped_bytes) == (5, 2)


async def test_an_answer_beyond_all_bounds_is_not_read(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = answering(exited(stdout=b"x" * (12 * 1024 * 1024)))
    with pytest.raises(Unavailable):
        await agents.run("sbx-1", address, ECHO)


@pytest.mark.parametrize(("seconds", "nanos"), [(10**12, 0), (-5, 0), (0, -(10**9))])
async def test_a_duration_stays_within_the_servers_own_clock(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, seconds: int, nanos: int
) -> None:
    answer = exited()
    answer.duration.seconds, answer.duration.nanos = seconds, nanos
    agent.answer = answering(answer)
    assert 0 <= (await agents.run("sbx-1", address, ECHO)).duration_secs < 10


async def test_a_command_that_was_shut_down_says_so(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = answering(response(signal=9, reason=process_pb2.END_REASON_SHUT_DOWN))
    with pytest.raises(Unavailable) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.reason == "SANDBOX_STOPPED"


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (
            refusing(grpc.StatusCode.NOT_FOUND, "no x", "EXECUTABLE_NOT_FOUND"),
            FailedPrecondition,
            "EXECUTABLE_NOT_FOUND",
        ),
        (
            refusing(grpc.StatusCode.FAILED_PRECONDITION, "no sh", "SHELL_NOT_FOUND"),
            FailedPrecondition,
            "SHELL_NOT_FOUND",
        ),
        (refusing(grpc.StatusCode.FAILED_PRECONDITION, "x", "OWNED_BY_ME"), FailedPrecondition, "START_FAILED"),
        (refusing(grpc.StatusCode.INTERNAL, "x", "START_FAILED"), FailedPrecondition, "START_FAILED"),
        (refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "PROCESS_LIMIT"), Exhausted, "PROCESS_LIMIT"),
        (refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"), Unavailable, "SANDBOX_UNREACHABLE"),
        (refusing(grpc.StatusCode.UNAVAILABLE, "x", "SHUTTING_DOWN"), Unavailable, "SANDBOX_UNREACHABLE"),
        (refusing(grpc.StatusCode.UNAUTHENTICATED, "x"), Unavailable, "SANDBOX_UNREACHABLE"),
        (refusing(grpc.StatusCode.DATA_LOSS, "x"), Unavailable, "SANDBOX_UNREACHABLE"),
    ],
)
async def test_refusals(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, answer: Answer, kind: type[SandpoolError], reason: str
) -> None:
    agent.answer = answer
    with pytest.raises(kind) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("working_directory", "working_dir"),
        ("user", "user"),
        ("shell", "command"),
        ("environment", "env"),
        ("argv", "argv"),
        ("../etc", "argv"),
    ],
)
async def test_wrong_fields_have_the_callers_names(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, theirs: str, ours: str
) -> None:
    agent.answer = refusing(grpc.StatusCode.INVALID_ARGUMENT, "x", "INVALID_FIELD", (theirs, "is wrong"))
    with pytest.raises(InvalidArgument) as error:
        await agents.run("sbx-1", address, ECHO)
    assert [(v.field, v.description) for v in error.value.violations] == [(ours, "is wrong")]


async def test_an_agents_words_are_cut_and_printable(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = refusing(grpc.StatusCode.NOT_FOUND, "\x1b[31m\n" + "boo " * 1000, "EXECUTABLE_NOT_FOUND")
    with pytest.raises(FailedPrecondition) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.message.isprintable()
    assert len(error.value.message) <= 500


async def test_details_that_are_garbage_are_ignored(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    async def answer(_request: agent_pb.RunCommandRequest, context: Any) -> agent_pb.RunCommandResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        return await context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    agent.answer = answer
    with pytest.raises(FailedPrecondition, match="gone"):
        await agents.run("sbx-1", address, ECHO)


async def test_an_agent_that_hangs_is_left_after_the_deadline(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_module, "_GRACE_SECS", 0.1)
    agent.answer = hang
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="in time"):
            await agents.run("sbx-1", address, Command(0.1, argv=("sleep",)))


async def test_cancelling_reaches_the_agent(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.answer = hang
    run = asyncio.create_task(agents.run("sbx-1", address, ECHO))
    await agent.entered.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    async with asyncio.timeout(5):
        await agent.cancelled.wait()


async def test_forgetting_a_member_ends_its_calls_as_unavailable(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.answer = hang
    run = asyncio.create_task(agents.run("sbx-1", address, ECHO))
    await agent.entered.wait()
    agents.forget("sbx-1")
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable) as error:
            await run
    assert error.value.reason == "SANDBOX_STOPPED"
    agent.answer = answering(exited())
    assert (await agents.run("sbx-1", address, ECHO)).exit_code == 0


async def test_idle_channels_are_bounded(agent: ScriptedAgent, address: str) -> None:
    agents = GrpcAgents(KEY, max_channels=2)
    try:
        agent.answer = answering(exited())
        for number in range(5):
            await agents.run(f"sbx-{number}", address, ECHO)
        assert len(agents._channels) == 2
    finally:
        await agents.close()


async def test_a_port_where_nothing_listens_is_not_ready(agents: GrpcAgents) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(LaunchFailed) as failed:
            await agents.wait_ready("sbx-1", f"127.0.0.1:{bound.getsockname()[1]}", 0.05)
    assert failed.value.reason is FailureReason.NOT_READY
    assert "does not listen" in failed.value.message


async def test_an_agent_of_another_protocol_is_not_ready(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.protocol_version = 0
    with pytest.raises(LaunchFailed, match="version 0"):
        await agents.wait_ready("sbx-1", address, 0.2)


async def test_what_listens_but_is_no_agent_is_not_ready(agents: GrpcAgents) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n" * 100)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LaunchFailed) as failed:
            await agents.wait_ready("sbx-1", f"127.0.0.1:{port}", 0.3)
    assert failed.value.reason is FailureReason.NOT_READY
