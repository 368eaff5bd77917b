"""Sandboxes, their handles, and short commands in them."""

import logging

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rpc

import sandpool
from sandpool import ExitReason, ReadinessProbe, SandboxClient, SandboxState, StartType, WhenEmpty
from sandpool.v1 import sandbox_pb2, sandbox_service_pb2
from tests.clients.python.state import Failure, State, not_found


def test_creates_a_sandbox_from_a_pool(client: SandboxClient):
    sandbox = client.create(pool_id="p")
    assert sandbox.sandbox_id.startswith("sbx-")
    assert (sandbox.info.pool_id, sandbox.info.image, sandbox.name) == ("p", "inherited", None)
    assert sandbox.state is SandboxState.RUNNING
    assert sandbox.start_type is StartType.WARM
    assert sandbox.info.start_duration == 0.0025
    assert (sandbox.info.termination_reason, sandbox.info.termination_message) == (None, None)
    assert (sandbox.info.timeout_secs, sandbox.info.template_name, sandbox.info.expire_time) == (0, None, None)
    assert f"{sandbox.state}" == "running"


def test_sends_every_field_of_each_source(client: SandboxClient, state: State):
    labels = {"a": "b"}
    client.create(pool_id="p", name="one", metadata=labels, timeout_secs=5, env={"A": "1"}, request_id="mine")
    client.create(template_name="t", name="two")
    client.create(
        image="i",
        cpus=2.0,
        memory_mb=64,
        ephemeral_disk_mb=32,
        entrypoint=["x"],
        secret_names=["S"],
        pull_policy="never",
        readiness_probe=ReadinessProbe(("x", "y"), interval=0.1),
    )
    one, two, three = state.sent("CreateSandbox")
    assert (one.pool_id, one.name, dict(one.metadata), one.timeout.seconds) == ("p", "one", labels, 5)
    assert (dict(one.env), one.request_id) == ({"A": "1"}, "mine")
    assert not one.HasField("spec")
    assert (two.template_name, two.name) == ("t", "two")
    spec = three.spec
    assert (spec.image, spec.cpus, spec.memory_mb, spec.ephemeral_disk_mb) == ("i", 2.0, 64, 32)
    assert (list(spec.entrypoint), list(spec.secret_names)) == (["x"], ["S"])
    assert (list(spec.readiness_probe.command), spec.readiness_probe.interval.nanos) == (["x", "y"], 100_000_000)
    assert len({request.request_id for request in (one, two, three)}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "not none of them"),
        ({"pool_id": "p", "template_name": "t"}, "not pool_id and template_name"),
        ({"pool_id": "p", "image": "i"}, "not pool_id and image"),
        ({"pool_id": "p", "cpus": 1.0}, "cpus not allowed: the pool defines"),
        ({"template_name": "t", "secret_names": ["A"]}, "secret_names not allowed: the template defines"),
        ({"pool_id": "p", "metadata": [("a", "b")]}, "metadata must be a mapping"),
        ({"pool_id": "p", "readiness_probe": ReadinessProbe(["x"])}, "readiness_probe not allowed"),
        ({"image": "i", "when_empty": "start_cold"}, "when_empty not allowed: .*always a cold start"),
        ({"image": "i", "queue_timeout": 1.0}, "queue_timeout not allowed: it requires when_empty"),
        ({"pool_id": "p", "queue_timeout": 1.0}, "queue_timeout not allowed: it requires when_empty"),
        (
            {"pool_id": "p", "when_empty": WhenEmpty.FAIL, "queue_timeout": 1.0},
            "queue_timeout not allowed: it requires when_empty",
        ),
        ({"pool_id": "p", "env": {"A": None}}, r"env\['A'\] must be a string, not NoneType"),
        ({"image": "i", "disk_mb": 1}, "unexpected keyword argument 'disk_mb'"),
        ({"pool_id": "p", "timeout_secs": True}, "timeout_secs must be a number of seconds, not bool"),
    ],
)
def test_rejects_wrong_arguments_before_sending(client: SandboxClient, state: State, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.create(**arguments)
    with pytest.raises(TypeError, match=message):
        client.create_batch(2, **arguments)
    assert state.requests == []


def test_rejects_a_name_for_a_batch(client: SandboxClient):
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        client.create_batch(2, pool_id="p", name="n")  # type: ignore[call-overload]


def test_rejects_a_number_of_seconds_that_is_not_finite(client: SandboxClient):
    with pytest.raises(ValueError, match="timeout_secs must be a finite number of seconds"):
        client.create(pool_id="p", timeout_secs=float("inf"))


def test_sends_what_to_do_when_no_container_is_warm(client: SandboxClient, state: State):
    client.create(pool_id="p")
    client.create(pool_id="p", when_empty="start_cold")
    client.create(pool_id="p", when_empty=WhenEmpty.WAIT, queue_timeout=2.5)
    client.create(template_name="t", when_empty="fail")
    client.create_batch(2, pool_id="p", when_empty="wait")
    sent = [*state.sent("CreateSandbox"), state.sent("BatchCreateSandboxes")[0].sandbox]
    timeouts = [
        request.queue_timeout.ToTimedelta().total_seconds() if request.HasField("queue_timeout") else None
        for request in sent
    ]
    assert [(request.when_empty, timeout) for request, timeout in zip(sent, timeouts, strict=True)] == [
        (sandbox_service_pb2.WHEN_EMPTY_UNSPECIFIED, None),
        (sandbox_service_pb2.WHEN_EMPTY_START_COLD, None),
        (sandbox_service_pb2.WHEN_EMPTY_WAIT, 2.5),
        (sandbox_service_pb2.WHEN_EMPTY_FAIL, None),
        (sandbox_service_pb2.WHEN_EMPTY_WAIT, None),
    ]
    with pytest.raises(ValueError, match="when_empty must be one of 'start_cold', 'wait', 'fail', not 'queue'"):
        client.create(pool_id="p", when_empty="queue")


def test_sends_the_environment_with_every_source(client: SandboxClient, state: State):
    env = {"TOKEN": "hush-1"}
    created = client.create(pool_id="p", env=env)
    client.create(template_name="t", env=env)
    from_image = client.create(image="i", env=env)
    client.create_batch(1, pool_id="p", env=env)
    pool, template, image = state.sent("CreateSandbox")
    batch = state.sent("BatchCreateSandboxes")[0].sandbox
    assert [dict(request.env) for request in (pool, template, image, batch)] == [env, env, {}, env]
    assert dict(image.spec.env) == env, "the entrypoint of a sandbox from an image receives the variables as well"
    assert created.info.env == {"FROM": "pool"}, "the environment of the sandbox alone is not returned"
    assert "hush-1" not in f"{created!r} {created.info!r} {from_image!r} {from_image.info}"


def test_a_batch_has_one_request_id(client: SandboxClient, state: State):
    created = client.create_batch(3, pool_id="p", metadata={"a": "b"})
    assert len({sandbox.sandbox_id for sandbox in created}) == 3
    (request,) = state.sent("BatchCreateSandboxes")
    assert request.request_id
    assert request.sandbox.request_id == ""


def test_the_end_of_a_block_deletes_a_created_sandbox(client: SandboxClient, state: State):
    with client.create(template_name="t") as sandbox:
        assert sandbox.info.template_name == "t"
    assert sandbox.state is SandboxState.TERMINATED
    assert sandbox.info.termination_reason == "deleted"
    assert [request.sandbox_id for request in state.sent("DeleteSandbox")] == [sandbox.sandbox_id]


def test_the_end_of_a_block_deletes_a_sandbox_of_a_batch(client: SandboxClient, state: State):
    (sandbox,) = client.create_batch(1, pool_id="p")
    with sandbox:
        pass
    assert len(state.sent("DeleteSandbox")) == 1


def test_the_end_of_a_block_keeps_a_sandbox_that_was_looked_up(client: SandboxClient, state: State):
    created = client.create(pool_id="p")
    with client.get_sandbox(created.sandbox_id) as sandbox:
        assert sandbox.info == created.info
    for listed in client.list_sandboxes():
        with listed:
            pass
    with client.update_sandbox(created.sandbox_id, name="n"):
        pass
    assert state.sent("DeleteSandbox") == []
    with pytest.raises(sandpool.ClientClosedError, match="get_sandbox"):
        sandbox.run("true", resumable=False)
    with pytest.raises(sandpool.ClientClosedError):
        sandbox.files.read("/f")


def test_the_error_of_a_block_is_not_replaced_by_a_failed_deletion(client, state, caplog):
    state.fail("DeleteSandbox", Failure(grpc.StatusCode.INTERNAL, "broken"))
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError), client.create(pool_id="p"):
        raise KeyError
    assert "was not deleted: broken" in caplog.text


def test_a_failed_deletion_at_the_end_of_a_block_raises(client: SandboxClient, state: State):
    state.fail("DeleteSandbox", Failure(grpc.StatusCode.INTERNAL, "broken"))
    with pytest.raises(sandpool.ServerError, match="broken"), client.create(pool_id="p"):
        pass


def test_the_end_of_a_block_accepts_a_sandbox_that_no_longer_exists(client: SandboxClient, state: State):
    state.fail("DeleteSandbox", not_found("sandbox", "s"))
    with client.create(pool_id="p"):
        pass
    assert len(state.sent("DeleteSandbox")) == 1


def test_delete_deletes_and_close_does_not(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    sandbox.close()
    assert state.sent("DeleteSandbox") == []
    client.get_sandbox(sandbox.sandbox_id).delete()
    client.delete_sandbox(sandbox.sandbox_id)
    assert len(state.sent("DeleteSandbox")) == 2


def test_refresh_and_update_change_the_handle_in_place(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p", metadata={"a": "b"})
    state.sandboxes[sandbox.sandbox_id].state = sandbox_pb2.SANDBOX_STATE_TERMINATING
    assert sandbox.state is SandboxState.RUNNING
    assert sandbox.refresh() is sandbox.info
    assert sandbox.state is SandboxState.TERMINATING
    assert sandbox.update(name="n", timeout_secs=9) is sandbox.info
    assert (sandbox.name, sandbox.info.timeout_secs, sandbox.info.metadata) == ("n", 9, {"a": "b"})
    other = client.update_sandbox(sandbox.sandbox_id, name=None, metadata=None)
    assert (other.name, other.info.metadata) == (None, {})
    assert sandbox.name == "n", "another handle does not change"
    with pytest.raises(TypeError, match=r"update\(\) has nothing to update; give at least one of name"):
        sandbox.update()


def test_lists_sandboxes_that_match_filters(client: SandboxClient, state: State):
    for _ in range(3):
        client.create(pool_id="p")
    found = list(
        client.list_sandboxes(
            pool_id="p", template_name="t", states=[SandboxState.RUNNING, "starting"], metadata={"a": "b"}, page_size=2
        )
    )
    assert len(found) == 3
    assert len(state.sent("ListSandboxes")) == 2
    for request in state.sent("ListSandboxes"):
        assert (request.pool_id, request.template_name, dict(request.metadata)) == ("p", "t", {"a": "b"})
        assert list(request.states) == [sandbox_pb2.SANDBOX_STATE_RUNNING, sandbox_pb2.SANDBOX_STATE_STARTING]
    assert [sandbox.info for sandbox in client.list_sandboxes()] == [sandbox.info for sandbox in found]
    with pytest.raises(ValueError, match=r"states must be one of .*'running'.*, not 'busy'"):
        client.list_sandboxes(states=["busy"])


def test_a_watch_ends_after_the_termination(client: SandboxClient):
    sandbox = client.create(pool_id="p")
    states = [info.state for info in client.watch_sandbox(sandbox.sandbox_id)]
    assert states == [SandboxState.RUNNING, SandboxState.TERMINATED]
    assert [info.state for info in sandbox.watch()] == states
    assert sandbox.state is SandboxState.RUNNING, "a watch does not change the handle"


def test_runs_a_shell_command_in_one_call(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="é\n", exit_code=0, reason=sandbox_pb2.EXIT_REASON_EXITED, duration=Duration(seconds=1)
    )
    sandbox = client.create(pool_id="p")
    result = sandbox.run("echo é", env={"A": "1"}, cwd="/tmp", user="nobody", timeout=3, resumable=False)
    (request,) = state.sent("RunCommand")
    assert (request.command, list(request.argv), dict(request.env)) == ("echo é", [], {"A": "1"})
    assert (request.working_dir, request.user, request.timeout.seconds) == ("/tmp", "nobody", 3)
    assert (result.stdout, result.stdout_bytes, result.exit_code, result.signal) == ("é\n", "é\n".encode(), 0, None)
    assert result.success
    assert not result.timed_out
    assert result.duration == 1


def test_runs_a_program_without_a_shell(client: SandboxClient, state: State):
    client.create(pool_id="p").run(["python3", "-c", "1"], resumable=False)
    (request,) = state.sent("RunCommand")
    assert (request.command, list(request.argv)) == ("", ["python3", "-c", "1"])


def test_rejects_streams_without_resumption(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    for name in ("stdin", "on_stdout", "on_stderr"):
        with pytest.raises(TypeError, match=f"{name} not allowed: it requires resumable=True"):
            sandbox.run("x", resumable=False, **{name: "x"})  # type: ignore[arg-type]
    assert state.sent("RunCommand") == []


def test_a_command_without_a_limit_has_no_deadline(client: SandboxClient, state: State):
    client.create(pool_id="p").run("x", timeout=None, resumable=False)
    assert state.remaining[-1] is None
    assert state.sent("RunCommand")[0].timeout.seconds == 86_400


def test_converts_a_killed_command_and_output_that_is_not_text(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="\ufffd",
        stdout_bytes=b"\xff",
        signal=9,
        reason=sandbox_pb2.EXIT_REASON_TIMED_OUT,
        stdout_dropped_bytes=2**33,
    )
    result = client.create(pool_id="p").run("x", resumable=False)
    assert (result.exit_code, result.signal, result.reason) == (None, 9, ExitReason.TIMED_OUT)
    assert result.timed_out
    assert not result.success
    assert (result.stdout, result.stdout_bytes, result.stdout_dropped_bytes) == ("\ufffd", b"\xff", 2**33)


def test_receives_the_largest_response_of_a_command(client: SandboxClient, state: State):
    state.command = sandbox_service_pb2.RunCommandResponse(
        stdout="\ufffd" * 2**20, stderr="\ufffd" * 2**20, stdout_bytes=b"\xff" * 2**20, stderr_bytes=b"\xff" * 2**20
    )
    assert len(client.create(pool_id="p").run("x", resumable=False).stderr_bytes) == 2**20


def test_raises_when_the_sandbox_is_terminated(client: SandboxClient, state: State):
    details = (
        rpc.ErrorInfo(reason="SANDBOX_TERMINATED", domain="sandpool"),
        rpc.ResourceInfo(resource_type="sandbox", resource_name="s"),
    )
    state.fail("RunCommand", Failure(grpc.StatusCode.FAILED_PRECONDITION, "it is terminated", details))
    with pytest.raises(sandpool.SandboxNotReadyError, match="it is terminated") as caught:
        client.create(pool_id="p").run("x", resumable=False)
    assert caught.value.resource_name == "s"


def test_converts_values_of_a_newer_server_to_unknown(client: SandboxClient, state: State):
    sandbox = client.create(pool_id="p")
    state.sandboxes[sandbox.sandbox_id].state = 99
    sandbox.refresh()
    assert sandbox.state is SandboxState.UNKNOWN
