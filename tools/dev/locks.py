"""Locks that the kernel drops when their holder dies, kill -9 included.

The files stay where they are for good: removing a lock file lets two processes hold "the" lock on
two different files of one name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.dev.console import Console


class FileLock:
    """A flock on one file, shared or exclusive. Children do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Take the lock; False when `wait` is false and someone else is in the way."""
        if self._fd is not None:
            raise RuntimeError(f"{self._path} is held already")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, mode if wait else mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def fileno(self) -> int:
        """The descriptor that holds the lock."""
        if self._fd is None:
            raise RuntimeError(f"{self._path} is not held")
        return self._fd


@contextmanager
def exclusive(path: Path, console: Console, purpose: str) -> Iterator[None]:
    """Hold `path` alone, saying so when another run makes us wait for it.

    Steps that the console runs meanwhile hold it too, until they end.
    """
    lock = FileLock(path)
    if not lock.acquire(wait=False):
        console.say(f"    waiting: another run is busy with {purpose}")
        lock.acquire()
    fd = lock.fileno()
    console.shared_locks.add(fd)
    try:
        yield
    finally:
        console.shared_locks.discard(fd)
        lock.release()


class Lease:
    """One user's share of something that the last user takes down.

    All changes (start, join, leave, take down) happen under `guard`, an exclusive lock; the share
    itself is a shared lock on `path`, so that a killed user is gone without having said so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._share = FileLock(path)

    def join(self) -> None:
        """Become a user. Call under the guard."""
        if not self._share.acquire(shared=True, wait=False):
            raise RuntimeError(f"{self._path} is locked by someone who does not hold the guard")

    def leave(self) -> bool:
        """Stop being a user. Call under the guard. True when nobody is left."""
        self._share.release()
        return nobody_holds(self._path)


def nobody_holds(path: Path) -> bool:
    """Whether no process has a share of the lease at `path` at this moment."""
    probe = FileLock(path)
    if not probe.acquire(wait=False):
        return False
    probe.release()
    return True
