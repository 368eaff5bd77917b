# Code generated from _async/logs.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The log of a sandbox."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

from sandpool._core.monitor import LogReader
from sandpool._core.resumption import Resumption
from sandpool._models.monitor import LogEntry
from sandpool._sync.resumption import pause_before_resuming
from sandpool._transport.threads import Transport
from sandpool.errors import SandboxConnectionError, SandboxNotReadyError


def read_logs(transport: Transport, reader: LogReader, timeout: float | None) -> Generator[LogEntry, None, None]:
    """Yield log entries. After a broken connection, continue after the last received entry."""
    resumption = Resumption(timeout, time.monotonic)
    while True:
        try:
            with closing(transport.stream(reader.call(resumption.left()))) as responses:
                for response in responses:
                    resumption.progress()
                    for entry in reader.take(response):
                        yield entry
            return
        except SandboxNotReadyError:
            if reader.follow and reader.started:
                return  # The sandbox terminated, and its log with it.
            raise
        except SandboxConnectionError as failure:
            pause_before_resuming(transport, resumption, failure)
