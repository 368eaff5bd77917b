"""The module `langsmith`: the names, argument orders and results of the other product."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc

import sandpool
from sandpool import UNSET
from sandpool.compat._core.arguments import cpus, mebibytes
from sandpool.compat.langsmith import (
    AsyncCommandHandle,
    AsyncSandbox,
    AsyncSandboxClient,
    CommandHandle,
    CommandTimeoutError,
    ExecutionResult,
    Pool,
    QuotaExceededError,
    ResourceAlreadyExistsError,
    ResourceCreationError,
    ResourceNameConflictError,
    ResourceTimeoutError,
    Sandbox,
    SandboxAuthenticationError,
    SandboxClient,
    SandboxClientError,
    SandboxNotReadyError,
    SandboxTemplate,
    TunnelPortNotAllowedError,
    ValidationError,
)
from sandpool.v1 import sandbox_pb2
from tests.clients.python.conftest import STEPS
from tests.clients.python.processes import ERR, OUT, Processes, Script
from tests.clients.python.state import Failure, State
from tests.support.documents import document, python_blocks, run


def failure(reason: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> Failure:
    return Failure(code, "no", (rpc.ErrorInfo(reason=reason, domain="sandpool"),))


def test_the_documented_calls_work(smith: SandboxClient, state: State):
    smith.create_template("python-sandbox", "i")
    smith.create_pool(
        name="python-pool",
        template_name="python-sandbox",
        size=5,
    )
    (sent,) = state.sent("CreatePool")
    assert (sent.name, sent.template_name, sent.warm_containers) == ("python-pool", "python-sandbox", 5)
    with smith.sandbox(template_name="python-sandbox") as sandbox:
        assert sandbox.template_name == "python-sandbox"


def test_the_document_runs_with_the_other_import(address: str, state: State, monkeypatch: pytest.MonkeyPatch):
    try:
        text = document("langsmith")
    except FileNotFoundError:
        pytest.skip("the documents are not beside the clone")
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    names: dict[str, object] = {}
    for block in python_blocks(text):
        run(block, names, "sandpool.compat.langsmith")
    assert type(names["client"]) is SandboxClient
    assert [sent.warm_containers for sent in state.sent("CreatePool")] == [5]


def test_every_sandbox_has_a_name_and_is_deleted_by_it(smith: SandboxClient, state: State):
    created = [
        smith.create_sandbox("t"),
        smith.sandbox("t", name="own"),
        smith.create(pool_id="p"),
        smith.create(image="i", name="other"),
        *smith.create_batch(2, pool_id="p"),
    ]
    names = [sandbox.name for sandbox in created]
    assert len(set(names)) == len(names)
    assert (names[1], names[3]) == ("own", "other")
    assert [sent.name for sent in state.sent("CreateSandbox")] == names[:4]
    for sandbox in smith.list_sandboxes():
        assert sandbox.name in names
        smith.delete_sandbox(sandbox.name)
    assert {found.state for found in state.sandboxes.values()} == {sandbox_pb2.SANDBOX_STATE_TERMINATED}


def test_sandboxes_of_other_clients_have_their_identifier_as_name(smith: SandboxClient, client: sandpool.SandboxClient):
    unnamed = client.create(image="i")
    assert unnamed.name is None
    found = smith.get_sandbox(unnamed.sandbox_id)
    assert found.name == unnamed.sandbox_id
    smith.delete_sandbox(found.name)


def test_pools_and_sandboxes_are_found_by_name_or_identifier(smith: SandboxClient, state: State):
    pool = smith.create_pool("p", "t", 2, timeout=7)
    assert (type(pool), pool.size, pool.replicas, pool.warm_containers) == (Pool, 2, 2, 2)
    assert smith.get_pool("p") == smith.get_pool(name="p") == smith.get_pool(pool_id=pool.pool_id)
    assert smith.update_pool("p", new_name="q").name == "q"
    assert smith.update_pool(pool_id=pool.pool_id, replicas=3).replicas == 3
    assert smith.update_pool(name="q", size=4).size == 4
    assert [type(found) for found in smith.list_pools()] == [Pool]
    sandbox = smith.create_sandbox("t", name="b")
    assert smith.update_sandbox("b", new_name="c", metadata={"a": "b"}).name == "c"
    assert smith.update_sandbox(sandbox_id=sandbox.sandbox_id, new_name="d").name == "d"
    assert smith.get_sandbox(name="d").sandbox_id == smith.get_sandbox(sandbox_id=sandbox.sandbox_id).sandbox_id
    assert smith.get_sandbox_status("d") == smith.get_sandbox(name="d").status == "running"
    smith.delete_sandbox(name="d")
    smith.delete_sandbox(sandbox_id=sandbox.sandbox_id)
    smith.delete_pool(name="q", force=True)
    for wrong in (smith.get_pool, smith.delete_pool, smith.get_sandbox, smith.delete_sandbox, smith.wait_for_sandbox):
        with pytest.raises(TypeError, match=r"exactly one of name and (pool|sandbox)_id"):
            wrong()
    with pytest.raises(TypeError, match="exactly one of name and pool_id"):
        smith.get_pool("p", pool_id="p")
    with pytest.raises(TypeError, match="replicas and size mean the same"):
        smith.create_pool("p", "t", 2, size=2)
    with pytest.raises(TypeError, match="request_timeout and timeout mean the same"):
        smith.create_sandbox("t", timeout=1, request_timeout=1)


def test_a_timeout_is_the_time_limit_of_the_call(smith: SandboxClient, state: State):
    smith.create_pool("p", "t", 1, timeout=7)
    with smith.sandbox("t", timeout=50):
        pass
    assert [round(left or 0) for left in state.remaining[:2]] == [7, 50]


def test_templates_accept_quantities(smith: SandboxClient, state: State):
    template = smith.create_template("t", "i", cpu="500m", memory="512Mi", storage="2Gi")
    assert isinstance(template, SandboxTemplate)
    (sent,) = state.sent("CreateTemplate")
    assert (sent.spec.cpus, sent.spec.memory_mb, sent.spec.ephemeral_disk_mb) == (0.5, 512, 2048)
    smith.create_template("v", "i", cpus=2, memory_mb=64, env={"A": "b"})
    with pytest.raises(TypeError, match="cpus and cpu mean the same"):
        smith.create_template("w", "i", cpus=1, cpu="1")
    assert smith.update_template("t", new_name="u", image="j").name == "u"
    assert [found.name for found in smith.list_templates()] == ["u", "v"]
    smith.delete_template("u")
    assert smith.get_template("v").name == "v"


def test_quantities_are_checked():
    assert (cpus("0.25"), cpus(2), cpus(None), cpus(UNSET)) == (0.25, 2, None, UNSET)
    assert (mebibytes("memory", 1048576), mebibytes("memory", None)) == (1, None)
    for wrong in ("512Mb", "much", "1.5Ki", "-1Gi"):
        with pytest.raises(ValueError, match="memory="):
            mebibytes("memory", wrong)
    for wrong in ("2x", "m", ""):
        with pytest.raises(ValueError, match="cpu="):
            cpus(wrong)


def test_run_waits_for_the_result(smith: SandboxClient, processes: Processes, state: State):
    processes.scripts["make"] = Script([(OUT, b"one\n"), (ERR, b"two\n")], 3)
    sandbox = smith.create_sandbox("t")
    heard: list[str] = []
    result = sandbox.run("make", timeout=5, env={"A": "b"}, cwd="/tmp", on_stdout=heard.append, on_stderr=heard.append)
    assert isinstance(result, ExecutionResult)
    assert (result.stdout, result.stderr, result.exit_code, result.success) == ("one\n", "two\n", 3, False)
    assert heard == ["one\n", "two\n"]
    sandbox.run("make", shell="/bin/zsh")
    assert list(state.sent("ConnectProcess")[-1].start.argv) == ["/bin/zsh", "-c", "make"]
    assert state.sent("ConnectProcess")[0].start.idle_timeout.seconds == 300
    assert not state.sent("StartProcess")


def test_run_with_other_options_starts_a_process(smith: SandboxClient, processes: Processes, state: State):
    processes.scripts["make"] = Script([(OUT, b"one\n")])
    sandbox = smith.create_sandbox("t")
    assert sandbox.run("make", pty=True, kill_on_disconnect=True, idle_timeout=5, ttl_seconds=7).stdout == "one\n"
    (sent,) = state.sent("StartProcess")
    assert (sent.idle_timeout.seconds, sent.retention.seconds, sent.kill_on_disconnect) == (5, 7, True)
    assert (sent.HasField("terminal"), sent.stdin, sent.timeout.seconds) == (True, False, 60)


def test_run_kills_the_command_if_a_callback_fails(smith: SandboxClient, processes: Processes, state: State):
    processes.scripts["make"] = Script([(OUT, b"one\n")], None)

    def fail(text: str) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="one"):
        smith.create_sandbox("t").run("make", idle_timeout=5, on_stdout=fail)
    assert len(state.sent("KillProcess")) == 1


def test_run_without_waiting_returns_a_handle(smith: SandboxClient, processes: Processes):
    processes.scripts["cat"] = Script([(OUT, b"begin\n")], None)
    sandbox = smith.create_sandbox("t")
    handle = sandbox.run("cat", wait=False)
    assert isinstance(handle, CommandHandle)
    assert handle.pid
    chunk = next(iter(handle))
    assert (chunk.stream, chunk.data, chunk.offset) == ("stdout", "begin\n", 0)
    assert (handle.last_stdout_offset, handle.last_stderr_offset) == (6, 0)
    handle.send_input("more")
    assert processes.entries[handle.command_id].stdin == b"more"
    assert sandbox.reconnect(handle.command_id, stdout_offset=2).last_stdout_offset == 2
    again = handle.reconnect()
    assert (again.command_id, again.last_stdout_offset) == (handle.command_id, 6)
    handle.kill()
    assert again.result.reason == "killed"
    assert handle.process.process_id in repr(handle)
    with pytest.raises(TypeError, match="iterate over the handle"):
        sandbox.run("cat", wait=False, on_stdout=print)  # type: ignore[call-overload]


def test_wait_for_sandbox_returns_when_it_runs(smith: SandboxClient, state: State):
    sandbox = smith.create_sandbox("t", name="n")
    starting = state.sandboxes[sandbox.sandbox_id]
    starting.state = sandbox_pb2.SANDBOX_STATE_STARTING
    state.next_states[:] = [sandbox_pb2.SANDBOX_STATE_RUNNING]
    found = smith.wait_for_sandbox("n", timeout=5, poll_interval=0.1)
    assert (type(found), found.status) == (Sandbox, "running")
    starting.state = sandbox_pb2.SANDBOX_STATE_TERMINATED
    state.next_states.clear()
    with pytest.raises(SandboxNotReadyError, match="create another one"):
        smith.wait_for_sandbox(sandbox_id=sandbox.sandbox_id)


def test_errors_have_the_attributes_of_the_other_product(smith: SandboxClient, state: State):
    for reason, kind in {
        "IMAGE_NOT_FOUND": "ImagePull",
        "PULL_FAILED": "ImagePull",
        "START_FAILED": "CrashLoop",
        "LIMIT_UNSUPPORTED": "SandboxConfig",
    }.items():
        state.fail("CreateSandbox", failure(reason))
        with pytest.raises(ResourceCreationError) as creation:
            smith.create_sandbox("t")
        assert creation.value.error_type == kind
        assert isinstance(creation.value, sandpool.ResourceCreationError)
    state.fail("CreateSandbox", failure("POOL_LIMIT_REACHED", grpc.StatusCode.RESOURCE_EXHAUSTED))
    with pytest.raises(QuotaExceededError) as quota:
        smith.create_sandbox("t")
    assert quota.value.quota_type == "POOL_LIMIT_REACHED"
    violation = rpc.BadRequest.FieldViolation(field="spec.cpus", description="too many")
    details = (rpc.BadRequest(field_violations=[violation]),)
    state.fail("CreateTemplate", Failure(grpc.StatusCode.INVALID_ARGUMENT, "no", details))
    with pytest.raises(ValidationError) as validation:
        smith.create_template("t", "i")
    assert validation.value.field == "spec.cpus"
    assert [one.description for one in validation.value.details] == ["too many"]
    state.fail("CreateSandbox", failure("QUEUE_TIMEOUT", grpc.StatusCode.DEADLINE_EXCEEDED))
    with pytest.raises(ResourceTimeoutError) as late:
        smith.create_sandbox("t")
    assert late.value.last_status is None


def test_all_time_limits_raise_the_error_of_the_module(smith: SandboxClient, state: State):
    smith.create_pool("p", "t", 2)
    state.pool_steps.extend(STEPS[:1])
    with pytest.raises(ResourceTimeoutError, match="not ready within"):
        smith.wait_for_pool("p", timeout=0.3)
    assert issubclass(CommandTimeoutError, (ResourceTimeoutError, sandpool.CommandTimeoutError))
    assert CommandTimeoutError("late").timeout is None


def test_errors_have_the_names_of_the_other_product():
    assert SandboxAuthenticationError is sandpool.AuthenticationError
    assert ResourceNameConflictError is ResourceAlreadyExistsError
    assert TunnelPortNotAllowedError is sandpool.PortExposureDisabledError
    assert TunnelPortNotAllowedError("x").port is None
    assert SandboxClientError is sandpool.SandpoolError


def test_the_client_accepts_the_options_of_the_other_product(address: str, state: State):
    with SandboxClient(api_endpoint=address, api_key="key", timeout=3, max_retries=0) as client:
        state.fail("ListPools", Failure(grpc.StatusCode.UNAVAILABLE))
        with pytest.raises(sandpool.SandboxConnectionError):
            client.list_pools()
    assert len(state.sent("ListPools")) == 1
    assert round(state.remaining[0] or 0) == 3
    assert state.metadata[0]["authorization"] == "Bearer key"


async def test_the_asyncio_variant_has_the_same_behaviour(
    async_smith: AsyncSandboxClient, processes: Processes, state: State
):
    await async_smith.create_template("t", "i", cpu=0.5)
    pool = await async_smith.create_pool("p", "t", 1)
    assert [found.replicas for found in await async_smith.list_pools()] == [pool.replicas]
    async with async_smith.sandbox("t") as one, await async_smith.create(image="i") as two:
        assert {type(one), type(two)} == {AsyncSandbox}
        names = [found.name for found in await async_smith.list_sandboxes()]
        assert names == [one.name, two.name]
        processes.scripts["make"] = Script([(OUT, b"one\n")], 3)
        handle = await one.run("make", wait=False)
        assert isinstance(handle, AsyncCommandHandle)
        assert [chunk.data async for chunk in handle] == ["one\n"]
        assert (await handle.result).exit_code == 3
        processes.scripts["sleep"] = Script([], None)
        task = asyncio.create_task(one.run("sleep", idle_timeout=5))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state.sent("KillProcess")
        await async_smith.delete_sandbox(two.name)
