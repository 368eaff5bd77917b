"""A client whose network is cut in the middle: nothing is lost, nothing is run twice. Also a server that is killed."""

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
from sandpool._io.local import Unpacking, archive
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
    with cut_client.create(IMAGE, ephemeral_disk_mb=256) as made:
        yield made


def test_a_long_command_with_a_cut_every_few_lines(box: Sandbox, proxy: CutProxy):
    heard: list[str] = []

    def listen(text: str) -> None:
        heard.append(text)
        if sum(map(len, heard)) > 800 * (proxy.cuts + 1) and proxy.cuts < 5:
            proxy.cut()

    result = box.run(LONG, on_stdout=listen)
    assert (result.stdout, result.stderr, result.exit_code) == (OUT, ERR, 5)
    assert "".join(heard) == OUT
    assert proxy.cuts >= 4
    assert box.read("/runs") == b"ran\n", "it ran once"


async def test_the_same_with_asyncio(proxy: CutProxy):
    got = {OutputStream.STDOUT: "", OutputStream.STDERR: ""}
    async with AsyncSandboxClient(proxy.address, retry=RETRY) as client, client.create(IMAGE) as box:
        handle = await box.run(LONG, wait=False)
        async for chunk in handle:
            got[chunk.stream] += chunk.data
            if len(got[OutputStream.STDOUT]) > 800 * (proxy.cuts + 1) and proxy.cuts < 5:
                proxy.cut()
        assert (await handle.result).exit_code == 5
        assert (await handle.result).stdout == OUT
        assert await box.read("/runs") == b"ran\n"
    assert list(got.values()) == [OUT, ERR]
    assert proxy.cuts >= 4


def test_the_network_is_away_for_a_while(box: Sandbox, proxy: CutProxy):
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


def test_input_over_a_cut(box: Sandbox, proxy: CutProxy):
    handle = box.run("cat; exit 3", wait=False)
    for number in range(20):
        handle.send_input(f"{number}\n")
        if number % 5 == 0:
            proxy.cut()
    handle.close_input()
    assert handle.result.stdout == "".join(f"{number}\n" for number in range(20))
    assert handle.result.exit_code == 3


def test_a_log_is_followed_over_cuts(box: Sandbox, proxy: CutProxy):
    lines = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"
    box.start_process(lines, name="job")
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


def test_a_tunnel_whose_connections_are_cut(box: Sandbox, proxy: CutProxy):
    box.start_process("exec nc -ll -p 7000 -e cat", name="echo")
    with box.tunnel(7000, max_reconnects=5) as tunnel:
        for cut in (False, True):
            for _ in range(100):
                with socket.create_connection(("127.0.0.1", tunnel.local_port), timeout=20) as connection:
                    connection.sendall(b"hello")
                    if connection.recv(5) == b"hello":
                        if cut:
                            proxy.cut()
                            assert connection.recv(5) == b"", "what was open is closed"
                        break
            else:
                raise AssertionError("no connection stood")
        with socket.create_connection(("127.0.0.1", tunnel.local_port), timeout=20) as connection:
            connection.sendall(b"again")
            assert connection.recv(5) == b"again", "and the next one opens"


def test_a_watch_on_pools_says_what_was_deleted_meanwhile(
    cut_client: SandboxClient, client: SandboxClient, proxy: CutProxy
):
    kept, gone = (cut_client.create_pool(image=IMAGE) for _ in range(2))
    events = cut_client.watch_pools([kept.pool_id, gone.pool_id], timeout=60)
    assert {next(events).pool.pool_id for _ in range(2)} == {kept.pool_id, gone.pool_id}
    proxy.refusing = True
    proxy.cut()
    client.delete_pool(gone.pool_id)
    proxy.refusing = False
    told = []
    for event in events:
        told.append((event.type, event.pool.pool_id))
        if event.type is PoolEventType.PRESENT:
            break
    assert told == [(PoolEventType.DELETED, gone.pool_id), (PoolEventType.PRESENT, kept.pool_id)]
    client.update_pool(kept.pool_id, name="renamed")
    assert next(event for event in events if event.pool.name).type is PoolEventType.CHANGED
    client.delete_pool(kept.pool_id)
    assert next(event for event in events if event.type is PoolEventType.DELETED).pool.pool_id == kept.pool_id
    events.close()


def test_a_watch_on_all_pools_tells_what_was_deleted_while_the_network_was_away(
    cut_client: SandboxClient, client: SandboxClient, proxy: CutProxy
):
    kept, gone = (client.create_pool(image=IMAGE) for _ in range(2))
    with closing(cut_client.watch_pools(timeout=60)) as events:
        assert {next(events).pool.pool_id for _ in range(2)} == {kept.pool_id, gone.pool_id}
        proxy.refusing = True
        proxy.cut()
        client.delete_pool(gone.pool_id)
        new = client.create_pool(image=IMAGE)
        proxy.refusing = False
        told = {}
        while len(told) < 3:
            event = next(events)
            told[event.pool.pool_id] = event.type
    assert told.pop(gone.pool_id) is PoolEventType.DELETED
    assert set(told) == {kept.pool_id, new.pool_id}
    assert proxy.cuts > 0
    for pool in (kept, new):
        client.delete_pool(pool.pool_id)


def test_a_watch_on_all_pools_goes_on_with_a_server_that_was_killed(own_server: ServerProcess):
    with SandboxClient(own_server.address) as client, closing(client.watch_pools(timeout=60)) as events:
        gone, kept = (client.create_pool(image=IMAGE) for _ in range(2))
        while next(events).pool.pool_id != kept.pool_id:
            pass
        own_server.kill()
        own_server.start()
        client.delete_pool(gone.pool_id)
        seen: list[tuple[PoolEventType, str]] = []
        while (PoolEventType.DELETED, gone.pool_id) not in seen:
            event = next(events)
            seen.append((event.type, event.pool.pool_id))
        client.delete_pool(kept.pool_id)
        while (PoolEventType.DELETED, kept.pool_id) not in seen:
            event = next(events)
            seen.append((event.type, event.pool.pool_id))
    deleted = [pool_id for kind, pool_id in seen if kind is PoolEventType.DELETED]
    assert deleted == [gone.pool_id, kept.pool_id]


def test_watches_on_a_sandbox_and_its_files(box: Sandbox, proxy: CutProxy):
    box.files.mkdir("/watched")
    changes = box.files.watch("/watched", timeout=60)
    box.write("/watched/before", "x")
    assert next(changes).path.startswith("/watched/")
    proxy.cut()
    assert next(change for change in changes if change.change is FileChange.OVERFLOW).path == "/watched"
    box.write("/watched/after", "x")
    assert next(change for change in changes if change.path == "/watched/after")
    changes.close()
    figures = box.watch_stats(0.1, timeout=60)
    first = next(figures)
    proxy.cut()
    assert next(figures).time > first.time
    figures.close()
    states = []
    for info in box.watch(timeout=60):
        states.append(info.state)
        if len(states) == 1:
            proxy.cut()
        elif len(states) == 2:
            box.delete()
    assert states[:2] == [SandboxState.RUNNING, SandboxState.RUNNING]
    assert states[-1] is SandboxState.TERMINATED


async def test_the_same_watch_with_asyncio(proxy: CutProxy):
    async with AsyncSandboxClient(proxy.address, retry=RETRY) as client, client.create(IMAGE) as box:
        states = []
        async for info in box.watch(timeout=60):
            states.append(info.state)
            if len(states) == 1:
                proxy.cut()
            elif len(states) == 2:
                await box.delete()
        assert states[:2] == [SandboxState.RUNNING, SandboxState.RUNNING]
        assert states[-1] is SandboxState.TERMINATED


def test_a_folder_that_breaks_on_its_way(
    box: Sandbox, proxy: CutProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "up").mkdir()
    content = os.urandom(12 * 1024 * 1024)
    (tmp_path / "up" / "big").write_bytes(content)

    sent = []

    def breaking(folder: str) -> Iterator[bytes]:
        for number, part in enumerate(archive(folder)):
            sent.append(len(part))
            if number == 4 and proxy.cuts < 2:
                proxy.cut()
            yield part

    monkeypatch.setattr("sandpool._sync.files.archive", breaking)
    assert box.upload_folder(tmp_path / "up", "/folder").bytes_written == len(content)
    assert sum(sent) > len(content) + 5 * 1024 * 1024, "it was begun anew"
    assert box.run("sha256sum /folder/big").stdout.split()[0] == hashlib.sha256(content).hexdigest()

    received = []

    class Breaking(Unpacking):
        def write(self, data: bytes) -> None:
            received.append(len(data))
            if len(received) == 4:
                proxy.cut()
            super().write(data)

    monkeypatch.setattr("sandpool._sync.files.Unpacking", Breaking)
    box.download_folder("/folder", tmp_path / "down")
    assert sum(received) > len(content), "it was begun anew"
    assert (tmp_path / "down" / "big").read_bytes() == content


def test_a_folder_that_cannot_be_sent_says_so(box: Sandbox, proxy: CutProxy, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with SandboxClient(proxy.address, retry=RetryPolicy(max_attempts=2, initial_delay=0.01)) as impatient:
        its_box = impatient.get_sandbox(box.sandbox_id)
        proxy.refusing = True
        proxy.cut()
        try:
            with pytest.raises(SandboxConnectionError, match="part of it may be in /folder; send it again") as caught:
                its_box.upload_folder(tmp_path, "/folder")
        finally:
            proxy.refusing = False
    assert (caught.value.reason, caught.value.resource_name) == ("UPLOAD_INCOMPLETE", "/folder")


def test_files_over_connections_that_break_again_and_again(server: ServerProcess, tmp_path: Path):
    content = os.urandom(24 * 1024 * 1024)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "up").write_bytes(content)
    with CutProxy(server.address) as proxy, SandboxClient(proxy.address, retry=RETRY) as client:
        box = client.create(IMAGE, ephemeral_disk_mb=256)
        marks = {6, 12, 18}

        def cut_at(done: int, _total: int) -> None:
            passed = {mark for mark in marks if done >= mark * 1024 * 1024}
            if passed:
                marks.difference_update(passed)
                proxy.cut()

        box.upload_file(tmp_path / "up", "/big", on_progress=cut_at)
        assert marks == set()
        assert box.run("sha256sum /big").stdout.split()[0] == digest
        marks.update({5, 10, 15})
        box.download_file("/big", tmp_path / "down", on_progress=cut_at)
        assert marks == set()
        assert hashlib.sha256((tmp_path / "down").read_bytes()).hexdigest() == digest
        assert proxy.cuts >= 6
        box.delete()


def test_a_server_that_is_killed_under_files(own_server: ServerProcess, tmp_path: Path):
    content = os.urandom(24 * 1024 * 1024)
    (tmp_path / "up").write_bytes(content)
    with SandboxClient(own_server.address) as client:
        box = client.create(IMAGE, ephemeral_disk_mb=256)
        kills: list[int] = []

        def kill_amid(done: int, total: int) -> None:
            if done >= total // 3 and len(kills) < 1:
                kills.append(done)
                own_server.kill()
                own_server.start()

        box.upload_file(tmp_path / "up", "/big", on_progress=kill_amid)
        assert kills.pop() < len(content)
        box.download_file("/big", tmp_path / "down", on_progress=kill_amid)
        assert kills.pop() < len(content)
        assert (tmp_path / "down").read_bytes() == content
        box.delete()


def test_a_server_that_is_killed_under_a_command(own_server: ServerProcess):
    with SandboxClient(own_server.address, retry=RETRY) as client:
        box = client.create(IMAGE)
        killed = threading.Event()

        def listen(text: str) -> None:
            if "line 50\n" in text or "line 120\n" in text:
                own_server.kill()
                own_server.start()
                killed.set()

        result = box.run(LONG, on_stdout=listen)
        assert killed.is_set()
        assert (result.stdout, result.stderr, result.exit_code) == (OUT, ERR, 5)
        assert box.read("/runs") == b"ran\n"


async def test_a_thousand_calls_at_once(server: ServerProcess):
    """From one client in one process: reads, and commands of which only so many run at once in one sandbox."""
    calls, commands = 1000, 100
    async with AsyncSandboxClient(server.address, timeout=90) as client, client.create(IMAGE) as box:
        found = await asyncio.gather(*[client.get_sandbox_status(box.sandbox_id) for _ in range(calls)])
        assert set(found) == {"running"}
        runs = await asyncio.gather(*[box.run(f"echo {number}") for number in range(commands)])
        assert [run.stdout for run in runs] == [f"{number}\n" for number in range(commands)]
        assert len(asyncio.all_tasks()) < 20, "nothing is left behind"
