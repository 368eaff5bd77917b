"""Logs, metrics and exposed ports of a sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sandpool._models.enums import OutputStream


@dataclass(frozen=True)
class ExposedPort:
    """A port of a sandbox that the server exposes by HTTP under a separate host name."""

    port: int
    """The port inside the sandbox."""
    url: str
    """The URL of the port."""
    create_time: datetime | None
    """When the port was exposed."""


@dataclass(frozen=True)
class LogEntry:
    """A log line of the entrypoint or of a service."""

    sequence: int
    """The sequence number among all entries of the sandbox, starting at 1."""
    time: datetime | None
    """When the line was written, by the sandbox's clock."""
    source: str
    """`entrypoint`, or the name of a service."""
    stream: OutputStream
    """The stream that the line was written to."""
    text: str
    """The line without the line terminator."""
    partial: bool
    """Whether the line continues in the next entry of the same source and stream."""
    dropped_entries: int = 0
    """The number of entries directly before this one that are no longer retained."""


@dataclass(frozen=True)
class SandboxMetrics:
    """The resource usage and the limits of a sandbox at one point in time."""

    time: datetime | None
    """When the measurement was made, by the sandbox's clock."""
    cpu_time: float
    """CPU time in seconds that the sandbox used since its container started."""
    cpus_used: float
    """The average number of CPUs in use since the previous measurement."""
    cpus: float
    """The CPU limit in number of CPUs, or 0 if the sandbox can use all CPUs."""
    memory_bytes: int
    """The memory in use, without memory that the kernel can reclaim immediately."""
    memory_limit_bytes: int
    """The memory limit."""
    disk_bytes: int | None
    """The disk space in use, or None if the server does not measure it."""
    disk_limit_bytes: int
    """The disk limit."""
    network_received_bytes: int
    """Bytes received from the network since the sandbox's container started."""
    network_sent_bytes: int
    """Bytes sent to the network since the sandbox's container started."""
    processes: int
    """The number of processes and threads."""
    processes_limit: int
    """The limit of processes and threads."""
