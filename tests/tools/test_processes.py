"""Processes are terminated only if their command line matches."""

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
from tools.dev.private_engine import PrivateEngine, _becomes_ready, _mounted_on_itself, free_port

STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not belong to the engine."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def dockerd(paths: Paths) -> processes.Match:
    return processes.running_with("dockerd", str(paths.runtime / "dockerd.json"))


def start_fake_dockerd(paths: Paths) -> subprocess.Popen[str]:
    """Start a process that has the command line of the private dockerd and ignores SIGTERM."""
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
def test_matches_program_and_complete_path(argv: list[str], expected: bool) -> None:
    assert processes.running_with("dockerd", "/run/a/dockerd.json")(argv) is expected


def test_does_not_stop_another_process_with_the_same_id(stranger: subprocess.Popen[bytes], paths: Paths) -> None:
    assert processes.stop(stranger.pid, dockerd(paths), grace=0.1)
    assert stranger.poll() is None


def test_stop_succeeds_if_the_process_does_not_exist(paths: Paths) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.stop(process.pid, dockerd(paths), grace=0.1)


def test_kills_a_process_that_ignores_sigterm(paths: Paths) -> None:
    with start_fake_dockerd(paths) as process:
        assert processes.find(dockerd(paths)) == [process.pid]
        assert processes.stop(process.pid, dockerd(paths), grace=0.1)
        assert processes.find(dockerd(paths)) == []


def test_removes_stale_pid_files_without_stopping_their_processes(
    stranger: subprocess.Popen[bytes], paths: Paths, console: Console
) -> None:
    files = [paths.runtime / "dockerd.pid", paths.runtime / "exec" / "containerd" / "containerd.pid"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(stranger.pid))
    (paths.runtime / "docker.sock").touch()
    PrivateEngine(paths, console)._clean_up()
    assert stranger.poll() is None
    assert not any(file.exists() for file in files)
    assert not (paths.runtime / "docker.sock").exists()


def test_does_not_stop_engines_of_other_runtime_directories(paths: Paths, console: Console, tmp_path: Path) -> None:
    other = Paths(repo=paths.repo, cache=paths.cache, runtime=tmp_path / "run2")
    with start_fake_dockerd(other) as process:
        PrivateEngine(paths, console).stop()
        assert process.poll() is None
        process.kill()


def test_returns_free_ports() -> None:
    assert all(1024 <= free_port() <= 65535 for _ in range(20))


def test_does_not_wait_for_a_daemon_that_has_exited() -> None:
    with subprocess.Popen(["false"]) as process:
        assert _becomes_ready(process, lambda: False, seconds=60) is False


def test_find_excludes_the_current_process() -> None:
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
def test_detects_only_the_bind_mount_of_dockerd(line: str, expected: bool) -> None:
    assert _mounted_on_itself(Path("/home/me/cache/engine"), line) is expected
