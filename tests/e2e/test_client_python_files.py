"""Files of a sandbox with the Python client, blocking and with asyncio."""

import hashlib
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpool import (
    AsyncSandboxClient,
    FileChange,
    FileType,
    PathNotFoundError,
    ResourceAlreadyExistsError,
    ResourceStateError,
    Sandbox,
    SandboxClient,
    ValidationError,
)
from tests.support.server_process import ServerProcess
from tests.support.terminal import on_a_terminal

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"


@pytest.fixture(scope="module")
def box(server: ServerProcess) -> Iterator[Sandbox]:
    with SandboxClient(server.address) as client, client.create(image=IMAGE, ephemeral_disk_mb=256) as made:
        yield made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_writes_and_reads_text_bytes_modes_and_owners(box: Sandbox):
    files = box.files
    assert files.write("/srv/a.txt", "grüße\n").size == 8
    assert files.read("/srv/a.txt") == "grüße\n".encode()
    assert files.write("/srv/b.bin", b"\x00\xff", mode=0o600, owner="nobody").mode == 0o600
    listed = [(entry.name, entry.size, entry.is_dir) for entry in files.list("/srv")]
    assert listed == [("a.txt", 8, False), ("b.bin", 2, False)]
    assert box.run("stat -c %U:%a /srv/b.bin; cat /srv/a.txt").stdout == "nobody:600\ngrüße\n"
    files.remove("/srv/b.bin")
    with pytest.raises(PathNotFoundError) as caught:
        files.read("/srv/b.bin")
    assert (caught.value.reason, caught.value.resource_name) == ("FILE_NOT_FOUND", "/srv/b.bin")
    assert isinstance(caught.value, FileNotFoundError)


def test_reads_ranges_applies_write_modes_and_rejects_paths(box: Sandbox):
    files = box.files
    files.write("/parts/f", b"0123456789")
    assert files.read("/parts/f", offset=3, length=4) == b"3456"
    assert files.read("/parts/f", offset=10) == b""
    with pytest.raises(ValidationError):
        files.read("/parts/f", offset=11)
    files.write("/parts/f", "ab", write_mode="append")
    assert files.read_text("/parts/f") == "0123456789ab"
    with pytest.raises(ResourceAlreadyExistsError) as caught:
        files.write("/parts/f", "x", write_mode="create")
    assert caught.value.reason == "FILE_ALREADY_EXISTS"
    with pytest.raises(ResourceStateError) as wrong:
        files.read("/parts")
    assert wrong.value.reason == "IS_A_DIRECTORY"
    with pytest.raises(ValidationError):
        files.read("relative")
    with pytest.raises(ValueError, match="sometimes"):
        files.write("/parts/f", "x", write_mode="sometimes")  # type: ignore[arg-type]


def test_lists_copies_moves_and_removes_directories(box: Sandbox):
    files = box.files
    files.mkdir("/tree/a/b", mode=0o750)
    files.write("/tree/a/b/c.py", "1")
    files.write("/tree/d.py", "2")
    box.run("ln -s d.py /tree/link")
    assert files.stat("/tree/link").link_target == "d.py"
    assert files.stat("/tree/link", follow_symlinks=True).type is FileType.FILE
    names = [info.path for info in files.list("/tree", depth=9, page_size=2)]
    assert names == ["/tree/a", "/tree/a/b", "/tree/a/b/c.py", "/tree/d.py", "/tree/link"]
    assert [info.path for info in files.glob("/tree/**/*.py", page_size=1)] == ["/tree/a/b/c.py", "/tree/d.py"]
    files.copy("/tree/a", "/tree/copy")
    files.move("/tree/d.py", "/tree/copy/e.py")
    assert not files.exists("/tree/d.py")
    assert files.read("/tree/copy/b/c.py") == b"1"
    with pytest.raises(ResourceAlreadyExistsError):
        files.move("/tree/copy/e.py", "/tree/copy/b/c.py")
    files.move("/tree/copy/e.py", "/tree/copy/b/c.py", overwrite=True)
    with pytest.raises(ResourceStateError) as caught:
        files.remove("/tree")
    assert caught.value.reason == "DIRECTORY_NOT_EMPTY"
    files.remove("/tree", recursive=True)
    files.remove("/tree", missing_ok=True)


def test_uploads_and_downloads_a_large_file(box: Sandbox, tmp_path: Path):
    content = os.urandom(3 * 1024 * 1024) * 8
    (tmp_path / "up").write_bytes(content)
    (tmp_path / "up").chmod(0o755)
    sent: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []
    info = box.files.upload(tmp_path / "up", "/big", mode=0o755, on_progress=lambda *now: sent.append(now))
    assert info.size == len(content)
    assert box.run("sha256sum /big").stdout.split()[0] == digest(content)
    back = box.files.download("/big", tmp_path / "down", on_progress=lambda *now: got.append(now))
    assert (tmp_path / "down").read_bytes() == content
    assert (tmp_path / "down").stat().st_mode & 0o777 == 0o755 & ~0o022
    assert back.etag == info.etag
    for reported in (sent, got):
        assert reported == sorted(reported)
        assert reported[-1] == (len(content), len(content))
    box.files.write("/big2", content)
    assert box.run("cmp /big /big2").success
    assert sorted(path.name for path in tmp_path.iterdir()) == ["down", "up"], "no partial file remains"


def test_command_line_shows_progress_in_a_terminal(box: Sandbox, server: ServerProcess, tmp_path: Path):
    content = os.urandom(8 * 1024 * 1024)
    (tmp_path / "up").write_bytes(content)
    env = {**os.environ, "SANDPOOL_ADDRESS": server.address}
    for arguments, end in (
        (["upload", box.sandbox_id, str(tmp_path / "up"), "/shown"], f"/shown: {len(content)} bytes"),
        (["download", box.sandbox_id, "/shown", str(tmp_path / "down")], f"{tmp_path / 'down'}: {len(content)} bytes"),
    ):
        code, shown = on_a_terminal([sys.executable, "-m", "sandpool", *arguments], env)
        assert (code, shown.splitlines()[-1]) == (0, end), shown
        assert "/shown: 100%|" in shown
        assert "8.00M/8.00M" in shown
    assert (tmp_path / "down").read_bytes() == content


def test_failed_download_leaves_no_file(box: Sandbox, tmp_path: Path):
    with pytest.raises(PathNotFoundError):
        box.files.download("/nothing", tmp_path / "down")
    assert list(tmp_path.iterdir()) == []


def test_uploads_and_downloads_a_directory(box: Sandbox, tmp_path: Path):
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_bytes(b"x" * 1_500_000)
    (source / "name with spaces ü").write_text("text")
    (source / ("long" * 50)).write_text("long name")
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("run.sh")
    os.link(source / "run.sh", source / "second")
    done = box.files.upload_directory(source, "/directory", owner="nobody")
    assert (done.entries, done.bytes_written) == (8, 1_500_000 + 4 + 9 + 19), "a hard link is sent as a link"
    assert box.run(["/directory/run.sh"]).stdout == "ran\n"
    assert box.run("stat -c %U /directory/run.sh; readlink /directory/link").stdout == "nobody\nrun.sh\n"
    assert box.files.download_directory("/directory", tmp_path / "back") >= 8
    for path in source.rglob("*"):
        other = tmp_path / "back" / path.relative_to(source)
        assert other.is_symlink() == path.is_symlink()
        if path.is_file():
            assert other.read_bytes() == path.read_bytes()
    with pytest.raises(NotADirectoryError):
        box.files.upload_directory(tmp_path / "missing", "/directory")


def test_download_rejects_links_that_leave_the_directory(box: Sandbox, tmp_path: Path):
    box.run("mkdir -p /evil; ln -s /etc /evil/link")
    with pytest.raises(tarfile.FilterError):
        box.files.download_directory("/evil", tmp_path / "here")


def test_watches_a_directory(box: Sandbox):
    box.files.mkdir("/watched")
    events = box.files.watch("/watched", recursive=True, timeout=30)
    box.files.write("/watched/new", "1")
    seen = []
    for event in events:
        seen.append(event)
        if event.path == "/watched/new" and event.change in {FileChange.CREATED, FileChange.MODIFIED}:
            break
    events.close()
    assert all(event.path.startswith("/watched") for event in seen)


async def test_transfers_and_watches_files_with_asyncio(server: ServerProcess, tmp_path: Path):
    content = os.urandom(5 * 1024 * 1024)
    (tmp_path / "up").write_bytes(content)
    reported: list[int] = []

    async def report(done: int, _total: int) -> None:
        reported.append(done)

    async with AsyncSandboxClient(server.address) as client, client.create(image=IMAGE) as box:
        await box.files.upload(tmp_path / "up", "/big", on_progress=report)
        assert await box.files.read("/big") == content
        await box.files.download("/big", tmp_path / "down")
        await box.files.write("/d/one", "1")
        assert (await box.files.upload_directory(tmp_path, "/directory")).entries == 2
        assert await box.files.download_directory("/directory", tmp_path / "back") >= 2
        events = await box.files.watch("/d")
        await box.files.remove("/d/one")
        assert (await anext(events)).path == "/d/one"
        await events.aclose()
        assert [info.name async for info in box.files.list("/")].count("big") == 1
        with pytest.raises(PathNotFoundError):
            await box.files.read("/nothing")
    assert reported[-1] == len(content)
    assert (tmp_path / "down").read_bytes() == (tmp_path / "back" / "up").read_bytes() == content
