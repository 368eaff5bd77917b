"""Signal handling: terminating signals run the cleanup exactly once and completely."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

TERMINATING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise an exception, as Ctrl-C does, so that the cleanup runs."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore terminating signals during the block, so that a second Ctrl-C does not interrupt the cleanup."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in TERMINATING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def foreground(argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path | None = None) -> int:
    """Run a command on the terminal and return its exit code; 128 + n if signal n terminated it.

    Ctrl-C reaches the command directly, so this function continues to wait. It passes SIGTERM on to the command.
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
