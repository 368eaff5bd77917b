"""Network failures and restarts of the server: the client loses no data and runs no command twice."""

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandpool import (
    AsyncSandboxClient,
    FileChange,
    OutputStream,
    PoolEventType,
    RetryPolicy,
    Sandbox,
    SandboxClient,
    SandboxConnectionError,
    SandboxState,
)
from sandpool._transport.local_files import Unpacking, archive
from tests.support.cut_proxy import CutProxy
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"
RETRY = RetryPolicy(max_attempts=8, initial_delay=0.02, max_delay=0.2)
LINES = 400
LONG = (
    f"echo ran >> /runs; i=0; while [ $i -lt {LINES} ]; do echo line $i; echo warning $i >&2; i=$((i+1)); "
    "[ $((i % 40)) = 0 ] && sleep 0.1; done; exit 5"
)
OUT = "".join(f"line {number}\n" for number in range(LINES))
ERR = "".join(f"warning {number}\n" for number in range(LINES))


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[CutProxy]:
    with CutProxy(server.address) as made:
        yield made


@pytest.fixture
def cut_client(proxy: CutProxy) -> Iterator[SandboxClient]:
    with SandboxClient(proxy.address, retry=RETRY) as made:
        yield made


@pytest.fixture
def box(cut_client: SandboxClient) -> Iterator[Sandbox]:
    with cut_client.create(image=IMAGE, ephemeral_disk_mb=256) as made:
        yield made


def test_a_command_survives_repeated_network_failures(box: Sandbox, proxy: CutProxy):
    received: list[str] = []

    def listen(text: str) -> None:
        received.append(text)
        if sum(map(len, received)) > 800 * (proxy.cuts + 1) and proxy.cuts < 5:
            proxy.cut()

    result = box.run(LONG, on_stdout=listen)
    assert (result.stdout, result.stderr, result.exit_code) == (OUT, ERR, 5)
    assert "".join(received) == OUT
    assert proxy.cuts >= 4
    assert box.files.read("/runs") == b"ran\n", "the command ran once"


async def test_a_process_survives_network_failures_with_asyncio(proxy: CutProxy):
    got = {OutputStream.STDOUT: "", OutputStream.STDERR: ""}
    async with AsyncSandboxClient(proxy.address, retry=RETRY) as client, client.create(image=IMAGE) as box:
        process = await box.processes.start(LONG)
        async for chunk in process:
            got[chunk.stream] += chunk.data
            if len(got[OutputStream.STDOUT]) > 800 * (proxy.cuts + 1) and proxy.cuts < 5:
                proxy.cut()
        assert (await process.wait()).exit_code == 5
        assert (await process.wait()).stdout == OUT
        assert await box.files.read("/runs") == b"ran\n"
    assert list(got.values()) == [OUT, ERR]
    assert proxy.cuts >= 4


def test_a_command_survives_a_network_outage(box: Sandbox, proxy: CutProxy):
    started = threading.Event()

    def listen(_: str) -> None:
        if not started.is_set():
            started.set()
            proxy.refusing = True
            proxy.cut()
            timer = threading.Timer(1.5, lambda: setattr(proxy, "refusing", False))
            timer.start()

    assert box.run(LONG, on_stdout=listen).stdout == OUT
    assert proxy.refusing is False


def test_input_is_written_once_over_network_failures(box: Sandbox, proxy: CutProxy):
    process = box.processes.start("cat; exit 3", stdin=True)
    for number in range(20):
        process.write_stdin(f"{number}\n")
        if number % 5 == 0:
            proxy.cut()
    process.close_stdin()
    assert process.wait().stdout == "".join(f"{number}\n" for number in range(20))
    assert process.wait().exit_code == 3


def test_a_log_is_followed_over_network_failures(box: Sandbox, proxy: CutProxy):
    lines = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"
    box.processes.start(lines, name="job")
    seen = []
    entries = box.logs(follow=True, sources=["job"])
    for entry in entries:
        seen.append(entry.text)
        if len(seen) in {10, 30, 50}:
            proxy.cut()
        if len(seen) == 60:
            break
    entries.close()
    assert seen == [f"line {number}" for number in range(60)]
    assert proxy.cuts >= 3


def test_a_tunnel_opens_new_connections_after_a_network_failure(box: Sandbox, proxy: CutProxy):
    box.processes.start("exec nc -ll -p 7000 -e cat", name="echo")
    with box.ports.tunnel(7000) as tunnel:
        for cut in (False, True):
            for _ in range(100):
                with socket.create_connection(("127.0.0.1", tunnel.local_port), timeout=20) as connection:
                    connection.sendall(b"hello")
                    if connection.recv(5) == b"hello":
                        if cut:
                            proxy.cut()
                            assert connection.recv(5) == b"", "open connections are closed"
                        break
            else:
                raise AssertionError("no connection was opened")
        with socket.create_connection(("127.0.0.1", tunnel.local_port), timeout=20) as connection:
            connection.sendall(b"again")
            assert connection.recv(5) == b"again", "the next connection is opened"


def test_a_watch_of_named_pools_reports_a_deletion_during_an_outage(
    cut_client: SandboxClient, client: SandboxClient, proxy: CutProxy
):
    remaining, deleted = (cut_client.create_pool(image=IMAGE) for _ in range(2))
    events = cut_client.watch_pools(remaining.pool_id, deleted.pool_id, timeout=60)
    assert {next(events).pool.pool_id for _ in range(2)} == {remaining.pool_id, deleted.pool_id}
    proxy.refusing = True
    proxy.cut()
    client.delete_pool(deleted.pool_id)
    proxy.refusing = False
    reported = []
    for event in events:
        reported.append((event.type, event.pool.pool_id))
        if event.type is PoolEventType.CURRENT:
            break
    assert reported == [(PoolEventType.DELETED, deleted.pool_id), (PoolEventType.CURRENT, remaining.pool_id)]
    client.update_pool(remaining.pool_id, name="renamed")
    assert next(event for event in events if event.pool.name).type is PoolEventType.CHANGED
    client.delete_pool(remaining.pool_id)
    assert next(event for event in events if event.type is PoolEventType.DELETED).pool.pool_id == remaining.pool_id
    events.close()


def test_a_watch_of_all_pools_reports_a_deletion_during_an_outage(
    cut_client: SandboxClient, client: SandboxClient, proxy: CutProxy
):
    remaining, deleted = (client.create_pool(image=IMAGE) for _ in range(2))
    with closing(cut_client.watch_pools(timeout=60)) as events:
        assert {next(events).pool.pool_id for _ in range(2)} == {remaining.pool_id, deleted.pool_id}
        proxy.refusing = True
        proxy.cut()
        client.delete_pool(deleted.pool_id)
        new = client.create_pool(image=IMAGE)
        proxy.refusing = False
        reported = {}
        while len(reported) < 3:
            event = next(events)
            reported[event.pool.pool_id] = event.type
    assert reported.pop(deleted.pool_id) is PoolEventType.DELETED
    assert set(reported) == {remaining.pool_id, new.pool_id}
    assert proxy.cuts > 0
    for pool in (remaining, new):
        client.delete_pool(pool.pool_id)


def test_a_watch_of_all_pools_continues_after_a_restart_of_the_server(own_server: ServerProcess):
    with SandboxClient(own_server.address) as client, closing(client.watch_pools(timeout=60)) as events:
        deleted, remaining = (client.create_pool(image=IMAGE) for _ in range(2))
        while next(events).pool.pool_id != remaining.pool_id:
            pass
        own_server.kill()
        own_server.start()
        client.delete_pool(deleted.pool_id)
        seen: list[tuple[PoolEventType, str]] = []
        while (PoolEventType.DELETED, deleted.pool_id) not in seen:
            event = next(events)
            seen.append((event.type, event.pool.pool_id))
        client.delete_pool(remaining.pool_id)
        while (PoolEventType.DELETED, remaining.pool_id) not in seen:
            event = next(events)
            seen.append((event.type, event.pool.pool_id))
    found = [pool_id for kind, pool_id in seen if kind is PoolEventType.DELETED]
    assert found == [deleted.pool_id, remaining.pool_id]


def test_watches_of_a_sandbox_continue_after_network_failures(box: Sandbox, proxy: CutProxy):
    box.files.mkdir("/watched")
    changes = box.files.watch("/watched", timeout=60)
    box.files.write("/watched/before", "x")
    assert next(changes).path.startswith("/watched/")
    proxy.cut()
    assert next(change for change in changes if change.change is FileChange.OVERFLOW).path == "/watched"
    box.files.write("/watched/after", "x")
    assert next(change for change in changes if change.path == "/watched/after")
    changes.close()
    metrics = box.watch_metrics(interval=0.1, timeout=60)
    first = next(metrics)
    proxy.cut()
    assert next(metrics).time > first.time
    metrics.close()
    states = []
    for info in box.watch(timeout=60):
        states.append(info.state)
        if len(states) == 1:
            proxy.cut()
        elif len(states) == 2:
            box.delete()
    assert states[:2] == [SandboxState.RUNNING, SandboxState.RUNNING]
    assert states[-1] is SandboxState.TERMINATED


async def test_a_watch_continues_with_asyncio(proxy: CutProxy):
    async with AsyncSandboxClient(proxy.address, retry=RETRY) as client, client.create(image=IMAGE) as box:
        states = []
        async for info in box.watch(timeout=60):
            states.append(info.state)
            if len(states) == 1:
                proxy.cut()
            elif len(states) == 2:
                await box.delete()
        assert states[:2] == [SandboxState.RUNNING, SandboxState.RUNNING]
        assert states[-1] is SandboxState.TERMINATED


def test_a_broken_directory_transfer_starts_again(
    box: Sandbox, proxy: CutProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "up").mkdir()
    content = os.urandom(12 * 1024 * 1024)
    (tmp_path / "up" / "big").write_bytes(content)

    sent = []

    def breaking(directory: str) -> Iterator[bytes]:
        for number, part in enumerate(archive(directory)):
            sent.append(len(part))
            if number == 4 and proxy.cuts < 2:
                proxy.cut()
            yield part

    monkeypatch.setattr("sandpool._sync.transfer.archive", breaking)
    assert box.files.upload_directory(tmp_path / "up", "/directory").bytes_written == len(content)
    assert sum(sent) > len(content) + 5 * 1024 * 1024, "the transfer started again"
    assert box.run("sha256sum /directory/big").stdout.split()[0] == hashlib.sha256(content).hexdigest()

    received = []

    class Breaking(Unpacking):
        def write(self, data: bytes) -> None:
            received.append(len(data))
            if len(received) == 4:
                proxy.cut()
            super().write(data)

    monkeypatch.setattr("sandpool._sync.transfer.Unpacking", Breaking)
    box.files.download_directory("/directory", tmp_path / "down")
    assert sum(received) > len(content), "the transfer started again"
    assert (tmp_path / "down" / "big").read_bytes() == content


def test_an_incomplete_directory_upload_raises(box: Sandbox, proxy: CutProxy, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with SandboxClient(proxy.address, retry=RetryPolicy(max_attempts=2, initial_delay=0.01)) as impatient:
        its_box = impatient.get_sandbox(box.sandbox_id)
        proxy.refusing = True
        proxy.cut()
        try:
            with pytest.raises(
                SandboxConnectionError, match="/directory may contain a part of the directory; upload it again"
            ) as caught:
                its_box.files.upload_directory(tmp_path, "/directory")
        finally:
            proxy.refusing = False
    assert (caught.value.reason, caught.value.resource_name) == ("UPLOAD_INCOMPLETE", "/directory")


def test_file_transfers_survive_repeated_network_failures(server: ServerProcess, tmp_path: Path):
    content = os.urandom(24 * 1024 * 1024)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "up").write_bytes(content)
    with CutProxy(server.address) as proxy, SandboxClient(proxy.address, retry=RETRY) as client:
        box = client.create(image=IMAGE, ephemeral_disk_mb=256)
        marks = {6, 12, 18}

        def cut_at(done: int, _total: int) -> None:
            passed = {mark for mark in marks if done >= mark * 1024 * 1024}
            if passed:
                marks.difference_update(passed)
                proxy.cut()

        box.files.upload(tmp_path / "up", "/big", on_progress=cut_at)
        assert marks == set()
        assert box.run("sha256sum /big").stdout.split()[0] == digest
        marks.update({5, 10, 15})
        box.files.download("/big", tmp_path / "down", on_progress=cut_at)
        assert marks == set()
        assert hashlib.sha256((tmp_path / "down").read_bytes()).hexdigest() == digest
        assert proxy.cuts >= 6
        box.delete()


def test_file_transfers_survive_a_restart_of_the_server(own_server: ServerProcess, tmp_path: Path):
    content = os.urandom(24 * 1024 * 1024)
    (tmp_path / "up").write_bytes(content)
    with SandboxClient(own_server.address) as client:
        box = client.create(image=IMAGE, ephemeral_disk_mb=256)
        kills: list[int] = []

        def kill_during(done: int, total: int) -> None:
            if done >= total // 3 and len(kills) < 1:
                kills.append(done)
                own_server.kill()
                own_server.start()

        box.files.upload(tmp_path / "up", "/big", on_progress=kill_during)
        assert kills.pop() < len(content)
        box.files.download("/big", tmp_path / "down", on_progress=kill_during)
        assert kills.pop() < len(content)
        assert (tmp_path / "down").read_bytes() == content
        box.delete()


def test_a_command_survives_restarts_of_the_server(own_server: ServerProcess):
    with SandboxClient(own_server.address, retry=RETRY) as client:
        box = client.create(image=IMAGE)
        killed = threading.Event()

        def listen(text: str) -> None:
            if "line 50\n" in text or "line 120\n" in text:
                own_server.kill()
                own_server.start()
                killed.set()

        result = box.run(LONG, on_stdout=listen)
        assert killed.is_set()
        assert (result.stdout, result.stderr, result.exit_code) == (OUT, ERR, 5)
        assert box.files.read("/runs") == b"ran\n"


async def test_serves_a_thousand_concurrent_calls(server: ServerProcess):
    """One client in one process sends reads and commands."""
    calls, commands = 1000, 100
    async with AsyncSandboxClient(server.address, request_timeout=90) as client, client.create(image=IMAGE) as box:
        found = await asyncio.gather(*[client.get_sandbox(box.sandbox_id) for _ in range(calls)])
        assert {one.state for one in found} == {SandboxState.RUNNING}
        runs = await asyncio.gather(*[box.run(f"echo {number}") for number in range(commands)])
        assert [run.stdout for run in runs] == [f"{number}\n" for number in range(commands)]
        assert len(asyncio.all_tasks()) < 20, "no task is leaked"
