"""A real server in a separate process, started like a user starts it. A test can kill and restart it."""

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
    """`sandpool-server serve` on a free port with its own data directory.

    As a context manager it finally removes all resources of the server from the engine, even if the test fails.
    """

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.address = ""
        self.web_address = ""
        """The address of the HTTP server, HOST:PORT, if the settings enable it."""
        self.log_file = data_dir.parent / f"{data_dir.name}.log"
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    def _command(self, command: str, *flags: str) -> list[str]:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        return [sys.executable, "-m", "sandpool_server", command, f"--data-dir={self.data_dir}", *given, *flags]

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """The standard error of the server, from all its starts."""
        return self.log_file.read_text()

    def start(self) -> Self:
        """Start the server and return when it listens."""
        # After a restart the server uses the same port, so that clients can reconnect.
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
            _first_line(self._process.stdout, START_SECS)  # the line with the address of the engine
            self.web_address = _first_line(self._process.stdout, START_SECS).rpartition("/")[2].strip()
        return self

    def stop(self) -> int:
        """Stop the server with SIGTERM and return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
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
        """Remove all resources of this server from the engine."""
        subprocess.run(self._command("purge"), check=True, timeout=STOP_SECS, capture_output=True, text=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.purge()


def _first_line(stream: IO[str], seconds: float) -> str:
    """Return the next line, or an empty string after `seconds`."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return ""
