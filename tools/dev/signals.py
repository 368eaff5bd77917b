"""Ends asked for by signals: run the clean-up once, whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def leave_in_order() -> None:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that clean-up runs."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let nobody cut a clean-up short: a second Ctrl-C waits like the first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def foreground(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None) -> int:
    """Run a command on our terminal and wait for it; its exit code (128 + n for signal n).

    Ctrl-C reaches it directly, so we only wait on; a SIGTERM to us is passed on to it.
    """
    process = subprocess.Popen([str(part) for part in argv], env=env, cwd=cwd)
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue
        except SystemExit:
            process.terminate()
