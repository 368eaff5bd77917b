"""Servers with a private data folder, and everything that they made removed in the end.

Each run has a folder in the cache whose lock the run holds. A folder with a free lock belongs to
a run that was killed: the next run ends its server and removes what it made on its engine.
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
        """Keep what it prints and notice the line that says it is ready, or its end."""
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
        """Return when it serves; StepFailed when it ends before or takes too long."""
        if not self._ready.wait(READY_SECONDS) or not self.address:
            raise StepFailed("the server does not come up", "its log says why", self._log)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Let it finish its calls and end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)


class Servers:
    """Starts servers for demo and trying by hand, and cleans up after them."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._program = paths.venv / "bin" / PROGRAM
        self._runs = paths.cache / "runs"
        self._guard = paths.cache / "runs.lock"
        self._console = console
        self._env = env

    @contextmanager
    def running(self, engine: Engine, address: str, *, shown: bool = False) -> Iterator[Server]:
        """A ready server for the block, and nothing of it afterwards.

        `address` is a host:port; empty leaves it to the server's own settings.
        With `shown` its output goes to the terminal, else only to a log file.
        """
        self.recover()
        folder, lock = self._new_run(engine)
        data = folder / "data"
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
            with uninterrupted(), self._console.step("removing what the server made"):
                self._remove(folder)
                lock.release()

    def recover(self) -> None:
        """Clean up after runs that were killed."""
        with exclusive(self._guard, self._console, "cleaning up"):
            for folder in sorted(self._runs.glob("*/")) if self._runs.is_dir() else []:
                lock = FileLock(folder / "lock")
                if not lock.acquire(wait=False):
                    continue
                try:
                    with self._console.step("cleaning up after a run that was killed"):
                        self._remove(folder)
                except StepFailed as failure:
                    self._console.say(f"    not now: {failure.message}")
                finally:
                    lock.release()

    def _new_run(self, engine: Engine) -> tuple[Path, FileLock]:
        with exclusive(self._guard, self._console, "cleaning up"):
            folder = self._runs / secrets.token_hex(6)
            (folder / "data").mkdir(parents=True, mode=0o700)
            (folder / "host").write_text(engine.host)
            lock = FileLock(folder / "lock")
            lock.acquire()
            return folder, lock

    def _start(self, data: Path, address: str, engine: Engine, log: Path | None) -> subprocess.Popen[str]:
        argv = [str(self._program), "serve", "--data-dir", str(data)]
        if address:
            argv += ["--address", address]
        with contextlib.ExitStack() as stack:
            errors = stack.enter_context(log.open("ab")) if log is not None else None
            # A session of its own: Ctrl-C comes to us, and we end it in order.
            return subprocess.Popen(
                argv,
                env={**self._env, **engine.environment()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def _remove(self, folder: Path) -> None:
        data = folder / "data"

        def is_server(argv: Sequence[str]) -> bool:
            return str(data) in argv and any(os.path.basename(word) == PROGRAM for word in argv)

        for pid in processes.find(is_server):
            processes.stop(pid, is_server, DRAIN_SECONDS)
        if any(data.iterdir()):
            host = (folder / "host").read_text()
            self._console.run(
                "purge",
                [self._program, "purge", "--data-dir", data],
                env={**self._env, "DOCKER_HOST": host},
                hint=f"containers labelled sandpool.server may be left on {host}",
            )
        shutil.rmtree(folder)
