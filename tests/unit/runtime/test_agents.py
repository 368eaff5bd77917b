"""Commands, run through agents on the loopback interface that send valid, invalid or no responses."""

import asyncio
import hashlib
import hmac
import socket
from typing import Any

import grpc.aio
import pytest

from sandpool_server.domain.errors import (
    Exhausted,
    FailedPrecondition,
    FailureReason,
    InvalidArgument,
    LaunchFailed,
    SandpoolError,
    Unavailable,
)
from sandpool_server.domain.model import Command, ExitReason
from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import process_pb2
from sandpool_server.runtime import GrpcAgents
from sandpool_server.runtime import agents as agents_module
from tests.support.scripted_agent import KEY, Handler, ScriptedAgent, exited, hang, refusing, responding

ECHO = Command(5.0, argv=("echo",))


async def test_derives_and_sends_token(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    await agents.wait_ready("sbx-1", address, 5)
    token = hmac.new(KEY, b"sbx-1", hashlib.sha256).hexdigest()
    assert agent.authorization == [f"Bearer {token}"]
    assert agents.token_sha256("sbx-1") == hashlib.sha256(token.encode()).hexdigest()
    assert agents.token_sha256("sbx-2") != agents.token_sha256("sbx-1")


async def test_runs_command_and_returns_its_result(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.run_handler = responding(exited(3, stdout=b"out", stderr=b"err", stdout_truncated_bytes=7))
    command = Command(1.5, argv=("a", "b"), env={"X": "1"}, working_dir="/srv", user="app:app")
    result = await agents.run("sbx-1", address, command)
    assert (result.stdout, result.stderr, result.exit_code, result.signal) == (b"out", b"err", 3, None)
    assert (result.reason, result.stdout_dropped_bytes) == (ExitReason.EXITED, 7)
    (request,) = agent.run_requests
    assert list(request.argv) == ["a", "b"]
    assert dict(request.environment) == {"X": "1"}
    assert (request.working_directory, request.user) == ("/srv", "app:app")
    assert request.timeout.ToTimedelta().total_seconds() == 1.5


def response(**fields: Any) -> agent_pb.RunCommandResponse:
    end = {name: fields.pop(name) for name in ("exit_code", "signal", "reason") if name in fields}
    return agent_pb.RunCommandResponse(exit=process_pb2.ProcessExit(**end) if end else None, **fields)


@pytest.mark.parametrize(
    "invalid",
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
async def test_rejects_invalid_result(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, invalid: agent_pb.RunCommandResponse
) -> None:
    agent.run_handler = responding(invalid)
    with pytest.raises(Unavailable, match="invalid response"):
        await agents.run("sbx-1", address, ECHO)


async def test_truncates_oversized_output_and_counts_dropped_bytes(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.run_handler = responding(exited(stdout=b"x" * (1024 * 1024 + 5), stderr_truncated_bytes=2))
    result = await agents.run("sbx-1", address, ECHO)
    assert len(result.stdout) == 1024 * 1024
    assert (result.stdout_dropped_bytes, result.stderr_dropped_bytes) == (5, 2)


async def test_rejects_oversized_response(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.run_handler = responding(exited(stdout=b"x" * (12 * 1024 * 1024)))
    with pytest.raises(Unavailable):
        await agents.run("sbx-1", address, ECHO)


@pytest.mark.parametrize(("seconds", "nanos"), [(10**12, 0), (-5, 0), (0, -(10**9))])
async def test_limits_reported_duration_to_elapsed_time(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, seconds: int, nanos: int
) -> None:
    result = exited()
    result.duration.seconds, result.duration.nanos = seconds, nanos
    agent.run_handler = responding(result)
    assert 0 <= (await agents.run("sbx-1", address, ECHO)).duration_secs < 10


async def test_reports_terminated_sandbox_when_command_was_shut_down(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.run_handler = responding(response(signal=9, reason=process_pb2.EXIT_REASON_SHUT_DOWN))
    with pytest.raises(Unavailable) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.reason == "SANDBOX_TERMINATED"


@pytest.mark.parametrize(
    ("handler", "kind", "reason"),
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
async def test_converts_refusals(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, handler: Handler, kind: type[SandpoolError], reason: str
) -> None:
    agent.run_handler = handler
    with pytest.raises(kind) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("agent_field", "api_field"),
    [
        ("working_directory", "working_dir"),
        ("user", "user"),
        ("shell", "command"),
        ("environment", "env"),
        ("argv", "argv"),
        ("../etc", "argv"),
    ],
)
async def test_converts_field_names_of_agent_to_names_of_api(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, agent_field: str, api_field: str
) -> None:
    agent.run_handler = refusing(grpc.StatusCode.INVALID_ARGUMENT, "x", "INVALID_FIELD", (agent_field, "is wrong"))
    with pytest.raises(InvalidArgument) as error:
        await agents.run("sbx-1", address, ECHO)
    assert [(v.field, v.description) for v in error.value.violations] == [(api_field, "is wrong")]


async def test_truncates_and_cleans_message_of_agent(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.run_handler = refusing(grpc.StatusCode.NOT_FOUND, "\x1b[31m\n" + "boo " * 1000, "EXECUTABLE_NOT_FOUND")
    with pytest.raises(FailedPrecondition) as error:
        await agents.run("sbx-1", address, ECHO)
    assert error.value.message.isprintable()
    assert len(error.value.message) <= 500


async def test_ignores_invalid_status_details(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    async def abort(_request: agent_pb.RunCommandRequest, context: Any) -> agent_pb.RunCommandResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        return await context.abort(grpc.StatusCode.NOT_FOUND, "no such file")

    agent.run_handler = abort
    with pytest.raises(FailedPrecondition, match="no such file"):
        await agents.run("sbx-1", address, ECHO)


async def test_unresponsive_agent_is_unavailable_after_deadline(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_module, "_GRACE_SECS", 0.1)
    agent.run_handler = hang
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="in time"):
            await agents.run("sbx-1", address, Command(0.1, argv=("sleep",)))


async def test_cancels_call_at_the_agent(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.run_handler = hang
    run = asyncio.create_task(agents.run("sbx-1", address, ECHO))
    await agent.entered.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    async with asyncio.timeout(5):
        await agent.cancelled.wait()


async def test_forget_ends_calls_as_unavailable(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.run_handler = hang
    run = asyncio.create_task(agents.run("sbx-1", address, ECHO))
    await agent.entered.wait()
    agents.forget("sbx-1")
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable) as error:
            await run
    assert error.value.reason == "SANDBOX_TERMINATED"
    agent.run_handler = responding(exited())
    assert (await agents.run("sbx-1", address, ECHO)).exit_code == 0


async def test_limits_number_of_idle_channels(agent: ScriptedAgent, address: str) -> None:
    agents = GrpcAgents(KEY, max_channels=2)
    try:
        agent.run_handler = responding(exited())
        for number in range(5):
            await agents.run(f"sbx-{number}", address, ECHO)
        assert len(agents._channels) == 2
    finally:
        await agents.close()


async def test_closed_port_is_not_ready(agents: GrpcAgents) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(LaunchFailed) as failed:
            await agents.wait_ready("sbx-1", f"127.0.0.1:{bound.getsockname()[1]}", 0.05)
    assert failed.value.reason is FailureReason.READINESS_TIMEOUT
    assert "does not listen" in failed.value.message


async def test_agent_with_other_protocol_version_is_not_ready(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.protocol_version = 0
    with pytest.raises(LaunchFailed, match="version 0"):
        await agents.wait_ready("sbx-1", address, 0.2)


async def test_server_that_is_not_an_agent_is_not_ready(agents: GrpcAgents) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n" * 100)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LaunchFailed) as failed:
            await agents.wait_ready("sbx-1", f"127.0.0.1:{port}", 0.3)
    assert failed.value.reason is FailureReason.READINESS_TIMEOUT
