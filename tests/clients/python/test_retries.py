"""Which calls are retried, how often, with which request id and deadline."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

from sandpool import ReadinessProbe, RetryPolicy, SandboxClient, errors
from tests.clients.python.conftest import FAST
from tests.clients.python.servicer import serving
from tests.clients.python.state import Failure, State
from tests.support.scripted_server import scripted

LOST = Failure(grpc.StatusCode.UNAVAILABLE, "lost")
LOST_RESPONSE = Failure(grpc.StatusCode.UNAVAILABLE, "lost", after_work=True)


def test_retries_a_read_until_the_server_responds(client: SandboxClient, state: State):
    pool = client.create_pool(image="i")
    state.fail("GetPool", LOST, LOST, LOST)
    assert client.get_pool(pool.pool_id) == pool
    assert len(state.sent("GetPool")) == 4


def test_a_change_whose_response_was_lost_takes_effect_once(client: SandboxClient, state: State):
    state.fail("CreatePool", LOST_RESPONSE, LOST_RESPONSE)
    pool = client.create_pool(image="i")
    assert list(state.pools) == [pool.pool_id]
    assert len({request.request_id for request in state.sent("CreatePool")}) == 1
    state.fail("CreateSandbox", LOST_RESPONSE)
    sandbox = client.create(pool_id=pool.pool_id)
    assert list(state.sandboxes) == [sandbox.sandbox_id]
    state.fail("DeletePool", LOST_RESPONSE)
    client.delete_pool(pool.pool_id)
    assert state.pools == {}


def test_every_change_has_its_own_request_id(client: SandboxClient, state: State):
    client.create_template("t", image="i")
    client.update_template("t", image="j")
    client.delete_template("t")
    for name in ("a", "b"):
        client.create_pool(image="i", name=name)
    client.update_pool("a", cpus=1)
    client.delete_pool("a")
    sandbox = client.create(pool_id="b")
    sandbox.update(name="n")
    client.create_batch(1, pool_id="b")
    sandbox.delete()
    client.create_secret("S", "v")
    client.update_secret("S", "w")
    client.delete_secret("S")
    ids = [request.request_id for _, request in state.requests]
    assert len(ids) == 14
    assert all(ids)
    assert len(set(ids)) == len(ids)


def test_retries_end(client: SandboxClient, state: State):
    state.fail("ListPools", *[LOST] * 9)
    with pytest.raises(errors.SandboxConnectionError, match="check that the server is running"):
        next(client.list_pools())
    assert len(state.sent("ListPools")) == 4


def test_a_command_in_one_call_is_never_sent_twice(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    state.fail("RunCommand", LOST)
    with pytest.raises(errors.SandboxConnectionError, match="did not send it again"):
        sandbox.run("make", resumable=False)
    assert len(state.sent("RunCommand")) == 1


def test_other_failures_are_not_retried(client: SandboxClient, state: State):
    for code in grpc.StatusCode:
        if code.name not in {"OK", "UNAVAILABLE"}:
            state.fail("GetPool", Failure(code))
            with pytest.raises(errors.SandpoolError):
                client.get_pool("p")
    assert len(state.sent("GetPool")) == len(grpc.StatusCode) - 2


def test_keeps_the_message_of_the_server(address: str, state: State):
    details = (rpc.ErrorInfo(reason="ENGINE_UNREACHABLE"), rpc.RetryInfo(retry_delay=Duration(seconds=60)))
    state.fail("CreateSandbox", Failure(grpc.StatusCode.UNAVAILABLE, "start the engine", details))
    with SandboxClient(address, request_timeout=5) as client, pytest.raises(errors.SandboxConnectionError) as caught:
        client.create(image="i", request_timeout=5)
    assert str(caught.value) == "start the engine"
    assert (caught.value.reason, caught.value.retry_after) == ("ENGINE_UNREACHABLE", 60.0)
    assert len(state.sent("CreateSandbox")) == 1, "the requested delay is longer than the time limit of the call"


def test_a_cancelled_start_is_retried_with_the_same_request_id(client: SandboxClient, state: State):
    """The server discards a cancelled start, so a retry with the same request id starts again."""
    abandoned = Failure(grpc.StatusCode.UNAVAILABLE, "try again", (rpc.ErrorInfo(reason="START_CANCELLED"),))
    state.fail("CreateSandbox", LOST, abandoned, LOST)
    client.create(image="i", name="n")
    sent = state.sent("CreateSandbox")
    assert len(sent) == 4
    assert {(request.request_id, request.name) for request in sent} == {(sent[0].request_id, "n")}


def test_names_the_address_when_no_server_responds(unused_address: str):
    with (
        SandboxClient(unused_address, retry=RetryPolicy(2, 0.001, 0.001)) as client,
        pytest.raises(errors.SandboxConnectionError, match=f"{unused_address}.*SANDPOOL_ADDRESS") as caught,
    ):
        next(client.list_pools())
    assert caught.value.reason == "NO_RESPONSE"
    assert isinstance(caught.value, ConnectionError)


def test_finds_a_server_that_restarts(unused_address: str):
    state = State()
    with SandboxClient(unused_address, retry=RetryPolicy(30, 0.05, 0.2)) as client:
        with serving(state, unused_address):
            client.create_pool(image="i")
        with serving(state, unused_address):
            assert len(list(client.list_pools())) == 1


def test_deadlines(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    client.create(pool_id="p", request_timeout=7)
    list(client.list_sandboxes())
    sandbox.run("x", timeout=300, resumable=False)
    client.get_sandbox("sbx-00000000000000000001", request_timeout=2)
    client.create(pool_id="p", when_empty="wait")
    client.create_batch(2, template_name="t", when_empty="wait", queue_timeout=600)
    client.create(pool_id="p", when_empty="wait", queue_timeout=600, request_timeout=7)
    client.create(pool_id="p", when_empty="fail")
    client.create(image="i", readiness_probe=ReadinessProbe(["x"]))
    client.create(image="i", readiness_probe=ReadinessProbe(["x"], interval=1, timeout=9, failure_threshold=6))
    client.get_sandbox("sbx-00000000000000000001", request_timeout=None)
    expected = [120, 7, 5, 310, 2, 120 + 30, 120 + 600, 7, 120, 120 + 110, 120 + 60, None]
    for found, limit in zip(state.remaining, expected, strict=True):
        assert (found is None) == (limit is None)
        if found is not None and limit is not None:
            assert limit - 2 < found < limit + 2  # The encoding of the deadline rounds up.


def test_the_default_deadline_is_30_seconds_and_none_means_no_limit(address: str, state: State):
    for client in (SandboxClient(address), SandboxClient(address, request_timeout=None)):
        with client:
            list(client.list_pools())
            client.create(pool_id="p")
    limited, creation, unlimited, other = state.remaining
    assert limited is not None
    assert 28 < limited < 31
    assert creation is not None
    assert 118 < creation < 122
    assert (unlimited, other) == (None, None)


def test_retries_a_move_with_overwrite_and_reports_the_destination(address: str):
    """The first attempt moves the file, its response is lost, and the retry does not find the source."""
    missing = {
        "error": {"code": "NOT_FOUND", "reason": "FILE_NOT_FOUND", "resource_type": "file", "resource_name": "/a"}
    }
    lost = {"error": {"code": "UNAVAILABLE"}}
    script = {
        "CreateSandbox": [{"response": {"sandbox": {"sandbox_id": "s"}}}],
        "MoveFile": [lost, missing],
        "StatFile": [{"response": {"file": {"path": "/b"}}}],
    }
    with scripted(script) as server, SandboxClient(server.address, retry=FAST) as client:
        files = client.create(pool_id="p").files
        assert files.move("/a", "/b", overwrite=True).path == "/b"
        assert [call.method for call in server.calls] == ["CreateSandbox", "MoveFile", "MoveFile", "StatFile"]
        with pytest.raises(errors.PathNotFoundError):
            files.move("/a", "/b", overwrite=True)
        assert len(server.calls) == 5, "a first attempt that does not find the source fails"


def test_delays_grow_up_to_a_limit_and_differ():
    policy = RetryPolicy(max_attempts=6, initial_delay=0.1, max_delay=0.5)
    longest = [policy.pause(attempt, 100, chance=lambda: 0.0) for attempt in range(1, 7)]
    assert longest == [0.1, 0.2, 0.4, 0.5, 0.5, None]
    assert policy.pause(2, 100, chance=lambda: 1.0) == 0.1
    assert len({policy.pause(3, 100) for _ in range(20)}) > 10
    assert policy.pause(1, 100, retry_after=3.0) == 3.0
    assert policy.pause(1, 2.0, retry_after=3.0) is None, "the time limit of the call passes before"
    assert policy.pause(1, None, retry_after=500.0) == 500.0, "a call without a time limit"
    assert RetryPolicy(max_attempts=5000).pause(4999, 100, chance=lambda: 0.0) == 2.0


@pytest.mark.parametrize("arguments", [{"max_attempts": 0}, {"initial_delay": -1}, {"initial_delay": 3}])
def test_rejects_impossible_policies(arguments: dict[str, float]):
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**arguments)
