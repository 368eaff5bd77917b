"""Identification of processes by their command lines.

The process ID in a pid file may already belong to another process. Before this module sends a signal, it therefore
checks the command line and uses a handle that cannot be reused (a pidfd).
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

Match = Callable[[Sequence[str]], bool]


def running_with(program: str, argument: str) -> Match:
    """Return a function that matches processes by program and argument.

    The program must have the base name `program`, and one of its arguments must contain the complete path `argument`:
    `/run/a` does not match `/run/ab`.
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
    """Return the command line of a process; empty if the process has another root file system or does not exist."""
    try:
        ours, theirs = os.stat("/"), os.stat(f"/proc/{pid}/root/")
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        return ()
    return tuple(part.decode(errors="surrogateescape") for part in raw.split(b"\0")[:-1])


def find(match: Match) -> list[int]:
    """Return the IDs of all matching processes, without this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            if match(argv_of(pid)):
                found.append(pid)
    return sorted(found)


def stop(pid: int, match: Match, grace: float, then: float = 10.0) -> bool:
    """Terminate a process if it still matches.

    Sends SIGTERM, waits `grace` seconds, sends SIGKILL and waits `then` seconds. Returns True if the process has exited
    or does not match.
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
            if _exited(handle, seconds):
                _reap(pid)
                return True
        return False
    finally:
        os.close(handle)


def _exited(handle: int, seconds: float) -> bool:
    ready = select.poll()
    ready.register(handle, select.POLLIN)
    return bool(ready.poll(seconds * 1000))


def _reap(pid: int) -> None:
    """Reap the process if it is a child of this process, so that it does not remain as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
