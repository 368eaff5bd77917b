"""The module `tensorlake`: the names, argument orders and results of the other product."""

import threading
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2 as rpc

from sandpool import ProcessNotFoundError, RetryPolicy, SandboxInfo, SandboxNotReadyError, ServerError
from sandpool.compat.tensorlake import (
    AsyncSandbox,
    AsyncSandboxClient,
    PoolInUseError,
    RemoteAPIError,
    Sandbox,
    SandboxClient,
    SandboxError,
    SandboxPending,
    SandboxPoolInfo,
    SandboxStatus,
    StdinMode,
)
from sandpool.v1 import sandbox_pb2
from tests.clients.python.processes import ERR, OUT, Processes, Script
from tests.clients.python.state import Failure, State
from tests.support.documents import document, python_blocks, run
from tests.support.scripted_server import scripted

SANDBOX = {"sandbox_id": "sbx-1", "state": "SANDBOX_STATE_RUNNING", "spec": {"image": "i"}}


def test_the_documented_calls_work(lake: SandboxClient):
    pool = lake.create_pool(
        image="python:3.11-slim", cpus=1.0, memory_mb=512, ephemeral_disk_mb=1024, warm_containers=3
    )
    assert isinstance(pool, SandboxPoolInfo)
    sandbox = lake.create(pool_id=pool.pool_id)
    assert sandbox.sandbox_id
    assert [(found.pool_id, found.image, found.warm_containers) for found in lake.list_pools()] == [
        (pool.pool_id, "python:3.11-slim", 3)
    ]
    updated = lake.update_pool(pool_id=pool.pool_id, image="python:3.11-slim", warm_containers=5, max_containers=20)
    assert (updated.warm_containers, updated.max_containers) == (5, 20)
    lake.delete_pool(pool.pool_id)


def test_the_document_runs_with_the_other_import(address: str, monkeypatch: pytest.MonkeyPatch):
    try:
        text = document("tensorlake")
    except FileNotFoundError:
        pytest.skip("the documents are not beside the clone")
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    names: dict[str, object] = {}
    for block in python_blocks(text):
        run(block, names, "sandpool.compat.tensorlake")
    assert type(names["client"]) is SandboxClient


def test_creates_clients_for_localhost_and_for_the_cloud(address: str, state: State, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SANDPOOL_API_KEY", "environment")
    with SandboxClient.for_localhost(address) as local, SandboxClient.for_cloud("key", address) as cloud:
        assert local.list_pools() == cloud.list_pools() == []
    assert [found.get("authorization") for found in state.metadata] == [None, "Bearer key"]
    monkeypatch.delenv("SANDPOOL_ADDRESS", raising=False)
    assert SandboxClient.for_localhost().address == "127.0.0.1:50051"
    with pytest.raises(ValueError, match="SANDPOOL_ADDRESS"):
        SandboxClient.for_cloud("key")
    monkeypatch.setenv("SANDPOOL_ADDRESS", "https://box.example")
    assert AsyncSandboxClient.for_cloud("key").address == "box.example:443"
    assert SandboxClient(api_url="box.example").address == SandboxClient("box.example", "key").address
    with pytest.raises(TypeError, match="address and api_url mean the same"):
        SandboxClient("a.example", api_url="b.example")


def test_accepts_the_image_as_the_first_argument_and_disk_mb(lake: SandboxClient, state: State):
    pool = lake.create_pool("i", cpus=0.5, disk_mb=64, entrypoint=["sleep", "1"], name="n")
    assert (pool.image, pool.name, pool.ephemeral_disk_mb) == ("i", "n", 64)
    assert lake.update_pool(pool.pool_id, "j", disk_mb=128, name=None).ephemeral_disk_mb == 128
    assert list(state.sent("UpdatePool")[0].update_mask.paths) == ["spec.image", "spec.ephemeral_disk_mb", "name"]
    assert lake.create("i", disk_mb=64).info.ephemeral_disk_mb == 64
    with pytest.raises(TypeError, match="ephemeral_disk_mb and disk_mb mean the same"):
        lake.create("i", ephemeral_disk_mb=1, disk_mb=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gpus'"):
        lake.create("i", gpus=1)  # type: ignore[call-arg]


def test_methods_that_create_return_handles_of_the_module(lake: SandboxClient, state: State):
    pool = lake.create_pool("i")
    with lake.claim(pool.pool_id, metadata={"a": "b"}) as one, lake.create_and_connect("i") as two:
        assert {type(one), type(two), *map(type, lake.create_batch(2, pool_id="p"))} == {Sandbox}
        assert {type(found) for found in lake.list_sandboxes()} == {Sandbox}
        assert one.info.metadata == {"a": "b"}
    states = [state.sandboxes[found.sandbox_id].state for found in (one, two)]
    assert states == [sandbox_pb2.SANDBOX_STATE_TERMINATED] * 2, "deleted at the end of the block"
    with lake.get_sandbox(one.sandbox_id) as found, lake.connect(one.sandbox_id):
        assert type(found) is Sandbox


def test_get_and_list_return_descriptions(lake: SandboxClient):
    sandbox = lake.create("i", name="n")
    info = lake.get("n")
    assert isinstance(info, SandboxInfo)
    assert (info.sandbox_id, info.status, sandbox.status) == (sandbox.sandbox_id, SandboxStatus.RUNNING, "running")
    assert lake.list(states=["running"]) == [info]
    assert lake.update_sandbox("n", "m", timeout_secs=60).name == "m"
    assert sandbox.update("o", metadata={"a": "b"}).metadata == {"a": "b"}
    assert (sandbox.name, sandbox.info.status) == ("o", "running")
    lake.delete(sandbox.sandbox_id)
    sandbox.terminate()
    assert lake.get(sandbox.sandbox_id).status == "terminated"


def test_get_or_create_returns_the_sandbox_with_the_name(lake: SandboxClient, state: State):
    first = lake.get_or_create("mine", pool_id="p")
    assert lake.get_or_create("mine", image="i").sandbox_id == first.sandbox_id
    assert len(state.sent("CreateSandbox")) == 1
    with lake.get_or_create("mine", pool_id="p"):
        pass
    assert lake.get("mine").status == "running", "the block did not create it"
    with pytest.raises(TypeError, match="exactly one"):
        lake.get_or_create("other")


def test_get_or_create_waits_for_a_sandbox_that_another_caller_creates(lake: SandboxClient, state: State):
    sandbox = lake.create("i", name="n")
    state.sandboxes[sandbox.sandbox_id].state = sandbox_pb2.SANDBOX_STATE_STARTING
    state.next_states[:] = [sandbox_pb2.SANDBOX_STATE_RUNNING]
    assert lake.get_or_create("n", image="i").status == "running"
    state.next_states[:] = [sandbox_pb2.SANDBOX_STATE_TERMINATED]
    with pytest.raises(SandboxPending, match="terminated"):
        lake.get_or_create("n", image="i")


def test_run_accepts_positional_arguments_and_has_no_default_timeout(lake: SandboxClient, state: State):
    sandbox = lake.create("i")
    sandbox.run("sh", ["-c", "true"], {"A": "b"}, "/tmp", 5, "nobody")
    sandbox.run("ls | wc", cwd="/srv", on_stdout=print)
    first, second = (request.start for request in state.sent("ConnectProcess"))
    assert (list(first.argv), first.env, first.working_dir, first.user) == (
        ["sh", "-c", "true"],
        {"A": "b"},
        "/tmp",
        "nobody",
    )
    assert (first.timeout.seconds, second.command, second.working_dir) == (5, "ls | wc", "/srv")
    assert not second.HasField("timeout")
    with pytest.raises(TypeError, match="cwd and working_dir mean the same"):
        sandbox.run("true", working_dir="/tmp", cwd="/tmp")
    with pytest.raises(TypeError, match="add the arguments to the list"):
        sandbox.run(["ls"], ["-l"])
    with pytest.raises(TypeError, match="args must be a list"):
        sandbox.run("ls", "-l")


def test_processes_are_found_by_identifier_name_and_pid(lake: SandboxClient, processes: Processes):
    processes.scripts["cat"] = processes.scripts["cat -u"] = Script(exit_code=None)
    sandbox = lake.create("i")
    cat = sandbox.start_process("cat", None, {"A": "b"}, "/tmp", StdinMode.PIPE, user="nobody")
    assert cat.stdin_open
    sandbox.write_stdin(cat.process_id, "hello")
    sandbox.send_signal(pid=cat.pid)
    sandbox.close_stdin(cat.process_id)
    assert sandbox.get_process(cat.process_id).exit_code == 5
    other = sandbox.start_process("cat -u", stdin_mode="closed", name="service", restart="always")
    assert sandbox.get_process(other.pid).process_id == sandbox.get_process(pid=other.pid).process_id
    assert sandbox.restart_process(other.process_id).restarts == 1
    sandbox.kill_process(pid=other.pid)
    assert sandbox.get_process(other.process_id).signal == 9
    assert [found.process_id for found in sandbox.list_processes()] == [cat.process_id, other.process_id]
    with pytest.raises(ProcessNotFoundError, match="process id 999"):
        sandbox.get_process(pid=999)
    for wrong in ({}, {"process": "a", "pid": 1}):
        with pytest.raises(TypeError, match="exactly one of process and pid"):
            sandbox.get_process(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'open' is not a valid StdinMode"):
        sandbox.start_process("cat", stdin_mode="open")


def test_output_is_read_by_stream(lake: SandboxClient, processes: Processes):
    processes.scripts["make"] = Script([(OUT, b"one\n"), (ERR, b"two\n")])
    sandbox = lake.create("i")
    make = sandbox.start_process("make").process_id
    assert [chunk.data for chunk in sandbox.follow_output(make)] == ["one\n", "two\n"]
    assert [chunk.data for chunk in sandbox.follow_stdout(make)] == ["one\n"]
    assert [chunk.data for chunk in sandbox.follow_stderr(make)] == ["two\n"]
    assert sandbox.get_output(make).lines == ["one", "two"]
    assert sandbox.get_stdout(make).lines == ["one"]
    assert sandbox.get_stderr(make).stderr_bytes == b"two\n"


def test_terminals_have_the_names_of_a_pty(lake: SandboxClient, processes: Processes):
    processes.scripts["top"] = Script([(OUT, b"shown")], None)
    sandbox = lake.create("i")
    shown, codes, exited = [], [], threading.Event()

    def on_exit(code: int) -> None:
        codes.append(code)
        exited.set()

    pty = sandbox.create_pty("top", None, None, "/tmp", 30, 90, on_data=shown.append, on_exit=on_exit)
    pty.send_input("q")
    pty.resize(100, 40)
    size = processes.entries[pty.session_id].message.terminal
    assert (size.cols, size.rows) == (100, 40)
    with sandbox.connect_pty(pty.session_id, "token") as other:
        assert next(iter(other)) == b"shown"
        assert other.pid == pty.pid
    assert pty.wait() == 128 + 9
    assert exited.wait(10)
    assert (shown, codes) == ([b"shown"], [128 + 9])
    with pytest.raises(TypeError, match="do not give on_exit"):
        next(iter(pty))


def test_a_pty_that_is_disconnected_reports_no_exit(lake: SandboxClient, processes: Processes):
    processes.scripts["top"] = Script([], None)
    codes: list[int] = []
    pty = lake.create("i").create_pty("top", on_exit=codes.append)
    pty.disconnect()
    assert not codes
    assert not processes.entries[pty.session_id].ended.is_set()


def test_files_have_short_names(tmp_path: Path):
    listing = {"files": [{"path": "/in/a", "type": "FILE_TYPE_FILE"}, {"path": "/in/b", "type": "FILE_TYPE_DIRECTORY"}]}
    script = {
        "GetSandbox": [{"response": {"sandbox": SANDBOX}}],
        "WriteFile": [{"response": {"file": {"path": "/in/a"}}}],
        "ReadFile": [{"responses": [{"file": {"path": "/in/a", "size": 3}}, {"data": "YWJj"}]}],
        "ListDirectory": [{"response": listing}],
        "RemoveFile": [{"response": {}}],
    }
    with scripted(script) as server, SandboxClient(server.address) as client:
        sandbox = client.connect("sbx-1")
        assert [(one.name, one.is_dir) for one in sandbox.list_directory("/in").entries] == [("a", False), ("b", True)]
        assert len(sandbox.list_directory("/in")) == len(list(sandbox.list_directory("/in"))) == 2
        sandbox.delete_file("/in/a")
    assert server.calls[-1].message == {"sandbox_id": "sbx-1", "path": "/in/a"}


def test_ports_are_exposed_by_the_client_and_by_the_handle():
    exposed = {"port": 80, "url": "http://x"}
    script = {
        "GetSandbox": [{"response": {"sandbox": SANDBOX}}],
        "ExposePort": [{"response": {"exposed_port": exposed}}],
        "UnexposePort": [{"response": {}}],
        "ListExposedPorts": [{"response": {"exposed_ports": [exposed]}}],
    }
    with scripted(script) as server, SandboxClient(server.address) as client:
        assert [one.url for one in client.expose_ports("sbx-1", ports=[80, 81])] == ["http://x"] * 2
        assert client.get_port_access("sbx-1") == client.connect("sbx-1").get_port_access()
        client.unexpose_ports("sbx-1", 80)
        assert len(client.connect("sbx-1").expose_ports(80)) == 1
    assert [call.message["port"] for call in server.calls if call.method == "ExposePort"] == [80, 81, 80]


def test_logs_continue_after_a_token():
    lines = [{"sequence": 7, "source": "entrypoint", "text": "up"}]
    script = {
        "GetSandbox": [{"response": {"sandbox": SANDBOX}}],
        "ReadLogs": [{"responses": [{"entries": lines}]}, {"responses": []}],
    }
    with scripted(script) as server, SandboxClient(server.address) as client:
        first = client.get_logs("sbx-1", process_ids=["entrypoint"], tail=1)
        assert ([line.text for line in first], first.next_token, len(first)) == (["up"], "7", 1)
        assert client.get_logs("sbx-1", next_token=first.next_token).next_token == "7"
    last = server.calls[-1].message
    assert last["after_sequence"] == "7"


async def test_a_tunnel_listens_on_the_remote_port_by_default(async_lake: AsyncSandboxClient, unused_address: str):
    free = int(unused_address.rpartition(":")[2])
    async with await async_lake.create("i") as sandbox, sandbox.create_tunnel(free) as tunnel:
        assert (tunnel.local_port, tunnel.remote_port) == (free, free)
    async with await async_lake.create("i") as sandbox, sandbox.create_tunnel(free, local_port=0) as tunnel:
        assert tunnel.local_port != free


def test_errors_have_the_names_of_the_other_product(lake: SandboxClient, state: State):
    in_use = (
        rpc.ErrorInfo(reason="POOL_IN_USE", domain="sandpool"),
        rpc.ResourceInfo(resource_type="pool", resource_name="p"),
    )
    state.fail("DeletePool", Failure(grpc.StatusCode.FAILED_PRECONDITION, "in use", in_use))
    with pytest.raises(PoolInUseError) as caught:
        lake.delete_pool("p")
    assert caught.value.pool_id == "p"
    state.fail("ListPools", Failure(grpc.StatusCode.INTERNAL))
    with pytest.raises(RemoteAPIError):
        lake.list_pools()
    assert (SandboxPending, RemoteAPIError) == (SandboxNotReadyError, ServerError)
    assert issubclass(PoolInUseError, SandboxError)


async def test_the_asyncio_variant_awaits_lists_and_creates_handles_of_the_module(
    async_lake: AsyncSandboxClient, processes: Processes
):
    pool = await async_lake.create_pool("i")
    assert [found.pool_id for found in await async_lake.list_pools()] == [pool.pool_id]
    async with async_lake.claim(pool.pool_id) as one, await async_lake.get_or_create("n", image="i") as two:
        assert {type(one), type(two)} == {AsyncSandbox}
        assert len(await async_lake.list()) == 2
        processes.scripts["top"] = Script([(OUT, b"shown")], 3)
        codes: list[int] = []
        pty = await one.create_pty("top", on_exit=codes.append)
        assert (await pty.wait(), codes) == (3, [3])


def test_a_client_accepts_the_options_of_the_core():
    with SandboxClient("box.example", request_timeout=None, retry=RetryPolicy(max_attempts=1)) as client:
        assert client.address == "box.example:50051"
