"""A real server in a process of its own, as a user starts it, that a test may kill and start again."""

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Self

START_SECS = 60.0
STOP_SECS = 60.0


class ServerProcess:
    """`sandpool-server serve` on a free port with a data folder of its own.

    As a context manager it removes, at the end, everything that the server made on the engine, however the test ended.
    """

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.address = ""
        self.web_address = ""
        """Where it serves HTTP, HOST:PORT, when the settings have it do so."""
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    def _command(self, command: str, *flags: str) -> list[str]:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        return [sys.executable, "-m", "sandpool_server", command, f"--data-dir={self.data_dir}", *given, *flags]

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that the server wrote to standard error, over all its starts."""
        return self.log_file.read_text()

    def start(self) -> Self:
        """Start, and return when the server says that it listens."""
        # The same port again after a restart, as a user has it, so that clients find it.
        flag = f"--address={self.address or '127.0.0.1:0'}"
        with self.log_file.open("a") as log:
            self._process = subprocess.Popen(
                self._command("serve", flag), stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ
            )
        assert self._process.stdout is not None
        line = _first_line(self._process.stdout, START_SECS)
        if not line.startswith("listening on "):
            self._end(signal.SIGKILL)
            raise AssertionError(f"the server did not start; its log:\n{self.log}")
        self.address = line.removeprefix("listening on ").strip()
        if self._settings.get("web_address"):
            _first_line(self._process.stdout, START_SECS)  # where the engine is
            self.web_address = _first_line(self._process.stdout, START_SECS).rpartition("/")[2].strip()
        return self

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(STOP_SECS)
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()

    def purge(self) -> None:
        """Remove everything that this server has on the engine."""
        subprocess.run(self._command("purge"), check=True, timeout=STOP_SECS, capture_output=True, text=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.purge()


def _first_line(stream: IO[str], seconds: float) -> str:
    """The first line, or nothing if none comes in time."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return ""
