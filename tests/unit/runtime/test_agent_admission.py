"""How members are set up, handed over and probed, against agents on loopback; and the fake that others test with."""

import asyncio
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool.agent.v1 import process_pb2
from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command
from sandpool_server.ports import Agents, ImageConfig
from sandpool_server.runtime import GrpcAgents
from tests.support.agents_contract import MISSING_PROGRAM, AgentsContract, spec
from tests.support.fake_agents import SilentAgents
from tests.support.fake_runtime import IMAGE as FAKE_IMAGE
from tests.support.fake_runtime import FakeRuntime
from tests.support.members import make_member
from tests.support.scripted_agent import KEY, ScriptedAgent, answering, entrypoint_state, exited, hang, refusing

IMAGE = ImageConfig("sha256:1", {"PATH": "/bin", "A": "b", "": "x"}, "/srv", "app")


async def test_configure_sends_what_image_and_spec_say(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    first_spec = spec(entrypoint=("serve", "-x"), env=(("B", "c"),), ephemeral_disk_mb=7)
    await agents.configure("sbx-1", address, IMAGE, first_spec)
    await agents.configure("sbx-1", address, IMAGE, spec())
    await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=("serve",), secret_names=("KEY",)))
    first, second, third = agent.configure_requests
    assert dict(first.defaults.environment) == {"PATH": "/bin", "A": "b"}
    assert dict(first.environment) == {"B": "c"}
    assert (first.defaults.working_directory, first.defaults.user) == ("/srv", "app")
    assert list(first.entrypoint.argv) == ["serve", "-x"]
    assert first.max_file_bytes == 7 * 1024 * 1024
    assert not second.HasField("entrypoint")
    assert not third.HasField("entrypoint")


async def test_an_entrypoint_that_cannot_start_fails_the_launch(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.configure_error = "there is no serve"
    with pytest.raises(LaunchFailed, match="entrypoint could not be started: there is no serve") as failed:
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=("serve",)))
    assert failed.value.reason is FailureReason.START_FAILED


async def test_admitting_sends_the_owners_part_alone(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    await agents.admit("sbx-1", address, {"A": "1"})
    await agents.admit("sbx-1", address, {}, ("serve", "-x"))
    first, second = agent.configure_requests
    assert first == agent_pb.ConfigureRequest(environment={"A": "1"})
    assert second == agent_pb.ConfigureRequest(entrypoint=agent_pb.Entrypoint(argv=("serve", "-x")))


async def test_a_claim_uses_the_channel_of_the_launch(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    peers: set[str] = set()

    async def answer(_request: agent_pb.ConfigureRequest, context: Any) -> agent_pb.ConfigureResponse:
        peers.add(context.peer())
        return entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE)

    agent.configure_answer = answer
    await agents.configure("sbx-1", address, IMAGE, spec())
    for _ in range(3):
        await agents.admit("sbx-1", address, {"A": "1"})
    assert len(peers) == 1


SECRET = "planted-value"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (grpc.StatusCode.NOT_FOUND, "EXECUTABLE_NOT_FOUND", "executable not found"),
        (grpc.StatusCode.NOT_FOUND, "INTERPRETER_NOT_FOUND", "interpreter not found"),
        (grpc.StatusCode.FAILED_PRECONDITION, "EXECUTABLE_FORMAT", "executable format"),
        (grpc.StatusCode.FAILED_PRECONDITION, "ENTRYPOINT_CONFLICT", "entrypoint conflict"),
        (grpc.StatusCode.INVALID_ARGUMENT, "USER_UNKNOWN", "user unknown"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROCESS_LIMIT", "process limit"),
        (grpc.StatusCode.INTERNAL, "START_FAILED", "start failed"),
    ],
)
async def test_an_entrypoint_refused_at_the_claim_fails_it_in_our_own_words(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, code: grpc.StatusCode, reason: str, words: str
) -> None:
    agent.configure_answer = refusing(code, f"the environment is KEY={SECRET}", reason)
    with pytest.raises(LaunchFailed) as failed:
        await agents.admit("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert failed.value.reason is FailureReason.START_FAILED
    assert failed.value.message == f"the entrypoint 'serve' could not be started: {words}"
    assert SECRET not in "".join(traceback.format_exception(failed.value))


async def test_an_environment_that_is_refused_fails_the_claim(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    answer = refusing(grpc.StatusCode.INVALID_ARGUMENT, SECRET, "INVALID_FIELD", ("environment", SECRET))
    agent.configure_answer = answer
    with pytest.raises(LaunchFailed, match="environment was not accepted") as failed:
        await agents.admit("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert SECRET not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(LaunchFailed, match="larger than"):
        await agents.admit("sbx-1", address, {"KEY": "x" * 5_000_000})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"),
        (grpc.StatusCode.FAILED_PRECONDITION, "OWNED_BY_ME"),
        (grpc.StatusCode.INTERNAL, ""),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
        (grpc.StatusCode.DATA_LOSS, "START_FAILED"),
        (grpc.StatusCode.UNIMPLEMENTED, ""),
    ],
)
async def test_a_member_that_refuses_its_owner_for_no_good_reason_is_unavailable(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, code: grpc.StatusCode, reason: str
) -> None:
    agent.configure_answer = refusing(code, SECRET, reason)
    with pytest.raises(Unavailable) as error:
        await agents.admit("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert SECRET not in "".join(traceback.format_exception(error.value))


NONE, FAILED = process_pb2.ENTRYPOINT_STATE_NONE, process_pb2.ENTRYPOINT_STATE_FAILED
RUNNING, ENDED = process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_ENDED


@pytest.mark.parametrize(
    ("entrypoint", "state", "good"),
    [
        ((), NONE, True),
        ((), RUNNING, True),
        ((), ENDED, False),
        ((), FAILED, False),
        ((), process_pb2.ENTRYPOINT_STATE_UNSPECIFIED, False),
        ((), 77, False),
        (("serve",), RUNNING, True),
        (("serve",), ENDED, True),
        (("serve",), NONE, False),
        (("serve",), FAILED, False),
    ],
)
async def test_an_agent_must_say_that_it_did_what_it_was_told(
    agents: GrpcAgents,
    agent: ScriptedAgent,
    address: str,
    entrypoint: tuple[str, ...],
    state: process_pb2.EntrypointState.ValueType,
    good: bool,
) -> None:
    agent.configure_answer = answering(entrypoint_state(state))
    if good:
        await agents.admit("sbx-1", address, {}, entrypoint)
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=entrypoint))
        return
    with pytest.raises(Unavailable):
        await agents.admit("sbx-1", address, {}, entrypoint)
    with pytest.raises(LaunchFailed):
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=entrypoint))


async def test_answers_larger_than_honest_ones_are_not_read(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.version = "x" * 100_000
    agent.configure_answer = answering(entrypoint_state(NONE, error="x" * 100_000))
    with pytest.raises(Unavailable):
        await agents.probe("sbx-1", address)
    with pytest.raises(Unavailable):
        await agents.admit("sbx-1", address, {})
    with pytest.raises(LaunchFailed):
        await agents.configure("sbx-1", address, IMAGE, spec())


async def test_a_probe_takes_members_of_an_older_server(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.protocol_version = 1
    await agents.probe("sbx-1", address)
    agent.protocol_version = 0
    with pytest.raises(Unavailable):
        await agents.probe("sbx-1", address)


async def test_deadlines_are_the_classs_own(agent: ScriptedAgent, address: str) -> None:
    agent.configure_answer = hang
    agents = GrpcAgents(KEY, configure_secs=0.1, admit_secs=0.1)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await agents.admit("sbx-1", address, {})
            with pytest.raises(LaunchFailed):
                await agents.configure("sbx-1", address, IMAGE, spec())
        agent.configure_answer = None
        await agents.admit("sbx-1", address, {})
    finally:
        await agents.close()


async def test_forgetting_a_member_ends_its_admission(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    entered = asyncio.Event()

    async def never(_request: agent_pb.ConfigureRequest, _context: Any) -> agent_pb.ConfigureResponse:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    agent.configure_answer = never
    admission = asyncio.create_task(agents.admit("sbx-1", address, {}))
    await entered.wait()
    agents.forget("sbx-1")
    with pytest.raises(Unavailable):
        await admission
    entered.clear()
    admission = asyncio.create_task(agents.admit("sbx-1", address, {}))
    await entered.wait()
    admission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admission


async def test_an_agent_that_takes_connections_and_says_nothing_is_given_up_in_time(agents: GrpcAgents) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for call in (agents.probe("sbx-1", address), agents.admit("sbx-1", address, {})):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call
            assert time.monotonic() - began < 2.5


async def test_one_that_was_away_answers_at_once_when_it_is_back(agents: GrpcAgents, agent: ScriptedAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    for _ in range(5):
        with pytest.raises(Unavailable):
            await agents.probe("sbx-1", address)
    server = grpc.aio.server()
    agent_grpc.add_AgentServiceServicer_to_server(agent, server)
    server.add_insecure_port(address)
    await server.start()
    try:
        async with asyncio.timeout(1):
            await agents.probe("sbx-1", address)
    finally:
        await server.stop(None)


async def test_silence_of_one_call_leaves_the_others_on_the_channel_alone(agent: ScriptedAgent, address: str) -> None:
    go = asyncio.Event()

    async def later(_request: agent_pb.RunCommandRequest, _context: Any) -> agent_pb.RunCommandResponse:
        await go.wait()
        return exited(4)

    agent.configure_answer, agent.answer = hang, later
    agents = GrpcAgents(KEY, admit_secs=0.1)
    try:
        run = asyncio.create_task(agents.run("sbx-1", address, Command(5.0, argv=("echo",))))
        await agent.entered.wait()
        with pytest.raises(Unavailable):
            await agents.admit("sbx-1", address, {})
        go.set()
        assert (await run).exit_code == 4
    finally:
        await agents.close()


@dataclass
class FakePlace:
    """A container in memory with its agent."""

    runtime: FakeRuntime
    silent: SilentAgents
    member_id: str
    address: str
    image: ImageConfig

    @property
    def agents(self) -> Agents:
        return self.silent

    async def env(self) -> dict[str, str]:
        return self.silent.env_of(self.member_id)

    async def entrypoint_runs(self) -> bool:
        return self.silent.entrypoint_started(self.member_id)

    async def silence(self) -> None:
        self.silent.silent.add(self.member_id)

    async def revive(self) -> None:
        self.silent.silent.discard(self.member_id)

    async def end(self) -> None:
        self.runtime.die(self.member_id)


class TestFakeAgents(AgentsContract):
    """The fake keeps the contract."""

    @pytest.fixture
    async def place(self) -> FakePlace:
        runtime = FakeRuntime()
        agents = SilentAgents(runtime, deadline_secs=0.05)
        agents.bad_entrypoints.add(MISSING_PROGRAM)
        member = make_member(FAKE_IMAGE)
        address = await runtime.launch(member, agents.token_sha256(member.id))
        return FakePlace(runtime, agents, member.id, address, await runtime.ensure_image(FAKE_IMAGE))
