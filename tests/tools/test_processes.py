"""Nothing is ended but what it is known to be by its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.dev import processes
from tools.dev.console import Console
from tools.dev.paths import Paths
from tools.dev.private_engine import PrivateEngine, _comes_up, _mounted_on_itself, free_port

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Someone else's process."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def dockerd(paths: Paths) -> processes.Match:
    return processes.running_with("dockerd", str(paths.runtime / "dockerd.json"))


def start_fake_dockerd(paths: Paths) -> subprocess.Popen[str]:
    """A process that looks like our dockerd and ignores SIGTERM."""
    argv = ["/usr/sbin/dockerd", "-c", STUBBORN, str(paths.runtime / "dockerd.json")]
    process = subprocess.Popen(argv, executable=sys.executable, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/sbin/dockerd", "--config-file", "/run/a/dockerd.json"], True),
        (["dockerd", "--config-file=/run/a/dockerd.json"], True),
        (["dockerd", "--config-file", "/run/a/dockerd.json.old"], False),
        (["dockerd", "--config-file", "/run/ab/dockerd.json"], False),
        (["vim", "/run/a/dockerd.json"], False),
        (["dockerd"], False),
        ([], False),
    ],
)
def test_a_process_is_known_by_program_and_whole_path(argv: list[str], expected: bool) -> None:
    assert processes.running_with("dockerd", "/run/a/dockerd.json")(argv) is expected


def test_a_number_that_is_someone_elses_by_now_is_left_alone(stranger: subprocess.Popen[bytes], paths: Paths) -> None:
    assert processes.stop(stranger.pid, dockerd(paths), grace=0.1)
    assert stranger.poll() is None


def test_a_number_that_nobody_has_is_gone(paths: Paths) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.stop(process.pid, dockerd(paths), grace=0.1)


def test_what_ignores_the_request_is_killed(paths: Paths) -> None:
    with start_fake_dockerd(paths) as process:
        assert processes.find(dockerd(paths)) == [process.pid]
        assert processes.stop(process.pid, dockerd(paths), grace=0.1)
        assert processes.find(dockerd(paths)) == []


def test_stale_pid_files_are_removed_and_their_numbers_spared(
    stranger: subprocess.Popen[bytes], paths: Paths, console: Console
) -> None:
    files = [paths.runtime / "dockerd.pid", paths.runtime / "exec" / "containerd" / "containerd.pid"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(stranger.pid))
    (paths.runtime / "docker.sock").touch()
    PrivateEngine(paths, console)._clear_away()
    assert stranger.poll() is None
    assert not any(file.exists() for file in files)
    assert not (paths.runtime / "docker.sock").exists()


def test_stopping_the_engine_spares_engines_of_other_runtime_folders(
    paths: Paths, console: Console, tmp_path: Path
) -> None:
    other = Paths(repo=paths.repo, cache=paths.cache, runtime=tmp_path / "run2")
    with start_fake_dockerd(other) as process:
        PrivateEngine(paths, console).stop()
        assert process.poll() is None
        process.kill()


def test_free_ports_can_be_had() -> None:
    assert all(1024 <= free_port() <= 65535 for _ in range(20))


def test_a_daemon_that_ends_at_once_is_not_waited_for() -> None:
    with subprocess.Popen(["false"]) as process:
        assert _comes_up(process, lambda: False, seconds=60) is False


def test_our_own_number_is_never_found() -> None:
    assert os.getpid() not in processes.find(lambda argv: True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("90 24 254:0 /home/me/cache/engine /home/me/cache/engine rw shared:1 - ext4 /dev/vda rw", True),
        ("90 24 254:5 /me/cache/engine /home/me/cache/engine rw shared:1 - ext4 /dev/home rw", True),
        ("90 24 254:5 /root/home/me/cache/engine /home/me/cache/engine rw shared:1 - ext4 /dev/vda rw", True),
        ("90 24 254:9 / /home/me/cache/engine rw shared:1 - ext4 /dev/vdb rw", False),
        ("90 24 254:0 /srv/docker /home/me/cache/engine rw shared:1 - ext4 /dev/vda rw", False),
        ("90 24 254:0 /home/me/cache/engine/x /home/me/cache/engine/x rw shared:1 - ext4 /dev/vda rw", False),
    ],
)
def test_only_the_mount_that_dockerd_makes_is_undone(line: str, expected: bool) -> None:
    assert _mounted_on_itself(Path("/home/me/cache/engine"), line) is expected
