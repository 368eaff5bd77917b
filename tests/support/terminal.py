"""Programs on a terminal of their own."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence


def on_a_terminal(words: Sequence[str], env: Mapping[str, str], secs: float = 60) -> tuple[int, str]:
    """Run a program on a terminal of 24 lines and 100 columns; gives its exit code and what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # tcsetwinsize is not in 3.10
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(env)) as running:
        os.close(theirs)
        shown = b""
        try:
            while part := _read(ours):
                shown += part
            running.wait(secs)
        finally:
            os.close(ours)
            running.kill()
    return running.returncode, shown.decode()


def _read(terminal: int) -> bytes:
    """What comes next; nothing when the last program on it has ended, which Linux says by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
