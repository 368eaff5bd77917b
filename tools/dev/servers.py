"""Servers with a temporary data directory, whose containers and data are removed at the end.

Each run has a directory in the cache and holds its lock. A directory with a free lock belongs to a killed run. The next
run terminates the server of this directory and removes its objects on the engine.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.dev import processes
from tools.dev.console import Console, StepFailed
from tools.dev.engine import Engine
from tools.dev.locks import FileLock, exclusive
from tools.dev.paths import Paths
from tools.dev.signals import uninterrupted

READY_SECONDS = 60.0
DRAIN_SECONDS = 30.0
READY_LINE = "listening on "
PROGRAM = "sandpool-server"


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], log: Path, console: Console | None) -> None:
        self._process = process
        self._log = log
        self._console = console
        self._ready = threading.Event()
        self.address = ""
        self._reader = threading.Thread(target=self._read, name="server-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Write the server's output to the log, and detect the line with its address or the end of the output."""
        assert self._process.stdout is not None
        with self._log.open("a") as log, self._process.stdout as output:
            for line in output:
                log.write(line)
                log.flush()
                if self._console is not None:
                    self._console.say(line.rstrip())
                if line.startswith(READY_LINE) and not self._ready.is_set():
                    self.address = line.removeprefix(READY_LINE).strip()
                    self._ready.set()
        self._ready.set()

    def wait_ready(self) -> None:
        """Return when the server is ready. Raises `StepFailed` if it exits or is not ready in time."""
        if not self._ready.wait(READY_SECONDS) or not self.address:
            raise StepFailed("the server does not start", f"read its log {self._log}", self._log)

    def wait(self) -> int:
        """Wait until the server exits, and return its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Stop the server after its active calls have finished."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)


class Servers:
    """Starts servers for the demo and for manual tests, and removes their objects."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._program = paths.venv / "bin" / PROGRAM
        self._runs = paths.cache / "runs"
        self._guard = paths.cache / "runs.lock"
        self._console = console
        self._env = env

    @contextmanager
    def running(self, engine: Engine, address: str, *, shown: bool = False) -> Iterator[Server]:
        """Run a server during the block, and remove all its objects at the end.

        `address` is a host:port; empty means the server's own settings. With `shown`, the output of the server also
        appears on the terminal, otherwise only in a log file.
        """
        self.recover()
        directory, lock = self._new_run(engine)
        data = directory / "data"
        log = self._console.log_file("server")
        try:
            process = self._start(data, address, engine, None if shown else log)
            server = Server(process, log, self._console if shown else None)
            try:
                with self._console.step("server"):
                    server.wait_ready()
                yield server
            finally:
                with uninterrupted():
                    server.stop()
        finally:
            with uninterrupted(), self._console.step("removing the containers and data of the server"):
                self._remove(directory)
                lock.release()

    def recover(self) -> None:
        """Remove the servers and objects of killed runs."""
        with exclusive(self._guard, self._console, "cleaning up"):
            for directory in sorted(self._runs.glob("*/")) if self._runs.is_dir() else []:
                lock = FileLock(directory / "lock")
                if not lock.acquire(wait=False):
                    continue
                try:
                    with self._console.step("cleaning up after a killed run"):
                        self._remove(directory)
                except StepFailed as failure:
                    self._console.say(f"    the cleanup failed, the next run repeats it: {failure.message}")
                finally:
                    lock.release()

    def _new_run(self, engine: Engine) -> tuple[Path, FileLock]:
        with exclusive(self._guard, self._console, "cleaning up"):
            directory = self._runs / secrets.token_hex(6)
            (directory / "data").mkdir(parents=True, mode=0o700)
            (directory / "host").write_text(engine.host)
            lock = FileLock(directory / "lock")
            lock.acquire()
            return directory, lock

    def _start(self, data: Path, address: str, engine: Engine, log: Path | None) -> subprocess.Popen[str]:
        argv = [str(self._program), "serve", "--data-dir", str(data)]
        if address:
            argv += ["--address", address]
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(log.open("ab")) if log is not None else None
            # In a separate session, because Ctrl-C must reach this process only, which then stops the server.
            return subprocess.Popen(
                argv,
                env={**self._env, **engine.environment()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def _remove(self, directory: Path) -> None:
        data = directory / "data"

        def is_server(argv: Sequence[str]) -> bool:
            return str(data) in argv and any(os.path.basename(part) == PROGRAM for part in argv)

        for pid in processes.find(is_server):
            processes.stop(pid, is_server, DRAIN_SECONDS)
        if any(data.iterdir()):
            host = (directory / "host").read_text()
            self._console.run(
                "purge",
                [self._program, "purge", "--data-dir", data],
                env={**self._env, "DOCKER_HOST": host},
                hint=f"remove containers and networks with the label sandpool.server on {host}",
            )
        shutil.rmtree(directory)
