"""What the person at the terminal sees: steps with their time, and failures that say what to do."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 15.0
TAIL_LINES = 25
KEPT_RUNS = 10


class StepFailed(Exception):
    """A step of the set-up failed; `hint` says what the person can do about it."""

    def __init__(self, message: str, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log

    def report(self) -> str:
        """The whole story: what failed, the end of its log, what to do."""
        lines = [f"error: {self.message}"]
        if self.log is not None and self.log.is_file():
            tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            lines += [f"  last lines of {self.log}:", *(f"  | {line}" for line in tail)]
        if self.hint:
            lines.append(f"what to do: {self.hint}")
        return "\n".join(lines)


class Console:
    """Prints steps and keeps the output of what they run in one folder a run."""

    def __init__(self, logs: Path) -> None:
        self._root = logs
        self._folder = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        # File descriptors of locks that what we run holds with us: when we are killed, the next
        # run waits until an installation that goes on without us has ended.
        self.shared_locks: set[int] = set()

    def say(self, line: str) -> None:
        """One line, at once and in one piece: others may read or write the same output."""
        print(f"{line}\n", end="", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Say that a step begins and, when it has succeeded, how long it took."""
        self.say(f"==> {title}")
        started = time.monotonic()
        yield
        self.say(f"    done in {time.monotonic() - started:.1f} s")

    def log_file(self, name: str) -> Path:
        """A file for the output of what is called `name`; a second use of a name appends."""
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            self._forget_old_runs()
        return self._folder / f"{name}.log"

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        hint: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command with its output in a log file; StepFailed when it does not exit with 0."""
        log = self.log_file(name)
        command = [str(part) for part in argv]
        with log.open("ab") as output:
            output.write(f"$ {shlex.join(command)}\n".encode())
            output.flush()
            try:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=tuple(self.shared_locks),
                )
            except OSError as error:
                raise StepFailed(f"cannot start {command[0]}: {error.strerror}", hint) from error
            code = self._wait(process)
        if code != 0:
            raise StepFailed(f"{shlex.join(command)} ended with code {code}", hint, log)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        started = time.monotonic()
        try:
            while True:
                try:
                    return process.wait(timeout=HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    self.say(f"    … {time.monotonic() - started:.0f} s")
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def _forget_old_runs(self) -> None:
        runs = sorted(entry for entry in self._root.iterdir() if entry.is_dir())
        for old in runs[:-KEPT_RUNS]:
            for file in old.iterdir():
                file.unlink(missing_ok=True)
            old.rmdir()


def warn(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)
