"""Locks and leases, including those of killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.dev.console import Console
from tools.dev.locks import FileLock, Lease, exclusive, is_unused
from tools.dev.paths import REPO

USER = """
import sys
from pathlib import Path
from tools.dev.locks import Lease
lease = Lease(Path(sys.argv[1]))
lease.join()
print("joined", flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_user(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lease until it is killed."""
    argv = [sys.executable, "-c", USER, str(path)]
    with subprocess.Popen(argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "joined\n"
        try:
            yield user
        finally:
            user.kill()


def test_leave_returns_whether_there_is_no_other_user(tmp_path: Path) -> None:
    first, second = Lease(tmp_path / "lease"), Lease(tmp_path / "lease")
    first.join()
    second.join()
    assert first.leave() is False
    assert second.leave() is True


def test_a_lease_of_another_process_ends_when_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    lease = Lease(path)
    lease.join()
    with another_user(path) as user:
        assert lease.leave() is False
        user.kill()
        user.wait()
        assert is_unused(path)


def test_child_processes_do_not_inherit_a_lease(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "lease")
    lease.join()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            assert lease.leave() is True
        finally:
            child.kill()


def test_join_fails_while_the_lease_is_locked(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "lease")
    holder.acquire()
    with pytest.raises(RuntimeError, match="guard"):
        Lease(tmp_path / "lease").join()
    holder.release()


def test_exclusive_locks_and_releases_after_a_failure(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "guard"
    with exclusive(path, console, "testing"):
        assert FileLock(path).acquire(wait=False) is False
    with pytest.raises(ValueError, match="within"), exclusive(path, console, "testing"):
        raise ValueError("within")
    assert is_unused(path)


def test_the_command_of_a_killed_run_still_holds_its_lock(tmp_path: Path) -> None:
    run = """
import sys
from pathlib import Path
from tools.dev.console import Console
from tools.dev.locks import exclusive
console = Console(Path(sys.argv[1]) / "logs")
with exclusive(Path(sys.argv[1]) / "guard", console, "testing"):
    console.run("step", ["sh", "-c", f"echo $$ > {sys.argv[1]}/fifo; exec sleep 60"])
"""
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen([sys.executable, "-c", run, str(tmp_path)], cwd=REPO) as killed:
        step = int((tmp_path / "fifo").read_text())
        killed.kill()
        killed.wait()
        assert not is_unused(tmp_path / "guard")
        os.kill(step, signal.SIGKILL)
        lock = FileLock(tmp_path / "guard")
        assert lock.acquire()
        lock.release()
