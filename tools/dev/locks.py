"""File locks that the kernel releases when their holder exits, even after SIGKILL.

Lock files are never removed. Otherwise, two processes could lock two different files with the same name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.dev.console import Console


class FileLock:
    """A shared or exclusive flock on a file. Child processes do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Acquire the lock. Returns False if `wait` is false and another process holds it."""
        if self._fd is not None:
            raise RuntimeError(f"this process already holds the lock {self._path}")
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
        """Release the lock, if this object holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def fileno(self) -> int:
        """Return the file descriptor that holds the lock."""
        if self._fd is None:
            raise RuntimeError(f"this process does not hold the lock {self._path}")
        return self._fd


@contextmanager
def exclusive(path: Path, console: Console, purpose: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` during the block. Prints a message if it has to wait for another run.

    Commands of steps that the console runs in the block also hold the lock, until they exit.
    """
    lock = FileLock(path)
    if not lock.acquire(wait=False):
        console.say(f"    waiting for another run: {purpose}")
        lock.acquire()
    fd = lock.fileno()
    console.shared_locks.add(fd)
    try:
        yield
    finally:
        console.shared_locks.discard(fd)
        lock.release()


class Lease:
    """A lease of a resource that the last user stops.

    All changes (start, join, leave, stop) require an exclusive lock, the guard. The lease itself is a shared lock on
    `path`, so the lease of a killed user ends automatically.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._share = FileLock(path)

    def join(self) -> None:
        """Start using the resource. The caller must hold the guard."""
        if not self._share.acquire(shared=True, wait=False):
            raise RuntimeError(f"a process locks {self._path} without holding the guard")

    def leave(self) -> bool:
        """Stop using the resource. The caller must hold the guard. Returns whether there is no other user."""
        self._share.release()
        return is_unused(self._path)


def is_unused(path: Path) -> bool:
    """Return whether no process currently has a lease at `path`."""
    probe = FileLock(path)
    if not probe.acquire(wait=False):
        return False
    probe.release()
    return True
