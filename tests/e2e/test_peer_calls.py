"""Each call that a migration guide marks as same, in the style of the other product, on containers.

The used names and arguments are compared with the tables, so the test fails for a name that is not used here.
"""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandpool import HealthCheck, PoolNotFoundError, SandboxState, TemplateNotFoundError
from sandpool.compat import langsmith, tensorlake
from tests.support.node_project import NodeProject
from tests.support.peer_table import Noted, same_names, same_options
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

TERMINATED = {SandboxState.TERMINATING, SandboxState.TERMINATED}
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "peer_calls.ts"
SLEEP = ["sh", "-c", "echo up; exec sleep 1000"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server with a web port for one test."""
    with ServerProcess(tmp_path / "data", web_address="127.0.0.1:0") as process:
        yield process


def test_supports_every_same_call_of_tensorlake(server: ServerProcess, tmp_path: Path):
    used: set[str] = set()
    clients: Any = Noted(tensorlake.SandboxClient, used)
    for found in (clients.for_localhost(api_url=server.address), clients.for_cloud("key", api_url=server.address)):
        assert found.list_pools() == []
        found.close()
    with tensorlake.SandboxClient(server.address) as owner:
        client: Any = Noted(owner, used)
        pools(client)
        sandboxes(client)
        with client.create_and_connect("busybox:latest", entrypoint=SLEEP) as sandbox:
            commands(sandbox)
            processes(sandbox)
            files(sandbox, tmp_path)
            terminals(sandbox)
            services_and_ports(client, sandbox)
    assert not same_names("tensorlake", "Client", "Handle") - used


def pools(client: Any) -> None:
    pool = client.create_pool(
        image="busybox:latest", cpus=0.5, memory_mb=64, disk_mb=64, timeout_secs=600, entrypoint=SLEEP,
        max_containers=3, warm_containers=1,
    )  # fmt: skip
    assert (pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb, pool.max_containers) == (0.5, 64, 64, 3)
    assert [found.pool_id for found in client.list_pools()] == [pool.pool_id]
    sandbox = client.claim(pool.pool_id)
    assert client.get_pool(pool.pool_id).status.active == 1
    assert client.update_pool(pool.pool_id, image="busybox:latest", warm_containers=0).warm_containers == 0
    with pytest.raises(tensorlake.PoolInUseError) as in_use:
        client.delete_pool(pool.pool_id)
    assert in_use.value.pool_id == pool.pool_id
    client.delete(sandbox.sandbox_id)
    client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)


def sandboxes(client: Any) -> None:
    sandbox = client.create(
        "busybox:latest", cpus=0.5, memory_mb=64, disk_mb=64, timeout_secs=600, entrypoint=SLEEP, name="first"
    )
    info = client.get(sandbox.sandbox_id)
    assert (info.name, info.status) == ("first", tensorlake.SandboxStatus.RUNNING)
    assert [found.sandbox_id for found in client.list()] == [sandbox.sandbox_id]
    assert client.update_sandbox(sandbox.sandbox_id, name="renamed").name == "renamed"
    assert client.connect("renamed").sandbox_id == sandbox.sandbox_id
    assert client.get_or_create("renamed", image="busybox:latest").sandbox_id == sandbox.sandbox_id
    assert sandbox.update(name="again").name == "again"
    assert (sandbox.name, sandbox.status, sandbox.info.memory_mb) == ("again", SandboxState.RUNNING, 64)
    sandbox.close()
    again = client.connect(identifier="again")
    assert again.run("true").success
    again.terminate()
    assert client.get(sandbox.sandbox_id).status in TERMINATED


def commands(sandbox: Any) -> None:
    result = sandbox.run("sh", ["-c", 'echo "$A in $PWD"; id -u >&2'], {"A": "b"}, "/tmp", 5, user="nobody")
    assert (result.stdout, result.exit_code, result.reason, result.timed_out) == ("b in /tmp\n", 0, "exited", False)
    assert result.stderr == "65534\n"
    late = sandbox.run("sleep 100", timeout=0.2)
    assert (late.exit_code, late.timed_out, late.reason) == (None, True, "timed_out")


def processes(sandbox: Any) -> None:
    cat = sandbox.start_process(
        "sh",
        ["-c", "echo $A >&2; exec cat"],
        {"A": "b"},
        "/tmp",
        stdin_mode=tensorlake.StdinMode.PIPE,
        user="nobody",
    )
    sandbox.write_stdin(cat.process_id, "hello\n")
    sandbox.close_stdin(cat.process_id)
    assert [chunk.data for chunk in sandbox.follow_output(cat.process_id) if chunk.stream == "stdout"] == ["hello\n"]
    assert [chunk.data for chunk in sandbox.follow_stdout(cat.process_id)] == ["hello\n"]
    assert [chunk.data for chunk in sandbox.follow_stderr(cat.process_id)] == ["b\n"]
    assert sandbox.get_stdout(cat.process_id).lines == ["hello"]
    assert sandbox.get_stderr(cat.process_id).lines == ["b"]
    assert sandbox.get_output(cat.process_id).lines == ["hello", "b"]
    sleeper = sandbox.start_process("exec sleep 1000")
    assert sandbox.get_process(pid=sleeper.pid).process_id == sleeper.process_id
    sandbox.send_signal(sleeper.process_id, 15)
    eventually(lambda: sandbox.get_process(sleeper.process_id).signal == 15)
    other = sandbox.start_process("exec sleep 1000")
    sandbox.kill_process(pid=other.pid)
    assert {found.process_id for found in sandbox.list_processes()} >= {sleeper.process_id, other.process_id}


def files(sandbox: Any, directory: Path) -> None:
    sandbox.write_file("/in/a", b"content")
    assert sandbox.read_file("/in/a") == b"content"
    (directory / "local").write_bytes(b"local")
    sandbox.upload_file(str(directory / "local"), "/in/b")
    assert [found.name for found in sandbox.list_directory("/in").entries] == ["a", "b"]
    sandbox.delete_file("/in/a")
    assert [found.name for found in sandbox.list_directory("/in")] == ["b"]


def terminals(sandbox: Any) -> None:
    shown: list[bytes] = []
    codes: list[int] = []
    pty = sandbox.create_pty(
        "sh", ["-c", "stty size; exec cat"], {"A": "b"}, "/tmp", 30, 90, on_data=shown.append, on_exit=codes.append
    )
    eventually(lambda: b"30 90" in b"".join(shown))
    with sandbox.connect_pty(pty.session_id, "token") as again:
        again.send_input("hello\n")
        text = b""
        for data in again:
            text += data
            if b"hello" in text:
                break
        assert again.pid == pty.pid
    pty.kill()
    assert pty.wait() == 128 + 9
    assert codes == [128 + 9]
    other = sandbox.create_pty("read line; stty size; exit 3")
    last = sandbox.connect_pty(other.session_id, "token", on_data=shown.append, on_exit=codes.append)
    last.resize(100, 40)
    other.send_input("go\n")
    assert last.wait() == 3
    assert b"40 100" in b"".join(shown)
    assert codes[1:] == [3]
    other.disconnect()


def services_and_ports(client: Any, sandbox: Any) -> None:
    check = HealthCheck(port=7000, interval=0.1)
    sandbox.start_process("exec nc -ll -p 7000 -e cat", name="echo", restart="always", health_check=check)
    eventually(lambda: sandbox.get_process("echo").health == "healthy")
    before = sandbox.get_process("echo").pid
    assert sandbox.restart_process("echo").pid != before
    sandbox.write_file("/www/index.html", b"hello")
    sandbox.start_process("echo serving; exec httpd -f -p 8000 -h /www", name="web")
    with sandbox.create_tunnel(7000, local_host="127.0.0.1", local_port=0, connect_timeout=5) as tunnel:
        assert tunnel.remote_port == 7000
    (exposed,) = client.expose_ports(sandbox.sandbox_id, ports=[8000])
    assert [found.url for found in client.get_port_access(sandbox.sandbox_id)] == [exposed.url]
    eventually(lambda: serves_the_page(exposed.url))
    client.unexpose_ports(sandbox.sandbox_id, ports=[8000])
    assert client.get_port_access(sandbox.sandbox_id) == []
    lines = client.get_logs(sandbox.sandbox_id, process_ids=["web"], tail=1)
    assert [line.text for line in lines] == ["serving"]
    assert not client.get_logs(sandbox.sandbox_id, process_ids=["web"], next_token=lines.next_token).logs
    assert "up" in [line.text for line in sandbox.get_logs()]


def serves_the_page(url: str) -> bool:
    """Return whether a URL serves the page. Its host name is that of this machine, and no name server knows it."""
    host = url.partition("://")[2].partition("/")[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(host.rpartition(":")[2]), timeout=10)
    connection.request("GET", "/index.html", headers={"Host": host})
    with closing(connection), connection.getresponse() as response:
        return response.read() == b"hello"


def test_supports_every_same_call_of_langsmith(server: ServerProcess):
    used: set[str] = set()
    module: Any = Noted(langsmith, used)
    client = module.SandboxClient(api_endpoint=server.address, timeout=60, api_key="key", max_retries=3)
    template = client.create_template("python-sandbox", "busybox:latest", cpu="500m", memory="64Mi", storage="64Mi")
    assert (template.cpus, template.memory_mb, template.ephemeral_disk_mb) == (0.5, 64, 64)
    assert client.update_template(name="python-sandbox", new_name="sandbox").name == "sandbox"
    assert [found.name for found in client.list_templates()] == [client.get_template("sandbox").name]
    pool = client.create_pool("python-pool", "sandbox", replicas=1, timeout=30)
    assert (pool.template_name, pool.replicas) == ("sandbox", 1)
    assert client.update_pool(name="python-pool", new_name="pool", replicas=2).size == 2
    assert [found.name for found in client.list_pools()] == [client.get_pool(name="pool").name]
    with client.sandbox("sandbox", name="one", timeout=60) as sandbox:
        assert (sandbox.info.pool_id, sandbox.template_name) == (pool.pool_id, "sandbox")
        langsmith_handle(sandbox)
    two = client.create_sandbox("sandbox", name="two", timeout=60)
    assert client.update_sandbox(name="two", new_name="three").name == "three"
    assert client.get_sandbox_status(name="three") == SandboxState.RUNNING
    assert client.wait_for_sandbox(name="three", timeout=30, poll_interval=0.5).sandbox_id == two.sandbox_id
    assert client.get_sandbox(name="three").name in [found.name for found in client.list_sandboxes()]
    client.delete_sandbox(name="three")
    assert client.get_sandbox_status(two.sandbox_id) in TERMINATED
    unnamed = client.create_sandbox("sandbox")
    client.delete_sandbox(unnamed.name)
    assert client.get_sandbox_status(sandbox_id=unnamed.sandbox_id) in TERMINATED
    client.delete_pool(name="pool")
    client.delete_template("sandbox")
    with pytest.raises(TemplateNotFoundError):
        client.get_template("sandbox")
    client.close()
    assert not same_names("langsmith", "Client", "Handle") - used


def langsmith_handle(sandbox: Any) -> None:
    heard: list[str] = []
    options = {"timeout": 10, "env": {"A": "b"}, "cwd": "/tmp", "shell": "/bin/sh"}
    result = sandbox.run("echo $A in $PWD; echo e >&2", on_stdout=heard.append, on_stderr=heard.append, **options)
    assert (result.stdout, result.stderr, result.exit_code, result.success) == ("b in /tmp\n", "e\n", 0, True)
    assert sorted(heard) == ["b in /tmp\n", "e\n"]
    assert (result.reason, result.timed_out) == ("exited", False)
    assert sandbox.run("tty", pty=True, ttl_seconds=5).stdout.startswith("/dev/pts/")
    handle = sandbox.run(
        "echo begin; exec cat", wait=False, idle_timeout=60, kill_on_disconnect=False, ttl_seconds=60, pty=False
    )
    assert handle.pid > 0
    chunks = iter(handle)
    first = next(chunks)
    assert (first.stream, first.data, first.offset) == ("stdout", "begin\n", 0)
    assert (handle.last_stdout_offset, handle.last_stderr_offset) == (6, 0)
    handle.send_input("more\n")
    again = sandbox.reconnect(handle.command_id, stdout_offset=6, stderr_offset=0)
    assert next(iter(again)).data == "more\n"
    assert next(iter(handle.reconnect())).data == "more\n"
    handle.kill()
    assert again.result.reason == "killed"
    sandbox.write("/in/a", content="text", timeout=10)
    assert sandbox.read("/in/a", timeout=10) == b"text"
    with sandbox.tunnel(7000, local_port=0, max_reconnects=1) as tunnel:
        assert tunnel.local_port > 0
    other = sandbox.tunnel(7000)
    assert other.remote_port == 7000
    other.close()


def test_supports_every_same_call_of_langsmith_in_typescript(server: ServerProcess, tmp_path: Path):
    (tmp_path / "project").mkdir()
    project = NodeProject(tmp_path / "project", server.address)
    project.compile(PROGRAM.read_text(), "--lib", "es2023,esnext.disposable")
    assert not same_options("langsmith") - set(project.output("program.js"))
