"""Hand-overs without gRPC: used where they are possible, and whatever an agent does on such a line harms nobody."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator

import pytest

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool.agent.v1 import process_pb2
from sandpool_server.domain.errors import Unavailable
from sandpool_server.ports import ImageConfig
from sandpool_server.runtime import GrpcAgents
from tests.support.agents_contract import spec
from tests.support.hand_over_agent import HandOverAgent, OnRequest, framed, saying, silence
from tests.support.scripted_agent import KEY, ScriptedAgent, entrypoint_state

IMAGE = ImageConfig("sha256:1", {"PATH": "/bin"}, "/", "")
SECRET = "planted-value"
ENDED = entrypoint_state(process_pb2.ENTRYPOINT_STATE_ENDED).SerializeToString()


@pytest.fixture
async def lines() -> HandOverAgent:
    return HandOverAgent()


@pytest.fixture
async def both(lines: HandOverAgent, address: str) -> AsyncIterator[str]:
    """The address of an agent that takes gRPC and hand-overs."""
    async with lines.before(address) as front:
        yield front


async def test_a_member_that_was_set_up_is_handed_over_without_grpc(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    await agents.configure("sbx-1", both, IMAGE, spec(secret_names=("KEY",), entrypoint=("serve",)))
    await agents.admit("sbx-1", both, {"KEY": SECRET}, ("serve",))
    assert lines.requests == [
        agent_pb.ConfigureRequest(environment={"KEY": SECRET}, entrypoint=agent_pb.Entrypoint(argv=("serve",)))
    ]
    await agents.probe("sbx-1", both)
    assert agent.authorization[0] == f"Bearer {lines.tokens[0]}"
    assert len(agent.configure_requests) == 1, "the first, by gRPC"


async def test_a_line_is_for_one_hand_over(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    await agents.configure("sbx-1", both, IMAGE, spec())
    for _ in range(2):
        await agents.admit("sbx-1", both, {"A": "1"})
    assert len(lines.requests) == 1
    assert agent.configure_requests[1:] == lines.requests, "the second came by gRPC"


async def test_a_probe_prepares_members_of_an_earlier_server_if_they_can(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    agent.protocol_version = 3
    await agents.probe("sbx-1", both)
    assert not lines.tokens
    agent.protocol_version = 4
    for _ in range(2):
        await agents.probe("sbx-1", both)
    await agents.admit("sbx-1", both, {})
    assert len(lines.tokens) == len(lines.requests) == 1
    assert not agent.configure_requests


async def test_an_agent_that_ends_the_line_is_asked_by_grpc(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    lines.on_request = saying()
    await agents.configure("sbx-1", both, IMAGE, spec())
    await agents.admit("sbx-1", both, {"A": "1"})
    assert agent.configure_requests[1:] == lines.requests == [agent_pb.ConfigureRequest(environment={"A": "1"})]


@pytest.mark.parametrize(
    "nonsense",
    [
        saying(b"\xff\xff\xff\xff"),
        saying((64 * 1024 + 1).to_bytes(4), b"x"),
        saying(framed(b"")[:2]),
        saying(framed(ENDED)[:-1]),
        saying(framed(b"") + b"more than announced"),
        saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
    ids=["huge", "too long", "half a length", "half an answer", "more than announced", "another protocol"],
)
async def test_nonsense_on_the_line_is_no_answer(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str, nonsense: OnRequest
) -> None:
    lines.on_request = nonsense
    await agents.configure("sbx-1", both, IMAGE, spec())
    await agents.admit("sbx-1", both, {"A": "1"})
    assert len(agent.configure_requests) == 2, "asked by gRPC then"


@pytest.mark.parametrize("answer", [framed(b"\xff\xff\xff"), framed(b""), framed(ENDED)])
async def test_an_answer_is_checked_as_one_by_grpc_is(
    agents: GrpcAgents, lines: HandOverAgent, both: str, answer: bytes
) -> None:
    lines.on_request = saying(answer)
    await agents.configure("sbx-1", both, IMAGE, spec())
    with pytest.raises(Unavailable) as error:
        await agents.admit("sbx-1", both, {"KEY": SECRET})
    assert SECRET not in "".join(traceback.format_exception(error.value))


async def test_an_answer_may_come_in_pieces(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    answer = framed(entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE).SerializeToString())
    lines.on_request = saying(*(bytes([byte]) for byte in answer))
    await agents.configure("sbx-1", both, IMAGE, spec())
    await agents.admit("sbx-1", both, {})
    assert len(agent.configure_requests) == 1


async def test_an_agent_that_speaks_before_it_is_asked_is_not_believed(
    agents: GrpcAgents, agent: ScriptedAgent, lines: HandOverAgent, both: str
) -> None:
    lines.greeting = framed(entrypoint_state(process_pb2.ENTRYPOINT_STATE_NONE).SerializeToString())
    await agents.configure("sbx-1", both, IMAGE, spec())
    await lines.signal.until(lambda: lines.lines == 0 and len(lines.tokens) == 1)
    await agents.admit("sbx-1", both, {})
    assert not lines.requests
    assert len(agent.configure_requests) == 2


async def test_silence_on_the_line_is_given_up_in_time(agent: ScriptedAgent, lines: HandOverAgent, both: str) -> None:
    lines.on_request = silence
    agents = GrpcAgents(KEY, admit_secs=0.1)
    try:
        await agents.configure("sbx-1", both, IMAGE, spec())
        began = time.monotonic()
        with pytest.raises(Unavailable) as error:
            await agents.admit("sbx-1", both, {"KEY": SECRET})
        assert time.monotonic() - began < 2
        assert SECRET not in "".join(traceback.format_exception(error.value))
        assert len(agent.configure_requests) == 1, "a second request would take as long again"
    finally:
        await agents.close()


async def test_forgetting_and_closing_end_lines(agents: GrpcAgents, lines: HandOverAgent, both: str) -> None:
    for member_id in ("sbx-1", "sbx-2"):
        await agents.configure(member_id, both, IMAGE, spec())
    await lines.signal.until(lambda: lines.lines == 2)
    agents.forget("sbx-1")
    await lines.signal.until(lambda: lines.lines == 1)
    await agents.close()
    await lines.signal.until(lambda: lines.lines == 0)


async def test_a_caller_who_goes_away_ends_the_line(agents: GrpcAgents, lines: HandOverAgent, both: str) -> None:
    lines.on_request = silence
    await agents.configure("sbx-1", both, IMAGE, spec())
    admission = asyncio.create_task(agents.admit("sbx-1", both, {}))
    await lines.signal.until(lambda: bool(lines.requests))
    admission.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admission
