"""What is repeated, how often, with which request id; and what is never repeated."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

from sandpool import RetryPolicy, SandboxClient, errors
from tests.clients.python.servicer import serving
from tests.clients.python.state import Failure, State

LOST = Failure(grpc.StatusCode.UNAVAILABLE, "lost")
LOST_ANSWER = Failure(grpc.StatusCode.UNAVAILABLE, "lost", after_work=True)


def test_a_read_is_repeated_until_it_is_answered(client: SandboxClient, state: State):
    pool = client.create_pool(image="i")
    state.fail("GetPool", LOST, LOST, LOST)
    assert client.get_pool(pool.pool_id) == pool
    assert len(state.sent("GetPool")) == 4


def test_a_change_whose_answer_was_lost_is_made_once(client: SandboxClient, state: State):
    state.fail("CreatePool", LOST_ANSWER, LOST_ANSWER)
    pool = client.create_pool(image="i")
    assert list(state.pools) == [pool.pool_id]
    assert len({request.request_id for request in state.sent("CreatePool")}) == 1
    state.fail("CreateSandbox", LOST_ANSWER)
    sandbox = client.create(pool_id=pool.pool_id)
    assert list(state.sandboxes) == [sandbox.sandbox_id]
    state.fail("DeletePool", LOST_ANSWER)
    client.delete_pool(pool.pool_id)
    assert state.pools == {}


def test_every_mutation_names_itself_anew(client: SandboxClient, state: State):
    client.create_template("t", "i")
    client.update_template("t", image="j")
    client.delete_template("t")
    for name in ("a", "b"):
        client.create_pool(image="i", name=name)
    client.update_pool("a", cpus=1)
    client.delete_pool("a")
    sandbox = client.create(pool_id="b")
    sandbox.update("n")
    client.create_batch(1, pool_id="b")
    sandbox.delete()
    client.create_secret("S", "v")
    client.update_secret("S", "w")
    client.delete_secret("S")
    ids = [request.request_id for _, request in state.requests]
    assert len(ids) == 14
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_repetition_ends(client: SandboxClient, state: State):
    state.fail("ListPools", *[LOST] * 9)
    with pytest.raises(errors.SandboxConnectionError, match="is it running"):
        client.list_pools()
    assert len(state.sent("ListPools")) == 4


def test_a_command_is_never_sent_twice(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    state.fail("RunCommand", LOST)
    with pytest.raises(errors.SandboxConnectionError, match="not sent again"):
        sandbox.run_once("make")
    assert len(state.sent("RunCommand")) == 1


def test_other_failures_are_not_repeated(client: SandboxClient, state: State):
    for code in grpc.StatusCode:
        if code.name not in {"OK", "UNAVAILABLE"}:
            state.fail("GetPool", Failure(code))
            with pytest.raises(errors.SandpoolError):
                client.get_pool("p")
    assert len(state.sent("GetPool")) == len(grpc.StatusCode) - 2


def test_an_unavailable_engine_keeps_the_servers_words(address: str, state: State):
    details = (rpc.ErrorInfo(reason="ENGINE_UNREACHABLE"), rpc.RetryInfo(retry_delay=Duration(seconds=60)))
    state.fail("CreateSandbox", Failure(grpc.StatusCode.UNAVAILABLE, "start the engine", details))
    with SandboxClient(address, timeout=5) as client, pytest.raises(errors.SandboxConnectionError) as caught:
        client.create("i", timeout=5)
    assert str(caught.value) == "start the engine"
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_UNREACHABLE", 60.0)
    assert len(state.sent("CreateSandbox")) == 1, "a minute is longer than the call may take"


def test_an_abandoned_create_is_repeated_under_its_request_id(client: SandboxClient, state: State):
    """The server forgets a start that was given up, so the repetition claims anew."""
    abandoned = Failure(grpc.StatusCode.UNAVAILABLE, "try again", (rpc.ErrorInfo(reason="START_ABANDONED"),))
    state.fail("CreateSandbox", LOST, abandoned, LOST)
    client.create("i", name="n")
    sent = state.sent("CreateSandbox")
    assert len(sent) == 4
    assert {(request.request_id, request.name) for request in sent} == {(sent[0].request_id, "n")}


def test_nobody_there(unused_address: str):
    with (
        SandboxClient(unused_address, retry=RetryPolicy(2, 0.001, 0.001)) as client,
        pytest.raises(errors.SandboxConnectionError, match=f"{unused_address}.*SANDPOOL_ADDRESS") as caught,
    ):
        client.list_pools()
    assert caught.value.reason == "NO_ANSWER"


def test_a_server_that_comes_back_is_found(unused_address: str):
    state = State()
    with SandboxClient(unused_address, retry=RetryPolicy(30, 0.05, 0.2)) as client:
        with serving(state, unused_address):
            client.create_pool(image="i")
        with serving(state, unused_address):
            assert len(client.list_pools()) == 1


def test_deadlines(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    client.create(pool_id="p", timeout=7)
    client.list()
    sandbox.run_once("x", timeout=300)
    sandbox.run_once("x", timeout=None)
    client.get("sbx-00000000000000000001", timeout=2)
    client.create(pool_id="p", when_empty="wait")
    client.create_batch(2, template_name="t", when_empty="wait", wait_secs=600)
    client.claim("p", when_empty="wait", wait_secs=600, timeout=7)
    client.create(pool_id="p", when_empty="fail")
    client.create("i", readiness_command=["x"])
    client.create(
        "i", readiness_command=["x"], readiness_interval_secs=1, readiness_timeout_secs=9, readiness_retries=6
    )
    expected = [120, 7, 5, 310, 70, 2, 120 + 30, 120 + 600, 7, 120, 120 + 110, 120 + 60]
    for got, most in zip(state.remaining, expected, strict=True):
        assert got is not None
        assert most - 2 < got < most + 2  # the wire rounds up


def test_the_pauses_grow_up_to_a_bound_and_differ():
    policy = RetryPolicy(max_attempts=6, initial_delay=0.1, max_delay=0.5)
    longest = [policy.pause(attempt, 100, chance=lambda: 0.0) for attempt in range(1, 7)]
    assert longest == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    assert policy.pause(2, 100, chance=lambda: 1.0) == 0.1
    assert len({policy.pause(3, 100) for _ in range(20)}) > 10
    assert policy.pause(1, 100, retry_after=3.0) == 3.0
    assert policy.pause(1, 2.0, retry_after=3.0) is None, "the call's time is over before"
    assert RetryPolicy(max_attempts=5000).pause(4999, 100, chance=lambda: 0.0) == 2.0


@pytest.mark.parametrize("arguments", [{"max_attempts": 0}, {"initial_delay": -1}, {"initial_delay": 3}])
def test_policies_that_make_no_sense(arguments: dict[str, float]):
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**arguments)
