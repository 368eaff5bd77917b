"""Calls about a sandbox's logs and figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from sandpool._core import convert_inside as convert
from sandpool._core import methods
from sandpool._core.arguments import given, words
from sandpool._core.call import Call
from sandpool._core.inside import LogEntry, SandboxStats
from sandpool.v1 import monitor_service_pb2 as pb

PATIENCE_SECS: Final = 60.0
"""How long a log is taken up again and again while nothing answers."""


@dataclass
class Reading:
    """Which lines to read; it goes on after the last that came, over any number of connections."""

    sandbox_id: str
    sources: Iterable[str] | None = None
    tail: int | None = None
    since: datetime | None = None
    after_sequence: int = 0
    follow: bool = False
    timeout: float | None = None
    lost_entries: int = 0
    failures: int = 0
    begun: bool = False
    """Whether anything was answered."""
    _seen: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.since is not None and self.since.tzinfo is None:
            raise ValueError("since must be an aware datetime, such as datetime.now(timezone.utc)")
        self.sources = words("sources", self.sources)

    def call(self) -> Call[pb.ReadLogsResponse, pb.ReadLogsResponse]:
        """The call that goes on."""
        since = None
        if self.since is not None:
            since = Timestamp()
            since.FromDatetime(self.since)
        request = pb.ReadLogsRequest(
            sandbox_id=self.sandbox_id,
            sources=self.sources,
            after_sequence=self.after_sequence,
            follow=self.follow,
            # What comes after the last line that came is wanted whole.
            **given(since=since, tail=None if self._seen else self.tail),
        )
        return Call(methods.READ_LOGS, request, lambda answer: answer, timeout=self.timeout)

    def take(self, answer: pb.ReadLogsResponse) -> list[LogEntry]:
        """The lines of an answer."""
        self.failures, self.begun = 0, True
        self.lost_entries += answer.lost_entries
        lost, entries = answer.lost_entries, []
        for message in answer.entries:
            entries.append(convert.log_entry(message, lost))
            lost = 0
            self.after_sequence = message.sequence
            self._seen = True
        return entries


def get_stats(sandbox_id: str, timeout: float | None) -> Call[pb.GetStatsResponse, SandboxStats]:
    """What a sandbox uses."""
    request = pb.GetStatsRequest(sandbox_id=sandbox_id)
    return Call(methods.GET_STATS, request, lambda answer: convert.stats(answer.stats), timeout=timeout)


def watch_stats(
    sandbox_id: str, interval_secs: float | None, timeout: float | None
) -> Call[pb.WatchStatsResponse, SandboxStats]:
    """What a sandbox uses, again and again."""
    request = pb.WatchStatsRequest(sandbox_id=sandbox_id, **given(interval_secs=interval_secs))
    return Call(methods.WATCH_STATS, request, lambda answer: convert.stats(answer.stats), timeout=timeout)
