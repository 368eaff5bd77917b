"""A scripted agent on the loopback interface, and a client for it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc.aio
import pytest
import uvloop

from sandpool_server.gen.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool_server.runtime import GrpcAgents
from tests.support.scripted_agent import KEY, ScriptedAgent


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop, which the server uses; its transports and errors differ from those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def agents() -> AsyncIterator[GrpcAgents]:
    agents = GrpcAgents(KEY)
    yield agents
    await agents.close()


@pytest.fixture
def agent() -> ScriptedAgent:
    return ScriptedAgent()


@pytest.fixture
async def address(agent: ScriptedAgent) -> AsyncIterator[str]:
    server = grpc.aio.server()
    agent_grpc.add_AgentServiceServicer_to_server(agent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
