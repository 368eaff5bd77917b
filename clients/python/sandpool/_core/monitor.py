"""Calls about the logs and the metrics of a sandbox."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sandpool._core import convert_sandbox_io as convert
from sandpool._core import methods
from sandpool._core.arguments import Timeout, duration, present, strings
from sandpool._core.call import Call
from sandpool._models.monitor import LogEntry, SandboxMetrics
from sandpool.v1 import monitor_service_pb2 as pb


@dataclass
class LogReader:
    """Which log entries to read, and the position after the last received entry."""

    sandbox_id: str
    sources: Iterable[str] | None = None
    tail: int | None = None
    since: datetime | None = None
    after_sequence: int = 0
    follow: bool = False
    started: bool = False
    """Whether a response was received."""
    _received: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.since is not None and self.since.tzinfo is None:
            raise ValueError("since must be an aware datetime; use for example datetime.now(timezone.utc)")
        self.sources = strings("sources", self.sources)

    def call(self, timeout: Timeout) -> Call[pb.ReadLogsResponse, pb.ReadLogsResponse]:
        """Return the call that continues after the last received entry."""
        since = None
        if self.since is not None:
            since = Timestamp()
            since.FromDatetime(self.since)
        request = pb.ReadLogsRequest(
            sandbox_id=self.sandbox_id,
            sources=self.sources,
            after_sequence=self.after_sequence,
            follow=self.follow,
            # After the first received entry, all later entries are requested.
            **present(since=since, tail=None if self._received else self.tail),
        )
        return Call(methods.READ_LOGS, request, lambda response: response, timeout=timeout)

    def take(self, response: pb.ReadLogsResponse) -> list[LogEntry]:
        """Return the entries of a response."""
        self.started = True
        dropped, entries = response.dropped_entries, []
        for message in response.entries:
            entries.append(convert.log_entry(message, dropped))
            dropped = 0
            self.after_sequence = message.sequence
            self._received = True
        return entries


def get_metrics(sandbox_id: str, timeout: Timeout) -> Call[pb.GetMetricsResponse, SandboxMetrics]:
    """Read the metrics of a sandbox."""
    request = pb.GetMetricsRequest(sandbox_id=sandbox_id)
    return Call(methods.GET_METRICS, request, lambda response: convert.metrics(response.metrics), timeout=timeout)


def watch_metrics(
    sandbox_id: str, interval: float | None, timeout: Timeout
) -> Call[pb.WatchMetricsResponse, SandboxMetrics]:
    """Read the metrics of a sandbox once per interval."""
    request = pb.WatchMetricsRequest(sandbox_id=sandbox_id, **present(interval=duration("interval", interval)))
    return Call(methods.WATCH_METRICS, request, lambda response: convert.metrics(response.metrics), timeout=timeout)
