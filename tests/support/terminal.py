"""Programs on a pseudo-terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence


def on_a_terminal(argv: Sequence[str], env: Mapping[str, str], secs: float = 60) -> tuple[int, str]:
    """Run a program on a terminal of 24 rows and 100 columns. Return its exit code and its output."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # tcsetwinsize is not in 3.10
    with subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=dict(env)) as running:
        os.close(terminal)
        shown = b""
        try:
            while part := _read(controller):
                shown += part
            running.wait(secs)
        finally:
            os.close(controller)
            running.kill()
    return running.returncode, shown.decode()


def _read(terminal: int) -> bytes:
    """Return the next output, or no bytes after the last program has exited: Linux reports that as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
