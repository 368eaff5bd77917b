"""Files of a sandbox in every kind of image: large files, resumed uploads, watches, directories, hostile content."""

import hashlib
import tarfile
import threading
import time
from collections.abc import Iterator

import grpc
import psutil
import pytest

from sandpool import Sandbox, SandboxClient
from sandpool.v1.file_pb2 import (
    FILE_CHANGE_CREATED,
    FILE_CHANGE_MODIFIED,
    FILE_CHANGE_REMOVED,
    FILE_CHANGE_UNSPECIFIED,
    FILE_TYPE_DIRECTORY,
    FILE_TYPE_FILE,
    FILE_TYPE_SYMLINK,
)
from sandpool.v1.file_service_pb2 import WRITE_MODE_APPEND, WRITE_MODE_CREATE
from tests.support.own_images import OwnImages
from tests.support.sandbox_files import SandboxFiles, noise, refusal, sandbox_files, tar_entry, tar_of
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

DEBIAN = "python:3.11-slim"
BUSYBOX = "busybox:latest"
NOT_FOUND, EXISTS = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
FORBIDDEN, EXHAUSTED = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(params=["debian", "busybox", "one-binary"])
def files(
    request: pytest.FixtureRequest, server: ServerProcess, images: OwnImages, client: SandboxClient
) -> Iterator[SandboxFiles]:
    """Return the files of a sandbox, for each kind of image."""
    known = {"debian": DEBIAN, "busybox": BUSYBOX}
    image = known.get(request.param) or images.push_one_binary("static")
    with client.create(image=image) as sandbox, sandbox_files(server.address, sandbox.sandbox_id) as made:
        yield made


@pytest.fixture
def shell(server: ServerProcess, client: SandboxClient) -> Iterator[tuple[Sandbox, SandboxFiles]]:
    """Return a sandbox with a shell, and its files."""
    with client.create(image=BUSYBOX) as sandbox, sandbox_files(server.address, sandbox.sandbox_id) as made:
        yield sandbox, made


def names(response: object) -> list[str]:
    """Return the paths of a list response."""
    return [file.path for file in response.files]  # type: ignore[attr-defined]


def test_every_file_method_works(files: SandboxFiles) -> None:
    data = b"".join(noise(300_000))
    written = files.write("/srv/a/file", data, mode=0o640, owner="1234:5678")
    assert (written.path, written.size, written.mode) == ("/srv/a/file", len(data), 0o640)
    assert (written.uid, written.gid, written.type) == (1234, 5678, FILE_TYPE_FILE)
    assert files.read("/srv/a/file") == data
    assert files.read("/srv/a/file", offset=100_000, length=5) == data[100_000:100_005]
    assert files.read("/srv/a/file", etag=written.etag, offset=299_999) == data[-1:]

    assert files.put("/srv/small", b"one").file.size == 3
    files.write("/srv/small", b" two", write_mode=WRITE_MODE_APPEND)
    assert files.read("/srv/small") == b"one two"
    assert not files.put("/srv/parts", b"abc", upload_id="u", more=True).HasField("file")
    assert files.call("GetUpload", upload_id="u").received_bytes == 3
    assert files.put("/srv/parts", b"def", upload_id="u", offset=3).received_bytes == 6
    assert files.read("/srv/parts") == b"abcdef"

    made = files.call("MakeDirectory", path="/srv/empty", mode=0o700).file
    assert (made.type, made.mode) == (FILE_TYPE_DIRECTORY, 0o700)
    assert names(files.call("ListDirectory", path="/srv")) == ["/srv/a", "/srv/empty", "/srv/parts", "/srv/small"]
    page = files.call("ListDirectory", path="/srv", depth=2, page_size=2)
    assert names(page) == ["/srv/a", "/srv/a/file"]
    page = files.call("ListDirectory", path="/srv", depth=2, page_size=2, page_token=page.next_page_token)
    assert names(page) == ["/srv/empty", "/srv/parts"]

    files.call("CopyFile", source="/srv/a", destination="/srv/b")
    copied = files.call("StatFile", path="/srv/b/file").file
    assert (copied.mode, copied.uid, copied.size) == (0o640, 1234, len(data))
    files.call("MoveFile", source="/srv/b", destination="/elsewhere/c")
    assert names(files.call("GlobFiles", pattern="/{srv,elsewhere}/**/file")) == ["/elsewhere/c/file", "/srv/a/file"]
    files.call("RemoveFile", path="/elsewhere", recursive=True)
    files.call("RemoveFile", path="/elsewhere", missing_ok=True)


def test_uploads_and_downloads_a_directory(files: SandboxFiles) -> None:
    archive = tar_of(
        (tar_entry("sub", tarfile.DIRTYPE, mode=0o750), b""),
        (tar_entry("sub/script", mode=0o4755), b"#!/bin/sh\n"),
        (tar_entry("sub/link", tarfile.SYMTYPE, "script"), b""),
        (tar_entry("sub/again", tarfile.LNKTYPE, "sub/script"), b""),
        (tar_entry("deep/er/name with\nnewline"), b"x" * 100_000),
    )
    response = files.upload("/tree", archive, owner="7:8")
    assert (response.entries, response.bytes_written) == (5, 100_010)
    linked = files.call("StatFile", path="/tree/sub/link").file
    assert (linked.type, linked.link_target, linked.uid) == (FILE_TYPE_SYMLINK, "script", 7)
    with files.download("/tree") as back:
        entries = {entry.name: entry for entry in back}
        assert set(entries) == {
            *("sub", "sub/script", "sub/link", "sub/again"),
            *("deep", "deep/er", "deep/er/name with\nnewline"),
        }
        assert {entries["sub/script"].type, entries["sub/again"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
        assert (entries["sub"].mode, entries["sub/script"].mode) == (0o750, 0o4755)
        assert (entries["sub/script"].uid, entries["sub/script"].gid) == (7, 8)
        content = back.extractfile("deep/er/name with\nnewline")
        assert content is not None
        assert content.read() == b"x" * 100_000


def test_watch_reports_changes(files: SandboxFiles) -> None:
    files.call("MakeDirectory", path="/watched/inner")
    changes = files.stream("WatchFiles", path="/watched", recursive=True)
    first = next(changes)
    assert (first.change, first.path) == (FILE_CHANGE_UNSPECIFIED, "/watched")
    files.write("/watched/inner/file", b"x")
    files.write("/watched/inner/file", b"y", write_mode=WRITE_MODE_APPEND)
    files.call("RemoveFile", path="/watched/inner/file")
    seen = [next(changes) for _ in range(3)]
    changes.cancel()
    assert [change.path for change in seen] == ["/watched/inner/file"] * 3
    assert [change.change for change in seen] == [FILE_CHANGE_CREATED, FILE_CHANGE_MODIFIED, FILE_CHANGE_REMOVED]


def test_errors_have_code_reason_and_path(files: SandboxFiles) -> None:
    files.write("/here", b"x")
    files.write("/in/file", b"x")
    for method, fields, code, reason, name in [
        ("StatFile", {"path": "/none"}, NOT_FOUND, "FILE_NOT_FOUND", "/none"),
        ("ListDirectory", {"path": "/none"}, NOT_FOUND, "FILE_NOT_FOUND", "/none"),
        ("RemoveFile", {"path": "/none/x"}, NOT_FOUND, "FILE_NOT_FOUND", "/none/x"),
        ("MoveFile", {"source": "/none", "destination": "/x"}, NOT_FOUND, "FILE_NOT_FOUND", "/none"),
        ("CopyFile", {"source": "/here", "destination": "/here"}, EXISTS, "FILE_ALREADY_EXISTS", "/here"),
        ("RemoveFile", {"path": "/proc"}, FORBIDDEN, "FILE_NOT_PERMITTED", "/proc"),
        ("RemoveFile", {"path": "/in"}, FORBIDDEN, "DIRECTORY_NOT_EMPTY", "/in"),
        ("ListDirectory", {"path": "/here"}, FORBIDDEN, "NOT_A_DIRECTORY", "/here"),
        ("GetUpload", {"upload_id": "none"}, NOT_FOUND, "UPLOAD_NOT_FOUND", "none"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            files.call(method, **fields)
        assert refusal(caught.value) == (code, reason, name), (method, fields)
    for path, code, reason in [
        ("/none", NOT_FOUND, "FILE_NOT_FOUND"),
        ("/", FORBIDDEN, "IS_A_DIRECTORY"),
        ("/dev/zero", FORBIDDEN, "NOT_A_FILE"),
        ("/proc/1/environ", FORBIDDEN, "FILE_NOT_PERMITTED"),
        ("/proc/1/root/here", FORBIDDEN, "FILE_NOT_PERMITTED"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            files.read(path)
        assert refusal(caught.value) == (code, reason, path)
    assert b"MemTotal" in files.read("/proc/meminfo")
    for path, fields, code, reason in [
        ("/here", {"write_mode": WRITE_MODE_CREATE}, EXISTS, "FILE_ALREADY_EXISTS"),
        ("/proc/sys/kernel/hostname", {}, FORBIDDEN, "FILE_NOT_PERMITTED"),
        ("/other", {"size": 2}, FORBIDDEN, "SIZE_MISMATCH"),
        ("/dev/shm/large", {}, EXHAUSTED, "DISK_FULL"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            files.write(path, b"x" if path != "/dev/shm/large" else noise(100 << 20), **fields)
        assert refusal(caught.value)[:2] == (code, reason), path
    assert names(files.call("ListDirectory", path="/dev/shm")) == []


def test_rejected_write_reports_its_reason_during_the_upload(shell: tuple[Sandbox, SandboxFiles]) -> None:
    _, files = shell
    files.write("/here", b"x")
    for _ in range(50):
        with pytest.raises(grpc.RpcError) as caught:
            files.write("/here", b"x" * 300_000, write_mode=WRITE_MODE_CREATE)
        assert refusal(caught.value) == (EXISTS, "FILE_ALREADY_EXISTS", "/here")


def test_symbolic_links_do_not_leave_the_sandbox(shell: tuple[Sandbox, SandboxFiles]) -> None:
    sandbox, files = shell
    sandbox.run(
        "mkdir /in; ln -s /etc /in/etc; ln -s ../../../../../../etc/passwd /in/up; ln -s /proc/1/root/etc /in/root"
    )
    sandbox.run(
        "ln -s /proc/sys/kernel/core_pattern /in/planted; ln -s loop /in/loop; mkfifo /in/pipe; ln -s pipe /in/to-pipe"
    )
    own = sandbox.run("cat /etc/passwd").stdout.encode()
    assert files.read("/in/etc/passwd") == files.read("/in/up") == own
    before = sandbox.run("cat /proc/sys/kernel/core_pattern").stdout
    for path in ("/in/planted", "/in/root/passwd", "/in/loop", "/in/to-pipe"):
        with pytest.raises(grpc.RpcError) as caught:
            files.write(path, b"x")
        assert refusal(caught.value)[0] is FORBIDDEN, path
    assert sandbox.run("cat /proc/sys/kernel/core_pattern").stdout == before
    for entries in (
        [(tar_entry("../escaped"), b"x")],
        [(tar_entry("/escaped"), b"x")],
        [(tar_entry("out", tarfile.SYMTYPE, "/"), b""), (tar_entry("out/escaped"), b"x")],
        [(tar_entry("etc/escaped"), b"x")],
        [(tar_entry("node", tarfile.BLKTYPE), b"")],
        [(tar_entry("hard", tarfile.LNKTYPE, "../etc/passwd"), b"")],
    ):
        with pytest.raises(grpc.RpcError) as caught:
            files.upload("/in", tar_of(*entries))
        assert refusal(caught.value)[:2] == (FORBIDDEN, "ARCHIVE_INVALID")
    assert sandbox.run("find / -name escaped -not -path '/proc/*'").stdout == ""
    files.call("RemoveFile", path="/in", recursive=True)
    assert files.read("/etc/passwd") == own


def test_lists_names_that_are_not_valid_text(shell: tuple[Sandbox, SandboxFiles]) -> None:
    sandbox, files = shell
    sandbox.run(r"mkdir /odd; touch /odd/$(printf 'not\377utf8') '/odd/new" + "\n" + "line'")
    assert names(files.call("ListDirectory", path="/odd")) == ["/odd/new\nline", "/odd/not\ufffdutf8"]
    files.call("RemoveFile", path="/odd", recursive=True)


def test_rejects_a_file_larger_than_the_disk_limit(server: ServerProcess, client: SandboxClient) -> None:
    with (
        client.create(image=BUSYBOX, ephemeral_disk_mb=32) as sandbox,
        sandbox_files(server.address, sandbox.sandbox_id) as files,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            files.write("/large", noise(33 << 20))
        assert refusal(caught.value)[1] in ("FILE_TOO_LARGE", "DISK_FULL")
        assert sandbox.run("echo alive; ls /large").stdout == "alive\n"
        files.write("/large", noise(16 << 20))
        assert files.call("StatFile", path="/large").file.size == 16 << 20


def peak_memory(pid: int, stop: threading.Event) -> int:
    """Return the maximum resident memory of a process until `stop` is set."""
    process, most = psutil.Process(pid), 0
    while not stop.wait(0.05):
        most = max(most, process.memory_info().rss)
    return most


def test_transfers_two_gibibytes_in_bounded_memory(server: ServerProcess, client: SandboxClient) -> None:
    size = 2 << 30
    digest, back = hashlib.blake2b(), hashlib.blake2b()
    stop, most = threading.Event(), []
    before = psutil.Process(server.pid).memory_info().rss
    watcher = threading.Thread(target=lambda: most.append(peak_memory(server.pid, stop)))
    watcher.start()

    def parts() -> Iterator[bytes]:
        for part in noise(size):
            digest.update(part)
            yield part

    began = time.monotonic()
    with (
        client.create(image=BUSYBOX, ephemeral_disk_mb=8192) as sandbox,
        sandbox_files(server.address, sandbox.sandbox_id) as files,
    ):
        assert files.write("/large", parts(), size=size).size == size
        responses = files.stream("ReadFile", path="/large")
        assert next(responses).file.size == size
        for response in responses:
            back.update(response.data)
        took = time.monotonic() - began
        assert sandbox.run("echo alive").stdout == "alive\n"
    stop.set()
    watcher.join()
    assert digest.digest() == back.digest()
    assert took < 90, f"{took:.0f} s"
    assert most[0] - before < 128 << 20, "the server does not hold the file in memory"


def test_resumes_an_upload_after_the_server_was_killed(own_server: ServerProcess) -> None:
    data = b"".join(noise(8 << 20))
    with SandboxClient(own_server.address) as client:
        sandbox_id = client.create(image=BUSYBOX).sandbox_id
    half_sent, killed = threading.Event(), threading.Event()

    def parts() -> Iterator[bytes]:
        for at in range(0, len(data), 1 << 20):
            if at == len(data) // 2:
                half_sent.set()
                killed.wait(60)
            yield data[at : at + (1 << 20)]

    def first_attempt(files: SandboxFiles, outcome: list[grpc.StatusCode]) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            files.write("/file", parts(), upload_id="resumed")
        outcome.append(refusal(caught.value)[0])

    outcome: list[grpc.StatusCode] = []
    with sandbox_files(own_server.address, sandbox_id) as files:
        sender = threading.Thread(target=first_attempt, args=(files, outcome))
        sender.start()
        assert half_sent.wait(60)
        deadline = time.monotonic() + 60
        while not received(files):
            assert time.monotonic() < deadline, "no byte was received"
            time.sleep(0.01)
        own_server.kill()
        killed.set()
        sender.join()
    assert outcome == [grpc.StatusCode.UNAVAILABLE]

    own_server.start()
    with sandbox_files(own_server.address, sandbox_id) as files:
        with pytest.raises(grpc.RpcError) as caught:
            files.call("StatFile", path="/file")
        assert caught.value.code() is NOT_FOUND
        offset = files.call("GetUpload", upload_id="resumed").received_bytes
        assert 0 < offset <= len(data) // 2
        files.write("/file", data[offset:], upload_id="resumed", offset=offset, size=len(data))
        assert files.read("/file") == data


def received(files: SandboxFiles) -> int:
    """Return the number of received bytes of the upload."""
    try:
        return int(files.call("GetUpload", upload_id="resumed").received_bytes)
    except grpc.RpcError as error:
        if refusal(error)[1] != "UPLOAD_NOT_FOUND":
            raise
        return 0


def test_stalled_readers_use_bounded_memory(server: ServerProcess, client: SandboxClient) -> None:
    with (
        client.create(image=BUSYBOX, ephemeral_disk_mb=2048) as sandbox,
        sandbox_files(server.address, sandbox.sandbox_id) as files,
    ):
        sandbox.run("dd if=/dev/zero of=/large bs=1M count=1 seek=1023")
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        readers = [files.stream("ReadFile", path="/large") for _ in range(8)]
        assert all(next(reader).file.size == 1 << 30 for reader in readers)
        started = process.cpu_times()
        while (now := process.cpu_times()) != started:  # until the server is idle
            started = now
            time.sleep(0.5)
        assert process.memory_info().rss - before < 64 << 20
        usage = int(
            sandbox.run("cat /sys/fs/cgroup/memory.current || cat /sys/fs/cgroup/memory/memory.usage_in_bytes").stdout
        )
        assert usage < 256 << 20
        assert files.read("/etc/passwd"), "other calls continue"
        for reader in readers:
            reader.cancel()
