"""Each call that docs/peer-apis.md calls the same, written as code of the other products has it, on real containers.

What is not used here is found: the names and arguments that were used are compared with the table.
"""

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sandpool import (
    HealthCheck,
    PoolNotFoundError,
    SandboxClient,
    SandboxState,
    StdinMode,
    TemplateNotFoundError,
)
from tests.support.node_project import NodeProject
from tests.support.peer_table import Noted, kept, kept_options
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

ENDED = {SandboxState.TERMINATING, SandboxState.TERMINATED}
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "peer_calls.ts"
SLEEP = ["sh", "-c", "echo up; exec sleep 1000"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of a test's own that exposes ports too."""
    with ServerProcess(tmp_path / "data", web_address="127.0.0.1:0") as process:
        yield process


class Peer:
    """A client that notes what is used of it."""

    def __init__(self, client: SandboxClient) -> None:
        self.used: set[str] = set()
        self.client: Any = Noted(client, self.used)


@pytest.fixture
def peer(server: ServerProcess) -> Iterator[Peer]:
    with SandboxClient(server.address) as client:
        yield Peer(client)


def test_the_pool_id_style(peer: Peer, server: ServerProcess, tmp_path: Path):
    makers: Any = Noted(SandboxClient, peer.used)
    for made in (makers.for_localhost(api_url=server.address), makers.for_cloud("key", api_url=server.address)):
        assert made.list_pools() == []
        made.close()
    pools(peer.client)
    drawn(peer.client)
    with peer.client.create_and_connect("busybox:latest", entrypoint=SLEEP) as box:
        commands(box)
        processes(box)
        box_files(box, tmp_path)
        terminals(box)
        services_and_ports(peer.client, box)
    unused = kept("### The client, in the pool_id style", "### The handle, in the pool_id style") - peer.used
    assert not unused


def pools(client: Any) -> None:
    pool = client.create_pool(
        image="busybox:latest", cpus=0.5, memory_mb=64, disk_mb=64, timeout_secs=600, entrypoint=SLEEP,
        max_containers=3, warm_containers=1,
    )  # fmt: skip
    assert (pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb, pool.max_containers) == (0.5, 64, 64, 3)
    assert [one.pool_id for one in client.list_pools()] == [pool.pool_id]
    box = client.claim(pool.pool_id)
    assert client.get_pool(pool.pool_id).status.active == 1
    assert client.update_pool(pool.pool_id, image="busybox:latest", warm_containers=0).warm_containers == 0
    client.delete(box.sandbox_id)
    client.delete_pool(pool.pool_id)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)


def drawn(client: Any) -> None:
    box = client.create(
        "busybox:latest", cpus=0.5, memory_mb=64, disk_mb=64, timeout_secs=600, entrypoint=SLEEP, name="drawn"
    )
    assert client.get(box.sandbox_id).name == "drawn"
    assert [one.sandbox_id for one in client.list()] == [box.sandbox_id]
    assert client.update_sandbox(box.sandbox_id, name="renamed").name == "renamed"
    assert client.connect("renamed").sandbox_id == box.sandbox_id
    box.update(name="again")
    assert (box.name, box.status, box.info.memory_mb) == ("again", SandboxState.RUNNING, 64)
    box.close()
    again = client.connect(identifier="again")
    assert again.run("true").success
    again.terminate()
    assert client.get(box.sandbox_id).state in ENDED


def commands(box: Any) -> None:
    result = box.run("sh", ["-c", 'echo "$A in $PWD"; id -u >&2'], {"A": "b"}, "/tmp", 5, user="nobody")
    assert (result.stdout, result.exit_code, result.reason, result.timed_out) == ("b in /tmp\n", 0, "exited", False)
    assert result.stderr == "65534\n"
    late = box.run("sleep 100", timeout=0.2)
    assert (late.exit_code, late.timed_out, late.reason) == (None, True, "timed_out")


def processes(box: Any) -> None:
    cat = box.start_process(
        "sh", ["-c", "echo $A >&2; exec cat"], {"A": "b"}, "/tmp", stdin_mode=StdinMode.PIPE, user="nobody"
    )
    box.write_stdin(cat.process_id, "hello\n")
    box.close_stdin(cat.process_id)
    assert [chunk.data for chunk in box.follow_output(cat.process_id) if chunk.stream == "stdout"] == ["hello\n"]
    assert [chunk.data for chunk in box.follow_stdout(cat.process_id)] == ["hello\n"]
    assert [chunk.data for chunk in box.follow_stderr(cat.process_id)] == ["b\n"]
    assert (box.get_stdout(cat.process_id).stdout, box.get_stderr(cat.process_id).stderr) == ("hello\n", "b\n")
    assert box.get_output(cat.process_id).stdout == "hello\n"
    sleeper = box.start_process("exec sleep 1000")
    assert box.get_process(pid=sleeper.pid).process_id == sleeper.process_id
    box.send_signal(sleeper.process_id, 15)
    eventually(lambda: box.get_process(sleeper.process_id).signal == 15)
    other = box.start_process("exec sleep 1000")
    box.kill_process(pid=other.pid)
    assert {one.process_id for one in box.list_processes()} >= {sleeper.process_id, other.process_id}


def box_files(box: Any, folder: Path) -> None:
    box.write_file("/in/a", b"content")
    assert box.read_file("/in/a") == b"content"
    (folder / "local").write_bytes(b"local")
    box.upload_file(str(folder / "local"), "/in/b")
    assert [one.name for one in box.list_directory("/in").entries] == ["a", "b"]
    box.delete_file("/in/a")
    assert [one.name for one in box.list_directory("/in")] == ["b"]


def terminals(box: Any) -> None:
    pty = box.create_pty("cat")
    with box.connect_pty(pty.session_id, "token") as again:
        again.send_input("hello\n")
        shown = b""
        for data in again:
            shown += data
            if b"hello" in shown:
                break
    pty.kill()
    assert pty.wait() == 128 + 9


def services_and_ports(client: Any, box: Any) -> None:
    check = HealthCheck(port=7000, interval_secs=0.1)
    box.start_process("exec nc -ll -p 7000 -e cat", name="echo", restart="always", health_check=check)
    eventually(lambda: box.get_process("echo").health == "healthy")
    before = box.get_process("echo").pid
    assert box.restart_process("echo").pid != before
    box.write_file("/www/index.html", b"hello")
    box.start_process("echo serving; exec httpd -f -p 8000 -h /www", name="web")
    with box.create_tunnel(7000, local_host="127.0.0.1", local_port=0, connect_timeout=5) as tunnel:
        assert tunnel.remote_port == 7000
    (exposed,) = client.expose_ports(box.sandbox_id, [8000])
    assert [one.url for one in client.get_port_access(box.sandbox_id)] == [exposed.url]
    eventually(lambda: answers(exposed.url))
    client.unexpose_ports(box.sandbox_id, [8000])
    assert client.get_port_access(box.sandbox_id) == []
    lines = client.get_logs(box.sandbox_id, process_ids=["web"], tail=1)
    assert [line.text for line in lines] == ["serving"]
    assert not client.get_logs(box.sandbox_id, process_ids=["web"], next_token=lines.next_token).entries
    assert "up" in [line.text for line in box.get_logs()]


def answers(url: str) -> bool:
    """Whether the page is there. The host's name needs no name server: it is on this machine."""
    host = url.partition("://")[2].partition("/")[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(host.rpartition(":")[2]), timeout=10)
    connection.request("GET", "/index.html", headers={"Host": host})
    with closing(connection), connection.getresponse() as answer:
        return answer.read() == b"hello"


def test_the_template_style(peer: Peer):
    client = peer.client
    template = client.create_template("python-sandbox", "busybox:latest", cpu="500m", memory="64Mi", storage="64Mi")
    assert (template.cpus, template.memory_mb, template.ephemeral_disk_mb) == (0.5, 64, 64)
    assert client.update_template(name="python-sandbox", new_name="sandbox").name == "sandbox"
    assert [one.name for one in client.list_templates()] == [client.get_template("sandbox").name]
    pool = client.create_pool("python-pool", "sandbox", replicas=1, timeout=30)
    assert (pool.template_name, pool.replicas) == ("sandbox", 1)
    assert client.update_pool(name="python-pool", new_name="pool", replicas=2).replicas == 2
    assert [one.name for one in client.list_pools()] == [client.get_pool(name="pool").name]
    with client.sandbox("sandbox", name="one", timeout=60) as box:
        assert box.pool_id == pool.pool_id
        template_box(box)
    two = client.create_sandbox("sandbox", name="two", timeout=60)
    assert client.update_sandbox(name="two", new_name="three").name == "three"
    assert client.get_sandbox_status(name="three") == SandboxState.RUNNING
    assert client.wait_for_sandbox(name="three", timeout=30, poll_interval=0.5).sandbox_id == two.sandbox_id
    assert client.get_sandbox(name="three").name in [one.name for one in client.list_sandboxes()]
    client.delete_sandbox(name="three")
    assert client.get_sandbox_status(two.sandbox_id) in ENDED
    client.delete_pool(name="pool")
    client.delete_template("sandbox")
    with pytest.raises(TemplateNotFoundError):
        client.get_template("sandbox")
    client.close()
    unused = kept("### The client, in the template style", "### The handle, in the template style") - peer.used
    assert not unused


def template_box(box: Any) -> None:
    heard: list[str] = []
    run = {"timeout": 10, "env": {"A": "b"}, "cwd": "/tmp", "shell": "/bin/sh"}
    result = box.run("echo $A in $PWD; echo e >&2", on_stdout=heard.append, on_stderr=heard.append, **run)
    assert (result.stdout, result.stderr, result.exit_code, result.success) == ("b in /tmp\n", "e\n", 0, True)
    assert sorted(heard) == ["b in /tmp\n", "e\n"]
    assert result.reason == "exited"
    assert not result.timed_out
    handle = box.run(
        "echo begin; exec cat", wait=False, idle_timeout=60, kill_on_disconnect=False, ttl_seconds=60, pty=False
    )
    assert handle.pid > 0
    chunks = iter(handle)
    first = next(chunks)
    assert (first.stream, first.data, first.offset) == ("stdout", "begin\n", 0)
    handle.send_input("more\n")
    again = box.reconnect(handle.command_id, stdout_offset=6, stderr_offset=0)
    assert next(iter(again)).data == "more\n"
    assert next(iter(handle.reconnect())).data == "more\n"
    handle.kill()
    assert again.result.reason == "killed"
    box.write("/in/a", "text", timeout=10)
    assert box.read("/in/a", timeout=10) == b"text"
    with box.tunnel(7000, local_port=0, max_reconnects=1) as tunnel:
        assert tunnel.local_port > 0
    other = box.tunnel(7000)
    assert other.remote_port == 7000
    other.close()


def test_the_template_style_in_typescript(server: ServerProcess, tmp_path: Path):
    (tmp_path / "project").mkdir()
    project = NodeProject(tmp_path / "project", server.address)
    project.compile(PROGRAM.read_text(), "--lib", "es2023,esnext.disposable")
    assert not kept_options("## TypeScript") - set(project.output("program.js"))
