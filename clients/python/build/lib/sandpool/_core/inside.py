"""What goes on inside a sandbox, as the client gives it back: processes, files, ports, logs and figures."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandpool._core.enums import (
    CommandEndReason,
    FileChange,
    FileType,
    OutputStream,
    ProcessHealth,
    ProcessState,
    RestartPolicy,
)


@dataclass(frozen=True)
class TerminalSize:
    """The size of a terminal in characters, each from 1 to 4,096."""

    rows: int = 24
    cols: int = 80


@dataclass(frozen=True)
class KeptOutput:
    """What is kept of one stream of output, by offsets that count every byte since the process began."""

    begin: int
    """The first byte that is still kept."""
    end: int
    """After the last byte that was printed."""


@dataclass(frozen=True)
class ProcessEnd:
    """How a process ended."""

    exit_code: int | None
    """0 to 255, or None when a signal ended it."""
    signal: int | None
    """The signal's number, or None when it exited by itself."""
    reason: CommandEndReason


@dataclass(frozen=True)
class ProcessInfo:
    """A process that was started in a sandbox, running or ended. Its output is kept inside the sandbox."""

    process_id: str
    name: str
    """The service's name, or empty for a process that is no service."""
    state: ProcessState
    pid: int
    """The process id inside the sandbox; 0 while there is none."""
    command: str
    """The line for the shell, or empty."""
    argv: tuple[str, ...]
    """The program and its arguments, or empty."""
    working_dir: str
    user: str
    terminal: TerminalSize | None
    """The terminal's present size; None where there is no terminal."""
    stdin_open: bool
    """Whether its standard input can still be written to."""
    stdin_bytes: int
    """How many bytes of standard input it was given so far."""
    stdout: KeptOutput
    """What is kept of its standard output; with a terminal, of all that it prints."""
    stderr: KeptOutput
    start_time: datetime | None
    """When the present run began, by the sandbox's clock."""
    end_time: datetime | None
    end: ProcessEnd | None
    """How it ended, or how the last run of a service did; None until then."""
    attached_clients: int
    restarts: int
    """How often a service was started again."""
    restart_policy: RestartPolicy | None
    """What restarts a service; None for a process that is none."""
    health: ProcessHealth | None
    """What the service's health check found; None where there is no check."""
    health_message: str
    expire_time: datetime | None
    """When the record and its output go; None while it runs."""

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.state is ProcessState.RUNNING

    @property
    def exit_code(self) -> int | None:
        """The exit code, where it exited by itself."""
        return self.end.exit_code if self.end is not None else None

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended it, where one did."""
        return self.end.signal if self.end is not None else None


@dataclass(frozen=True)
class HealthCheck:
    """How a sandbox finds out whether a service is well: with a path by HTTP, else by connecting to the port."""

    port: int
    path: str | None = None
    """What to GET on the sandbox's loopback address; a status from 200 to 399 is well."""
    interval_secs: float | None = None
    """Seconds between two tries, 2 by default."""
    timeout_secs: float | None = None
    """Seconds that one try may take, 2 by default."""
    retries: int | None = None
    """How many tries in a row must fail, 3 by default."""


@dataclass(frozen=True)
class OutputChunk:
    """A piece of what a process printed."""

    stream: OutputStream
    data: str
    """As text; what is not UTF-8 is replaced by U+FFFD. A character that is cut comes whole with the next piece."""
    offset: int
    """The offset of the first byte in its stream."""
    raw: bytes = field(default=b"", repr=False)
    """The bytes as they were printed."""
    lost_bytes: int = 0
    """How many bytes before these are missing, because more was printed than is kept."""


@dataclass(frozen=True)
class ProcessOutput:
    """What is kept of a process's output at one moment."""

    stdout: str
    stderr: str
    stdout_bytes: bytes = field(repr=False)
    stderr_bytes: bytes = field(repr=False)
    stdout_offset: int
    """Where to go on reading standard output."""
    stderr_offset: int
    """Where to go on reading standard error."""
    lost_bytes: int
    """How many bytes before were not kept."""

    @property
    def lines(self) -> list[str]:
        """The lines of both streams, standard output first."""
        return [*self.stdout.splitlines(), *self.stderr.splitlines()]


@dataclass(frozen=True)
class FileInfo:
    """A file, folder or anything else that has a name in a sandbox."""

    path: str
    """Absolute."""
    type: FileType
    size: int
    """In bytes; 0 for what has none."""
    mode: int
    """The permission bits with set-user-id, set-group-id and sticky."""
    uid: int
    gid: int
    user: str
    """The owner's name in the sandbox, or empty."""
    group: str
    """The group's name in the sandbox, or empty."""
    modify_time: datetime | None
    link_target: str
    """Where a symbolic link leads, as it was written."""
    etag: str
    """Changes whenever the content does."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.type is FileType.DIRECTORY


@dataclass(frozen=True)
class DirectoryListing:
    """What is in a folder. It can be iterated over."""

    path: str
    entries: tuple[FileInfo, ...]

    def __iter__(self) -> Iterator[FileInfo]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class FileEvent:
    """A change below a path that is watched."""

    change: FileChange
    path: str


@dataclass(frozen=True)
class FolderUpload:
    """What was written of a folder."""

    entries: int
    bytes_written: int


@dataclass(frozen=True)
class ExposedPort:
    """A port of a sandbox that is served by HTTP under a host name of its own."""

    port: int
    url: str
    create_time: datetime | None


@dataclass(frozen=True)
class LogEntry:
    """A line that the entrypoint or a service printed."""

    sequence: int
    """Its place among all lines of the sandbox, from 1."""
    time: datetime | None
    source: str
    """`entrypoint` or the service's name."""
    stream: OutputStream
    text: str
    partial: bool
    """Whether the line goes on in the next entry of the same source and stream."""
    lost_before: int = 0
    """How many entries right before this one are not kept any more."""


@dataclass(frozen=True)
class SandboxLogs:
    """Lines of a sandbox's log, oldest first. They can be iterated over."""

    entries: Sequence[LogEntry]
    lost_entries: int
    """How many before these are not kept any more."""
    next_token: str
    """Give it to `get_logs` to go on after these."""

    def __iter__(self) -> Iterator[LogEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class SandboxStats:
    """What a sandbox uses at one moment."""

    time: datetime | None
    cpu_time: timedelta
    """The processor time since it was claimed or made ready."""
    cpus_used: float
    """On average since the measurement before, or over the last moments."""
    cpus: float
    memory_bytes: int
    memory_limit_bytes: int
    disk_bytes: int
    disk_limit_bytes: int
    network_received_bytes: int
    network_sent_bytes: int
    processes: int
    processes_limit: int
