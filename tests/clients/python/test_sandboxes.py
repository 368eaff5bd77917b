"""Sandboxes, their handles, and commands in them."""

import logging
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

import sandpool
from sandpool import CommandEndReason, SandboxClient, SandboxStart, SandboxState, WhenEmpty
from sandpool.v1 import sandbox_pb2, sandbox_service_pb2
from tests.clients.python.state import Failure, State, not_found


def test_a_pool_id_is_all_that_a_sandbox_needs(client: SandboxClient):
    sandbox = client.create(pool_id="p")
    assert sandbox.sandbox_id.startswith("sbx-")
    assert (sandbox.pool_id, sandbox.image, sandbox.name) == ("p", "inherited", "")
    assert sandbox.state is SandboxState.RUNNING
    assert sandbox.start is SandboxStart.WARM
    assert sandbox.start_duration == timedelta(milliseconds=2.5)
    assert sandbox.end_reason is None
    assert f"{sandbox.state}" == "running"


def test_every_way_to_a_sandbox(client: SandboxClient, state: State):
    labels = {"a": "b"}
    client.claim("p", name="one", metadata=labels, timeout_secs=5)
    client.create_sandbox("t", name="two")
    client.create_sandbox(template_name="t")
    client.create(template_name="t")
    client.create("i", cpus=2.0, memory_mb=64, disk_mb=32, entrypoint=["x"])
    one, two, three, four, five = state.sent("CreateSandbox")
    assert (one.pool_id, one.name, dict(one.metadata), one.timeout_secs) == ("p", "one", labels, 5)
    assert (two.template_name, two.name) == ("t", "two")
    assert three.template_name == four.template_name == "t"
    assert (five.image, five.cpus, five.memory_mb, five.ephemeral_disk_mb) == ("i", 2.0, 64, 32)
    assert len({request.request_id for request in (one, two, three, four, five)}) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "not none of them"),
        ({"pool_id": "p", "template_name": "t"}, "not pool_id and template_name"),
        ({"pool_id": "p", "image": "i"}, "not pool_id and image"),
        ({"pool_id": "p", "cpus": 1.0}, "cpus: the pool says"),
        ({"template_name": "t", "secret_names": ["A"]}, "secret_names: the template says"),
        ({"pool_id": "p", "metadata": [("a", "b")]}, "metadata must be a mapping"),
        ({"pool_id": "p", "readiness_command": ["x"]}, "readiness_command: the pool says"),
        ({"template_name": "t", "readiness_retries": 1}, "readiness_retries: the template says"),
        ({"image": "i", "when_empty": "start_cold"}, "when_empty: .*always started cold"),
        ({"image": "i", "wait_secs": 1.0}, "wait_secs: goes with when_empty"),
        ({"pool_id": "p", "wait_secs": 1.0}, "wait_secs: goes with when_empty"),
        ({"pool_id": "p", "when_empty": WhenEmpty.FAIL, "wait_secs": 1.0}, "wait_secs: goes with when_empty"),
        ({"pool_id": "p", "env": {"A": None}}, r"env\['A'\] must be a string, not NoneType"),
    ],
)
def test_wrong_mixtures_are_refused_before_anything_is_sent(client, state, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.create(**arguments)
    with pytest.raises(TypeError, match=message):
        client.create_batch(2, **arguments)
    assert state.requests == []


def test_what_to_do_when_no_container_is_ready(client: SandboxClient, state: State):
    client.create(pool_id="p")
    client.create(pool_id="p", when_empty="start_cold")
    client.claim("p", when_empty=WhenEmpty.WAIT, wait_secs=2.5)
    client.create_sandbox("t", when_empty="fail")
    with client.sandbox("t", when_empty="wait", wait_secs=1):
        pass
    client.create_batch(2, pool_id="p", when_empty="wait")
    asked = [*state.sent("CreateSandbox"), state.sent("BatchCreateSandboxes")[0].sandbox]
    waits = [request.wait_secs if request.HasField("wait_secs") else None for request in asked]
    assert [(request.when_empty, wait) for request, wait in zip(asked, waits, strict=True)] == [
        (sandbox_service_pb2.WHEN_EMPTY_UNSPECIFIED, None),
        (sandbox_service_pb2.WHEN_EMPTY_START_COLD, None),
        (sandbox_service_pb2.WHEN_EMPTY_WAIT, 2.5),
        (sandbox_service_pb2.WHEN_EMPTY_FAIL, None),
        (sandbox_service_pb2.WHEN_EMPTY_WAIT, 1.0),
        (sandbox_service_pb2.WHEN_EMPTY_WAIT, None),
    ]
    with pytest.raises(ValueError, match="'queue' is not a valid WhenEmpty"):
        client.create(pool_id="p", when_empty="queue")


def test_an_environment_goes_with_every_way_to_a_sandbox(client: SandboxClient, state: State):
    env = {"TOKEN": "hush-1"}
    made = client.create(pool_id="p", env=env)
    client.claim("p", env=env)
    client.create_sandbox("t", env=env)
    client.sandbox("t", env=env)
    from_image = client.create("i", env=env, readiness_command=("x", "y"), readiness_interval_secs=0.1)
    client.create_batch(1, pool_id="p", env=env)
    asked = [*state.sent("CreateSandbox"), state.sent("BatchCreateSandboxes")[0].sandbox]
    assert [dict(request.env) for request in asked] == [env] * 6
    assert list(asked[4].readiness_command) == ["x", "y"]
    assert asked[4].readiness_interval_secs == 0.1
    assert made.env == {"FROM": "pool"}, "what is for this sandbox alone is not repeated"
    assert from_image.env == env
    assert "hush-1" not in f"{made!r} {made.info!r} {from_image!r} {from_image.info}"


def test_waiting_for_a_sandbox_that_somebody_else_creates(client: SandboxClient, state: State):
    made = client.create(pool_id="p")
    state.sandboxes[made.sandbox_id].state = sandbox_pb2.SANDBOX_STATE_STARTING
    assert client.get_sandbox_status(made.sandbox_id) is SandboxState.STARTING
    state.next_states = [sandbox_pb2.SANDBOX_STATE_STARTING, sandbox_pb2.SANDBOX_STATE_RUNNING]
    with client.wait_for_sandbox(made.sandbox_id, timeout=5, poll_interval=0.1) as found:
        assert (found.sandbox_id, found.state) == (made.sandbox_id, SandboxState.RUNNING)
    assert state.sent("DeleteSandbox") == [], "it belongs to who created it"
    state.next_states = [sandbox_pb2.SANDBOX_STATE_TERMINATED]
    with pytest.raises(sandpool.SandboxNotReadyError, match="has ended") as caught:
        client.wait_for_sandbox(made.sandbox_id)
    assert (caught.value.reason, caught.value.resource_name) == ("SANDBOX_ENDED", made.sandbox_id)
    with pytest.raises(sandpool.SandboxNotFoundError):
        client.wait_for_sandbox("nobody")


def test_a_batch_has_one_request_id_of_its_own(client: SandboxClient, state: State):
    made = client.create_batch(3, pool_id="p", metadata={"a": "b"})
    assert len({sandbox.sandbox_id for sandbox in made}) == 3
    (request,) = state.sent("BatchCreateSandboxes")
    assert request.request_id
    assert request.sandbox.request_id == ""


def test_a_block_deletes_the_sandbox_that_it_created(client: SandboxClient, state: State):
    with client.sandbox(template_name="t") as sandbox:
        assert sandbox.template_name == "t"
    assert sandbox.state is SandboxState.TERMINATED
    assert sandbox.end_reason == "deleted"
    assert [request.sandbox_id for request in state.sent("DeleteSandbox")] == [sandbox.sandbox_id]


def test_a_block_leaves_a_sandbox_that_was_looked_up(client: SandboxClient, state: State):
    made = client.create(pool_id="p")
    with client.get(made.sandbox_id) as sandbox:
        assert sandbox.info == made.info
    assert state.sent("DeleteSandbox") == []
    with pytest.raises(sandpool.ClientClosedError):
        sandbox.run_once("true")


def test_the_error_of_a_block_is_not_hidden_by_the_delete(client, state, caplog):
    state.fail("DeleteSandbox", Failure(grpc.StatusCode.INTERNAL, "broken"))
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError), client.create(pool_id="p"):
        raise KeyError
    assert "broken" in caplog.text


def test_a_failed_delete_at_the_end_of_a_block_is_an_error(client: SandboxClient, state: State):
    state.fail("DeleteSandbox", Failure(grpc.StatusCode.INTERNAL, "broken"))
    with pytest.raises(sandpool.RemoteAPIError, match="broken"), client.create(pool_id="p"):
        pass


def test_a_sandbox_that_is_forgotten_already_ends_its_block_quietly(client: SandboxClient, state: State):
    state.fail("DeleteSandbox", not_found("sandbox", "s"))
    with client.create(pool_id="p"):
        pass
    assert len(state.sent("DeleteSandbox")) == 1


def test_terminate_ends_and_close_lets_go(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    sandbox.close()
    assert state.sent("DeleteSandbox") == []
    client.get_sandbox(sandbox.sandbox_id).terminate()
    client.delete(sandbox.sandbox_id)
    client.delete_sandbox(sandbox.sandbox_id)
    assert len(state.sent("DeleteSandbox")) == 3


def test_refresh_and_update_change_what_the_handle_says(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p", metadata={"a": "b"})
    state.sandboxes[sandbox.sandbox_id].state = sandbox_pb2.SANDBOX_STATE_TERMINATING
    assert sandbox.state is SandboxState.RUNNING
    sandbox.refresh()
    assert sandbox.state is SandboxState.TERMINATING
    sandbox.update("n", timeout_secs=9)
    assert (sandbox.name, sandbox.timeout_secs, sandbox.metadata) == ("n", 9, {"a": "b"})
    assert client.update_sandbox(sandbox.sandbox_id, new_name="m", metadata=None).metadata == {}
    with pytest.raises(TypeError, match="nothing to change"):
        sandbox.update()


def test_filters_of_a_list(client: SandboxClient, state: State):
    for _ in range(3):
        client.create(pool_id="p")
    found = client.list_sandboxes(
        pool_id="p", template_name="t", states=[SandboxState.RUNNING, "starting"], metadata={"a": "b"}, page_size=2
    )
    assert len(found) == 3
    for request in state.sent("ListSandboxes"):
        assert (request.pool_id, request.template_name, dict(request.metadata)) == ("p", "t", {"a": "b"})
        assert list(request.states) == [sandbox_pb2.SANDBOX_STATE_RUNNING, sandbox_pb2.SANDBOX_STATE_STARTING]
    assert [sandbox.info for sandbox in client.list()] == [sandbox.info for sandbox in found]
    with pytest.raises(ValueError, match="BUSY"):
        client.list(states=["busy"])


def test_a_watch_ends_after_the_end(client: SandboxClient):
    sandbox = client.create(pool_id="p")
    states = [info.state for info in client.watch_sandbox(sandbox.sandbox_id)]
    assert states == [SandboxState.RUNNING, SandboxState.TERMINATED]
    assert [info.state for info in sandbox.watch()] == states


def test_a_line_for_the_shell_and_its_result(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="é\n", exit_code=0, reason=sandbox_pb2.COMMAND_END_REASON_EXITED, duration=Duration(seconds=1)
    )
    result = client.create(pool_id="p").run_once("echo é", env={"A": "1"}, cwd="/tmp", user="nobody", timeout=3)
    (request,) = state.sent("RunCommand")
    assert (request.command, list(request.argv), dict(request.env)) == ("echo é", [], {"A": "1"})
    assert (request.working_dir, request.user, request.timeout_secs) == ("/tmp", "nobody", 3.0)
    assert (result.stdout, result.stdout_bytes, result.exit_code, result.signal) == ("é\n", "é\n".encode(), 0, None)
    assert result.success
    assert not result.timed_out
    assert result.duration == timedelta(seconds=1)


def test_a_program_needs_no_shell(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    sandbox.run_once(["python3", "-c", "1"])
    sandbox.run_once("python3", ["-c", "1"], working_dir="/")
    for request in state.sent("RunCommand"):
        assert (request.command, list(request.argv)) == ("", ["python3", "-c", "1"])
    with pytest.raises(TypeError, match="args go with a command that is one string"):
        sandbox.run_once(["a"], ["b"])
    with pytest.raises(TypeError, match="args must be a list"):
        sandbox.run_once("a", "b")
    with pytest.raises(TypeError, match="cwd and working_dir mean the same"):
        sandbox.run_once("a", cwd="/", working_dir="/tmp")


def test_a_killed_command_and_output_that_is_not_text(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="\ufffd",
        stdout_bytes=b"\xff",
        signal=9,
        reason=sandbox_pb2.COMMAND_END_REASON_TIMED_OUT,
        stdout_dropped_bytes=2**33,
    )
    result = client.create(pool_id="p").run_once("x")
    assert (result.exit_code, result.signal, result.reason) == (None, 9, CommandEndReason.TIMED_OUT)
    assert result.timed_out
    assert not result.success
    assert (result.stdout, result.stdout_bytes, result.stdout_dropped_bytes) == ("\ufffd", b"\xff", 2**33)


def test_the_largest_answer_of_a_command_fits(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="\ufffd" * 2**20, stderr="\ufffd" * 2**20, stdout_bytes=b"\xff" * 2**20, stderr_bytes=b"\xff" * 2**20
    )
    assert len(client.create(pool_id="p").run_once("x").stderr_bytes) == 2**20


def test_a_command_that_cannot_be_run(client: SandboxClient, state: State):
    details = (
        rpc.ErrorInfo(reason="SANDBOX_ENDED", domain="sandpool"),
        rpc.ResourceInfo(resource_type="sandbox", resource_name="s"),
    )
    state.fail("RunCommand", Failure(grpc.StatusCode.FAILED_PRECONDITION, "it has ended", details))
    with pytest.raises(sandpool.SandboxNotReadyError, match="it has ended") as caught:
        client.create(pool_id="p").run_once("x")
    assert caught.value.resource_name == "s"


def test_what_a_newer_server_says_is_unknown_and_no_error(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    state.sandboxes[sandbox.sandbox_id].state = 99
    sandbox.refresh()
    assert sandbox.state is SandboxState.UNKNOWN
