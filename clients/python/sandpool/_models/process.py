"""Processes of a sandbox and their output."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sandpool._models.enums import ExitReason, OutputStream, ProcessHealth, ProcessState, RestartPolicy


@dataclass(frozen=True)
class TerminalSize:
    """The size of a terminal in characters, each from 1 to 4,096."""

    rows: int = 24
    """The number of rows."""
    cols: int = 80
    """The number of columns."""


@dataclass(frozen=True)
class OutputBuffer:
    """The range of one output stream that is buffered and can still be read.

    Offsets count every byte since the process, or the first run of the service, started.
    """

    start_offset: int
    """The offset of the first byte that is buffered."""
    end_offset: int
    """The offset after the last byte that the process wrote."""


@dataclass(frozen=True)
class ProcessExit:
    """How a process exited."""

    exit_code: int | None
    """The exit code, 0 to 255, or None if a signal terminated the process."""
    signal: int | None
    """The number of the signal that terminated the process, or None."""
    reason: ExitReason
    """Why the process exited."""


@dataclass(frozen=True)
class ProcessInfo:
    """A process of a sandbox, running or exited. Its output is buffered inside the sandbox."""

    process_id: str
    """The identifier of the process, unique in its sandbox."""
    name: str | None
    """The name of the service, or None for a process that is not a service."""
    state: ProcessState
    """The state of the process."""
    pid: int | None
    """The process id (PID) inside the sandbox, or None while no run exists."""
    command: str | None
    """The shell command, or None."""
    argv: tuple[str, ...] | None
    """The program and its arguments, or None."""
    cwd: str | None
    """The working directory that was requested, an absolute path, or None: that of the image."""
    user: str | None
    """The user that was requested, or None: that of the image."""
    terminal: TerminalSize | None
    """The current size of the terminal, or None if the process has no terminal."""
    stdin_open: bool
    """Whether standard input accepts more data."""
    stdin_bytes: int
    """The number of bytes of standard input that the process received."""
    stdout: OutputBuffer
    """The range of standard output that is buffered. With a terminal, all output of the process."""
    stderr: OutputBuffer
    """The range of standard error that is buffered."""
    start_time: datetime | None
    """When the current run started, by the sandbox's clock."""
    end_time: datetime | None
    """When the process exited, by the sandbox's clock, or None before."""
    exit: ProcessExit | None
    """How the process exited, for a service how its last run exited, or None before."""
    attached_clients: int
    """The number of attached clients."""
    restarts: int
    """The number of restarts of a service."""
    restart_policy: RestartPolicy | None
    """The restart policy of a service, or None for a process that is not a service."""
    health: ProcessHealth | None
    """The result of the service's health check, or None without a health check."""
    health_message: str | None
    """The result of the last failed health check for a person, or None."""
    expire_time: datetime | None
    """When the record and the buffered output are deleted, or None while the process runs."""


@dataclass(frozen=True)
class HealthCheck:
    """A periodic check of a service: an HTTP request with a `path`, otherwise a TCP connection."""

    port: int
    """The port on the sandbox's loopback address."""
    path: str | None = None
    """The path of the GET request. A status from 200 to 399 means healthy."""
    interval: float | None = None
    """Seconds between two checks, 0.1 to 3,600. Default: 2."""
    timeout: float | None = None
    """Time limit of one check in seconds, 0.1 to 60. Default: 2."""
    failure_threshold: int | None = None
    """The number of consecutive failed checks after which the service is unhealthy, 1 to 100. Default: 3."""


@dataclass(frozen=True)
class OutputChunk:
    """A part of the output of a process."""

    stream: OutputStream
    """The stream that the output belongs to."""
    data: str
    """The output as text. Bytes that are not UTF-8 are replaced by U+FFFD. Characters are never split across chunks."""
    offset: int
    """The offset of the first byte in its stream."""
    data_bytes: bytes = field(default=b"", repr=False)
    """The output as bytes."""
    dropped_bytes: int = 0
    """The number of bytes directly before this chunk that are missing because they are no longer buffered."""


@dataclass(frozen=True)
class ProcessOutput:
    """The buffered output of a process at one point in time."""

    stdout: str
    """Standard output as text. Bytes that are not UTF-8 are replaced by U+FFFD."""
    stderr: str
    """Standard error as text. Bytes that are not UTF-8 are replaced by U+FFFD."""
    stdout_bytes: bytes = field(repr=False)
    """Standard output as bytes."""
    stderr_bytes: bytes = field(repr=False)
    """Standard error as bytes."""
    stdout_offset: int
    """The offset of the next byte of standard output."""
    stderr_offset: int
    """The offset of the next byte of standard error."""
    stdout_dropped_bytes: int
    """The number of bytes of standard output that are no longer buffered."""
    stderr_dropped_bytes: int
    """The number of bytes of standard error that are no longer buffered."""
