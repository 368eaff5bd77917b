"""Output on the terminal: steps with their durations, and failures with their solutions."""

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
RETAINED_RUNS = 10


class StepFailed(Exception):
    """A step of the setup failed. `hint` is what the user can do, `log` is a file with the output of the step."""

    def __init__(self, message: str, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log

    def report(self) -> str:
        """Return the complete message: the failure, the end of its log, and the solution."""
        lines = [f"error: {self.message}"]
        if self.log is not None and self.log.is_file():
            tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            lines += [f"  last lines of {self.log}:", *(f"  | {line}" for line in tail)]
        if self.hint:
            lines.append(f"solution: {self.hint}")
        return "\n".join(lines)


class Console:
    """Prints steps, and writes the output of their commands to one directory for each run."""

    def __init__(self, logs: Path) -> None:
        self._root = logs
        self._directory = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        # File descriptors of locks that the commands of steps inherit. If this process is killed, its command still
        # holds the locks, so that the next run waits until the command has exited.
        self.shared_locks: set[int] = set()

    def say(self, line: str) -> None:
        """Print a line with a single write, because other processes may write to the same output."""
        print(f"{line}\n", end="", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the start of a step and, if it succeeds, its duration."""
        self.say(f"==> {title}")
        started = time.monotonic()
        yield
        self.say(f"    done in {time.monotonic() - started:.1f} s")

    def log_file(self, name: str) -> Path:
        """Return the log file for the output of `name`. Commands with the same name append to the same file."""
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True)
            self._remove_old_runs()
        return self._directory / f"{name}.log"

    def run(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        hint: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Run a command with its output in a log file. Raises `StepFailed` if it does not exit with 0."""
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
            raise StepFailed(f"{shlex.join(command)} exited with code {code}", hint, log)

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

    def _remove_old_runs(self) -> None:
        runs = sorted(entry for entry in self._root.iterdir() if entry.is_dir())
        for old in runs[:-RETAINED_RUNS]:
            for file in old.iterdir():
                file.unlink(missing_ok=True)
            old.rmdir()


def warn(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)
