"""Activation over plain TCP: the server uses it when possible, and misbehaving agents affect no other sandbox."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator

import pytest

from sandpool_server.domain.errors import Unavailable
from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.gen.agent.v1 import process_pb2
from sandpool_server.interfaces import ImageConfig
from sandpool_server.runtime import GrpcAgents
from sandpool_server.runtime.agents import OLDEST_PROTOCOL_VERSION
from tests.support.activation_agent import ActivationAgent, OnRequest, framed, no_response, sending
from tests.support.agents_contract import spec
from tests.support.scripted_agent import KEY, ScriptedAgent, entrypoint_state

IMAGE = ImageConfig("sha256:1", {"PATH": "/bin"}, "/", "")
SECRET = "planted-value"
ENDED = entrypoint_state(process_pb2.ENTRYPOINT_STATE_EXITED).SerializeToString()


@pytest.fixture
async def activation_agent() -> ActivationAgent:
    return ActivationAgent()


@pytest.fixture
async def front_address(activation_agent: ActivationAgent, address: str) -> AsyncIterator[str]:
    """Return the address of an agent that accepts gRPC and activation connections."""
    async with activation_agent.in_front_of(address) as front:
        yield front


async def test_activates_configured_instance_without_grpc(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    await agents.configure("sbx-1", front_address, IMAGE, spec(secret_names=("KEY",), entrypoint=("serve",)))
    await agents.activate("sbx-1", front_address, {"KEY": SECRET}, ("serve",))
    assert activation_agent.requests == [
        agent_pb.ConfigureRequest(environment={"KEY": SECRET}, entrypoint=agent_pb.Entrypoint(argv=("serve",)))
    ]
    await agents.probe("sbx-1", front_address)
    assert agent.authorization[0] == f"Bearer {activation_agent.tokens[0]}"
    assert len(agent.configure_requests) == 1, "only the first request uses gRPC"


async def test_activation_connection_is_used_once(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    for _ in range(2):
        await agents.activate("sbx-1", front_address, {"A": "1"})
    assert len(activation_agent.requests) == 1
    assert agent.configure_requests[1:] == activation_agent.requests, "the second request uses gRPC"


async def test_probe_opens_activation_connection_for_adopted_instance(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    agent.protocol_version = OLDEST_PROTOCOL_VERSION - 1
    with pytest.raises(Unavailable):
        await agents.probe("sbx-1", front_address)
    assert not activation_agent.tokens
    agent.protocol_version = OLDEST_PROTOCOL_VERSION
    for _ in range(2):
        await agents.probe("sbx-1", front_address)
    await agents.activate("sbx-1", front_address, {})
    assert len(activation_agent.tokens) == len(activation_agent.requests) == 1
    assert not agent.configure_requests


async def test_uses_grpc_when_agent_closes_activation_connection(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    activation_agent.on_request = sending()
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    await agents.activate("sbx-1", front_address, {"A": "1"})
    assert (
        agent.configure_requests[1:] == activation_agent.requests == [agent_pb.ConfigureRequest(environment={"A": "1"})]
    )


@pytest.mark.parametrize(
    "data",
    [
        sending(b"\xff\xff\xff\xff"),
        sending((64 * 1024 + 1).to_bytes(4), b"x"),
        sending(framed(b"")[:2]),
        sending(framed(ENDED)[:-1]),
        sending(framed(b"") + b"longer than announced"),
        sending(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
    ids=["huge", "too long", "partial length", "partial response", "longer than announced", "another protocol"],
)
async def test_uses_grpc_after_invalid_response_on_activation_connection(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str, data: OnRequest
) -> None:
    activation_agent.on_request = data
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    await agents.activate("sbx-1", front_address, {"A": "1"})
    assert len(agent.configure_requests) == 2, "the second request uses gRPC"


@pytest.mark.parametrize("response", [framed(b"\xff\xff\xff"), framed(b""), framed(ENDED)])
async def test_checks_response_like_a_grpc_response(
    agents: GrpcAgents, activation_agent: ActivationAgent, front_address: str, response: bytes
) -> None:
    activation_agent.on_request = sending(response)
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    with pytest.raises(Unavailable) as error:
        await agents.activate("sbx-1", front_address, {"KEY": SECRET})
    assert SECRET not in "".join(traceback.format_exception(error.value))


async def test_accepts_response_in_several_packets(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    response = framed(entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE).SerializeToString())
    activation_agent.on_request = sending(*(bytes([byte]) for byte in response))
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    await agents.activate("sbx-1", front_address, {})
    assert len(agent.configure_requests) == 1


async def test_ignores_response_sent_before_the_request(
    agents: GrpcAgents, agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    activation_agent.greeting = framed(entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE).SerializeToString())
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    await activation_agent.signal.until(lambda: activation_agent.connections == 0 and len(activation_agent.tokens) == 1)
    await agents.activate("sbx-1", front_address, {})
    assert not activation_agent.requests
    assert len(agent.configure_requests) == 2


async def test_unresponsive_activation_connection_fails_at_deadline(
    agent: ScriptedAgent, activation_agent: ActivationAgent, front_address: str
) -> None:
    activation_agent.on_request = no_response
    agents = GrpcAgents(KEY, activate_secs=0.1)
    try:
        await agents.configure("sbx-1", front_address, IMAGE, spec())
        began = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await agents.activate("sbx-1", front_address, {"KEY": SECRET})
        assert time.monotonic() - began < 2
        assert SECRET not in "".join(traceback.format_exception(error.value))
        assert len(agent.configure_requests) == 1, "a second request would take the same time again"
    finally:
        await agents.close()


async def test_forget_and_close_end_activation_connections(
    agents: GrpcAgents, activation_agent: ActivationAgent, front_address: str
) -> None:
    for instance_id in ("sbx-1", "sbx-2"):
        await agents.configure(instance_id, front_address, IMAGE, spec())
    await activation_agent.signal.until(lambda: activation_agent.connections == 2)
    agents.forget("sbx-1")
    await activation_agent.signal.until(lambda: activation_agent.connections == 1)
    await agents.close()
    await activation_agent.signal.until(lambda: activation_agent.connections == 0)


async def test_cancelled_caller_ends_activation_connection(
    agents: GrpcAgents, activation_agent: ActivationAgent, front_address: str
) -> None:
    activation_agent.on_request = no_response
    await agents.configure("sbx-1", front_address, IMAGE, spec())
    activation = asyncio.create_task(agents.activate("sbx-1", front_address, {}))
    await activation_agent.signal.until(lambda: bool(activation_agent.requests))
    activation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await activation
