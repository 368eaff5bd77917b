"""Configuration, activation and probes of agents on the loopback interface, and the fake agents of other tests."""

import asyncio
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command
from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool_server.gen.agent.v1 import process_pb2
from sandpool_server.interfaces import Agents, ImageConfig
from sandpool_server.runtime import GrpcAgents
from sandpool_server.runtime.agents import OLDEST_PROTOCOL_VERSION
from tests.support.agents_contract import MISSING_PROGRAM, AgentsContract, spec
from tests.support.fake_agents import SilentAgents
from tests.support.fake_runtime import IMAGE as FAKE_IMAGE
from tests.support.fake_runtime import FakeRuntime
from tests.support.instances import make_instance
from tests.support.scripted_agent import KEY, ScriptedAgent, entrypoint_state, exited, hang, refusing, responding

IMAGE = ImageConfig("sha256:1", {"PATH": "/bin", "A": "b", "": "x"}, "/srv", "app")


async def test_configure_sends_values_of_image_and_spec(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
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


async def test_launch_fails_when_entrypoint_cannot_start(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    agent.configure_error = "there is no serve"
    with pytest.raises(LaunchFailed, match="cannot start the entrypoint: there is no serve") as failed:
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=("serve",)))
    assert failed.value.reason is FailureReason.START_FAILED


async def test_activate_sends_only_values_of_the_sandbox(
    agents: GrpcAgents, agent: ScriptedAgent, address: str
) -> None:
    await agents.activate("sbx-1", address, {"A": "1"})
    await agents.activate("sbx-1", address, {}, ("serve", "-x"))
    first, second = agent.configure_requests
    assert first == agent_pb.ConfigureRequest(environment={"A": "1"})
    assert second == agent_pb.ConfigureRequest(entrypoint=agent_pb.Entrypoint(argv=("serve", "-x")))


async def test_claim_uses_channel_of_launch(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    peers: set[str] = set()

    async def respond(_request: agent_pb.ConfigureRequest, context: Any) -> agent_pb.ConfigureResponse:
        peers.add(context.peer())
        return entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE)

    agent.configure_handler = respond
    await agents.configure("sbx-1", address, IMAGE, spec())
    for _ in range(3):
        await agents.activate("sbx-1", address, {"A": "1"})
    assert len(peers) == 1


SECRET = "planted-value"


@pytest.mark.parametrize(
    ("code", "reason", "message"),
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
async def test_claim_fails_without_text_of_agent_when_entrypoint_is_refused(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, code: grpc.StatusCode, reason: str, message: str
) -> None:
    agent.configure_handler = refusing(code, f"the environment is KEY={SECRET}", reason)
    with pytest.raises(LaunchFailed) as failed:
        await agents.activate("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert failed.value.reason is FailureReason.START_FAILED
    assert failed.value.message == f"cannot start the entrypoint 'serve': {message}"
    assert SECRET not in "".join(traceback.format_exception(failed.value))


async def test_claim_fails_when_environment_is_refused(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    handler = refusing(grpc.StatusCode.INVALID_ARGUMENT, SECRET, "INVALID_FIELD", ("environment", SECRET))
    agent.configure_handler = handler
    with pytest.raises(LaunchFailed, match="rejected the environment") as failed:
        await agents.activate("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert SECRET not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(LaunchFailed, match="the maximum is"):
        await agents.activate("sbx-1", address, {"KEY": "x" * 5_000_000})


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
async def test_unexpected_refusal_of_activation_is_unavailable(
    agents: GrpcAgents, agent: ScriptedAgent, address: str, code: grpc.StatusCode, reason: str
) -> None:
    agent.configure_handler = refusing(code, SECRET, reason)
    with pytest.raises(Unavailable) as error:
        await agents.activate("sbx-1", address, {"KEY": SECRET}, ("serve",))
    assert SECRET not in "".join(traceback.format_exception(error.value))


NONE, FAILED = process_pb2.ENTRYPOINT_STATE_NONE, process_pb2.ENTRYPOINT_STATE_FAILED
RUNNING, EXITED = process_pb2.ENTRYPOINT_STATE_RUNNING, process_pb2.ENTRYPOINT_STATE_EXITED


@pytest.mark.parametrize(
    ("entrypoint", "state", "accepted"),
    [
        ((), NONE, True),
        ((), RUNNING, True),
        ((), EXITED, False),
        ((), FAILED, False),
        ((), process_pb2.ENTRYPOINT_STATE_UNSPECIFIED, False),
        ((), 77, False),
        (("serve",), RUNNING, True),
        (("serve",), EXITED, True),
        (("serve",), NONE, False),
        (("serve",), FAILED, False),
    ],
)
async def test_requires_entrypoint_state_that_matches_the_request(
    agents: GrpcAgents,
    agent: ScriptedAgent,
    address: str,
    entrypoint: tuple[str, ...],
    state: process_pb2.EntrypointState.ValueType,
    accepted: bool,
) -> None:
    agent.configure_handler = responding(entrypoint_state(state))
    if accepted:
        await agents.activate("sbx-1", address, {}, entrypoint)
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=entrypoint))
        return
    with pytest.raises(Unavailable):
        await agents.activate("sbx-1", address, {}, entrypoint)
    with pytest.raises(LaunchFailed):
        await agents.configure("sbx-1", address, IMAGE, spec(entrypoint=entrypoint))


async def test_rejects_oversized_responses(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    agent.version = "x" * 100_000
    agent.configure_handler = responding(entrypoint_state(NONE, error="x" * 100_000))
    with pytest.raises(Unavailable):
        await agents.probe("sbx-1", address)
    with pytest.raises(Unavailable):
        await agents.activate("sbx-1", address, {})
    with pytest.raises(LaunchFailed):
        await agents.configure("sbx-1", address, IMAGE, spec())


async def test_probe_rejects_old_protocol_version(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    await agents.probe("sbx-1", address)
    agent.protocol_version = OLDEST_PROTOCOL_VERSION - 1
    with pytest.raises(Unavailable):
        await agents.probe("sbx-1", address)


async def test_calls_fail_at_deadlines_of_the_client(agent: ScriptedAgent, address: str) -> None:
    agent.configure_handler = hang
    agents = GrpcAgents(KEY, configure_secs=0.1, activate_secs=0.1)
    try:
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await agents.activate("sbx-1", address, {})
            with pytest.raises(LaunchFailed):
                await agents.configure("sbx-1", address, IMAGE, spec())
        agent.configure_handler = None
        await agents.activate("sbx-1", address, {})
    finally:
        await agents.close()


async def test_forget_ends_activation(agents: GrpcAgents, agent: ScriptedAgent, address: str) -> None:
    entered = asyncio.Event()

    async def never(_request: agent_pb.ConfigureRequest, _context: Any) -> agent_pb.ConfigureResponse:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    agent.configure_handler = never
    activation = asyncio.create_task(agents.activate("sbx-1", address, {}))
    await entered.wait()
    agents.forget("sbx-1")
    with pytest.raises(Unavailable):
        await activation
    entered.clear()
    activation = asyncio.create_task(agents.activate("sbx-1", address, {}))
    await entered.wait()
    activation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await activation


async def test_agent_that_never_responds_is_unavailable_at_deadline(agents: GrpcAgents) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for call in (agents.probe("sbx-1", address), agents.activate("sbx-1", address, {})):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call
            assert time.monotonic() - began < 2.5


async def test_reconnects_immediately_when_agent_is_reachable_again(agents: GrpcAgents, agent: ScriptedAgent) -> None:
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


async def test_unresponsive_call_does_not_affect_other_calls_on_the_channel(agent: ScriptedAgent, address: str) -> None:
    go = asyncio.Event()

    async def later(_request: agent_pb.RunCommandRequest, _context: Any) -> agent_pb.RunCommandResponse:
        await go.wait()
        return exited(4)

    agent.configure_handler, agent.run_handler = hang, later
    agents = GrpcAgents(KEY, activate_secs=0.1)
    try:
        run = asyncio.create_task(agents.run("sbx-1", address, Command(5.0, argv=("echo",))))
        await agent.entered.wait()
        with pytest.raises(Unavailable):
            await agents.activate("sbx-1", address, {})
        go.set()
        assert (await run).exit_code == 4
    finally:
        await agents.close()


@dataclass
class FakeHarness:
    """A container in memory with its agent."""

    runtime: FakeRuntime
    silent: SilentAgents
    instance_id: str
    address: str
    image: ImageConfig

    @property
    def agents(self) -> Agents:
        return self.silent

    async def env(self) -> dict[str, str]:
        return self.silent.env_of(self.instance_id)

    async def entrypoint_runs(self) -> bool:
        return self.silent.entrypoint_started(self.instance_id)

    async def make_unresponsive(self) -> None:
        self.silent.silent.add(self.instance_id)

    async def revive(self) -> None:
        self.silent.silent.discard(self.instance_id)

    async def end(self) -> None:
        self.runtime.die(self.instance_id)


class TestFakeAgents(AgentsContract):
    """The fake agents satisfy the contract."""

    @pytest.fixture
    async def harness(self) -> FakeHarness:
        runtime = FakeRuntime()
        agents = SilentAgents(runtime, deadline_secs=0.05)
        agents.bad_entrypoints.add(MISSING_PROGRAM)
        instance = make_instance(FAKE_IMAGE)
        address = await runtime.launch(instance, agents.token_sha256(instance.id))
        return FakeHarness(runtime, agents, instance.id, address, await runtime.ensure_image(FAKE_IMAGE))
