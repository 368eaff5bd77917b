"""Processes told apart by what they run, never by a bare number.

A number in a pid file may by now belong to someone else's process, so nothing here signals a
process before having seen its command line through a handle that cannot be re-used (a pidfd).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

Match = Callable[[Sequence[str]], bool]


def running_with(program: str, argument: str) -> Match:
    """Match a process whose program has this base name and one of whose arguments contains
    `argument`, as a whole path: `/run/a` does not match `/run/ab`.
    """

    def match(argv: Sequence[str]) -> bool:
        if not argv or os.path.basename(argv[0]) != program:
            return False
        return any(_mentions(part, argument) for part in argv[1:])

    return match


def _mentions(text: str, path: str) -> bool:
    at = text.find(path)
    if at < 0:
        return False
    rest = text[at + len(path) :]
    return rest == "" or not (rest[0].isalnum() or rest[0] in "._-")


def argv_of(pid: int) -> tuple[str, ...]:
    """The command line of a process of this root file system; empty for any other."""
    try:
        ours, theirs = os.stat("/"), os.stat(f"/proc/{pid}/root/")
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        return ()
    return tuple(part.decode(errors="surrogateescape") for part in raw.split(b"\0")[:-1])


def find(match: Match) -> list[int]:
    """The numbers of all processes that match, ourselves left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            if match(argv_of(pid)):
                found.append(pid)
    return sorted(found)


def stop(pid: int, match: Match, grace: float, then: float = 10.0) -> bool:
    """End a process if it still matches: SIGTERM, `grace` seconds, SIGKILL, `then` seconds.

    True when it is gone (or never was the one that was meant).
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not match(argv_of(pid)):
            return True
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, then)):
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                return True
            if _ended(handle, seconds):
                _reap(pid)
                return True
        return False
    finally:
        os.close(handle)


def _ended(handle: int, seconds: float) -> bool:
    ready = select.poll()
    ready.register(handle, select.POLLIN)
    return bool(ready.poll(seconds * 1000))


def _reap(pid: int) -> None:
    """Collect it if it was our own child, so that it does not stay behind as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
