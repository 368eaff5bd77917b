"""Leases: the last user is told so, and a killed user does not count."""

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
from tools.dev.locks import FileLock, Lease, exclusive, nobody_holds
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
    """Another process that holds a share until it is killed."""
    argv = [sys.executable, "-c", USER, str(path)]
    with subprocess.Popen(argv, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "joined\n"
        try:
            yield user
        finally:
            user.kill()


def test_only_the_last_of_two_users_is_the_last(tmp_path: Path) -> None:
    first, second = Lease(tmp_path / "lease"), Lease(tmp_path / "lease")
    first.join()
    second.join()
    assert first.leave() is False
    assert second.leave() is True


def test_a_user_in_another_process_counts_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    lease = Lease(path)
    lease.join()
    with another_user(path) as user:
        assert lease.leave() is False
        user.kill()
        user.wait()
        assert nobody_holds(path)


def test_programs_that_a_user_starts_do_not_hold_its_share(tmp_path: Path) -> None:
    lease = Lease(tmp_path / "lease")
    lease.join()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            assert lease.leave() is True
        finally:
            child.kill()


def test_joining_a_lease_that_is_being_taken_down_without_the_guard_is_refused(tmp_path: Path) -> None:
    wrongdoer = FileLock(tmp_path / "lease")
    wrongdoer.acquire()
    with pytest.raises(RuntimeError, match="guard"):
        Lease(tmp_path / "lease").join()
    wrongdoer.release()


def test_exclusive_lets_nobody_else_in_and_gives_back_after_a_failure(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "guard"
    with exclusive(path, console, "testing"):
        assert FileLock(path).acquire(wait=False) is False
    with pytest.raises(ValueError, match="inside"), exclusive(path, console, "testing"):
        raise ValueError("inside")
    assert nobody_holds(path)


def test_a_step_that_outlives_its_run_keeps_the_next_one_waiting(tmp_path: Path) -> None:
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
        assert not nobody_holds(tmp_path / "guard")
        os.kill(step, signal.SIGKILL)
        lock = FileLock(tmp_path / "guard")
        assert lock.acquire()
        lock.release()
