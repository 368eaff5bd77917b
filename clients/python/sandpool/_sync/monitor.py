# Made from _async/monitor.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""What goes on in a sandbox: its logs and what it uses."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from datetime import datetime

from sandpool._core import monitoring
from sandpool._core.inside import LogEntry, SandboxLogs, SandboxStats
from sandpool._core.monitoring import Reading
from sandpool._sync.base import HandleBase
from sandpool._sync.resuming import resumed
from sandpool.errors import SandboxConnectionError, SandboxNotReadyError


class MonitorMethods(HandleBase):
    """Logs and figures of a sandbox."""

    def logs(
        self,
        *,
        sources: Iterable[str] | None = None,
        tail: int | None = None,
        since: datetime | None = None,
        after_sequence: int = 0,
        follow: bool = False,
        timeout: float | None = None,
    ) -> Generator[LogEntry, None, None]:
        """The lines that the entrypoint and the services printed, oldest first. The last 1 MiB of them is kept.

        Args:
            sources: Only lines of these: "entrypoint" or a service's name.
            tail: Only the last so many.
            since: Only lines that were printed at this moment or later, an aware datetime.
            after_sequence: Only lines after this `LogEntry.sequence`.
            follow: Go on with what is printed from now on, also over a broken connection, until the sandbox ends.
            timeout: Seconds until it ends with ResourceTimeoutError; no limit by default.
        """
        reading = Reading(self.sandbox_id, sources, tail, since, after_sequence, follow, timeout)
        with closing(self._entries(reading)) as entries:
            for entry in entries:
                yield entry

    def get_logs(
        self,
        *,
        process_ids: Iterable[str] | None = None,
        next_token: str | None = None,
        tail: int | None = None,
        timeout: float | None = None,
    ) -> SandboxLogs:
        """The lines that there are now; with the `next_token` of the answer before, those after them.

        `process_ids` are names of services, or "entrypoint": see `logs`, which can also follow.
        """
        after = int(next_token) if next_token else 0
        reading = Reading(self.sandbox_id, process_ids, tail, after_sequence=after, timeout=timeout)
        with closing(self._entries(reading)) as entries:
            found = [entry for entry in entries]
        return SandboxLogs(tuple(found), reading.lost_entries, str(reading.after_sequence))

    def stats(self, *, timeout: float | None = None) -> SandboxStats:
        """What the sandbox uses now: processor, memory, disk, network, processes."""
        return self._transport.call(monitoring.get_stats(self.sandbox_id, timeout))

    def watch_stats(
        self, interval: float | None = None, *, timeout: float | None = None
    ) -> Generator[SandboxStats, None, None]:
        """What the sandbox uses, every `interval` seconds, 1 by default, until the iterator is closed.

        It goes on over broken connections. With a `timeout` in seconds it ends with ResourceTimeoutError.
        """
        return resumed(self._transport, lambda left: monitoring.watch_stats(self.sandbox_id, interval, left), timeout)

    def _entries(self, reading: Reading) -> Generator[LogEntry, None, None]:
        while True:
            try:
                with closing(self._transport.stream(reading.call())) as answers:
                    for answer in answers:
                        for entry in reading.take(answer):
                            yield entry
                return
            except SandboxNotReadyError:
                if not (reading.follow and reading.begun):
                    raise
                return  # it ended, and so does its log
            except SandboxConnectionError as failure:
                reading.failures += 1
                retry = self._transport.retry
                pause = retry.pause(reading.failures, monitoring.PATIENCE_SECS, failure.retry_after)
                if pause is None:
                    raise
                self._transport.pause(pause)
