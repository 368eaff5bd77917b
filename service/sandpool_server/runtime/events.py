"""Events of this server's containers, as a stream that reports when events may have been missed."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import urllib3.exceptions
from docker.errors import APIError, DockerException
from docker.types.daemon import CancellableStream

from sandpool_server.interfaces import RuntimeEvent, RuntimeEventKind
from sandpool_server.runtime import labels
from sandpool_server.runtime.client import Connect, EngineClient
from sandpool_server.runtime.failures import normalised

_KINDS = {
    "die": RuntimeEventKind.DIED,
    "oom": RuntimeEventKind.OOM,
    "destroy": RuntimeEventKind.REMOVED,
    "pause": RuntimeEventKind.PAUSED,
    "kill": RuntimeEventKind.KILLED,
}
_TERMINATING_SIGNALS = {"9", "15"}
"""Signals sent through the engine that terminate a container; other signals are ignored."""
_RESYNC = RuntimeEvent(RuntimeEventKind.RESYNC)
_MAX_QUEUED = 10_000
_CONNECT_SECS = 5.0
_FIRST_PAUSE_SECS = 0.1
_MAX_PAUSE_SECS = 5.0


class Log(Protocol):
    """Logger of the reader."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log at level warning."""
        ...


class EventReader:
    """Reads the engine's events in a thread and passes them to the event loop through a bounded queue.

    Iterate over `stream()` once; `close()` ends the iteration.
    """

    def __init__(self, connect: Connect, server_id: str, idle_secs: float, log: Log) -> None:
        self._connect = connect
        self._server_id = server_id
        self._idle_secs = idle_secs
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: deque[RuntimeEvent] = deque()
        self._changed = asyncio.Event()
        self._closed = threading.Event()
        self._open: CancellableStream[Any] | None = None
        self._guard = threading.Lock()

    async def stream(self) -> AsyncIterator[RuntimeEvent]:
        """Yield events until the reader is closed. The first event, and the first after an interruption, is RESYNC."""
        thread = threading.Thread(target=self._run, name="engine-events", daemon=True)
        thread.start()
        try:
            while not self._closed.is_set():
                while self._queue:
                    yield self._queue.popleft()
                self._changed.clear()
                if not self._closed.is_set():
                    await self._changed.wait()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream and the thread. Idempotent. Call it on the event loop."""
        self._closed.set()
        self._changed.set()
        with self._guard:
            stream, self._open = self._open, None
        if stream is not None:
            _shut(stream)

    def _put(self, event: RuntimeEvent) -> None:
        """Add an event to the queue. If the queue is full, one RESYNC replaces all its events."""
        if len(self._queue) >= _MAX_QUEUED:
            self._queue.clear()
            event = _RESYNC
        self._queue.append(event)
        self._changed.set()

    def _put_threadsafe(self, event: RuntimeEvent) -> None:
        """Add an event to the queue from the reader's thread."""
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # The event loop is closed.
            self._closed.set()

    def _run(self) -> None:
        """Read events and reconnect with backoff until closed. Runs in the reader's thread."""
        pause = _FIRST_PAUSE_SECS
        while not self._closed.is_set():
            client: EngineClient | None = None
            began = time.monotonic()
            try:
                client = self._connect(_CONNECT_SECS)
                self._read(client)
            except (DockerException, APIError, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
                if not self._closed.is_set():
                    self._log.warning("event stream of the engine interrupted", error=str(normalised(error)))
            finally:
                with self._guard:
                    stream, self._open = self._open, None
                if stream is not None:
                    _shut(stream)
                if client is not None:
                    client.close()
            # The backoff restarts after a stream that lasted, and grows while the engine closes streams immediately.
            pause = _FIRST_PAUSE_SECS if time.monotonic() - began > _MAX_PAUSE_SECS else min(2 * pause, _MAX_PAUSE_SECS)
            self._closed.wait(pause)

    def _read(self, client: EngineClient) -> None:
        """Read one stream until it breaks, is silent for too long, or is closed."""
        # The engine responds before the subscription is active. Requesting events since the engine's current second
        # repeats some events, but misses none.
        ping = client.get(f"{client.base_url}/_ping")
        ping.raise_for_status()
        since = int(parsedate_to_datetime(ping.headers["Date"]).timestamp())
        client.timeout = self._idle_secs
        # No filter for the instance label: the engine combines label filters with AND, and there are two such labels.
        filters = {
            "type": ["container"],
            "label": [f"{labels.SERVER}={self._server_id}"],
            "event": list(_KINDS),
        }
        stream = client.events(since=since, decode=True, filters=filters)
        with self._guard:
            self._open = stream
        if self._closed.is_set():
            return
        self._put_threadsafe(_RESYNC)
        try:
            for raw in stream:
                event = runtime_event(raw)
                if event is not None:
                    self._put_threadsafe(event)
        except urllib3.exceptions.ReadTimeoutError:
            return


def _shut(stream: "CancellableStream[Any]") -> None:
    """Shut down the socket of the stream, which wakes the thread that reads it.

    docker-py does not support this for some transports (ssh) and raises various errors. The thread then ends when the
    stream exceeds its silence limit.
    """
    with contextlib.suppress(DockerException, OSError, AttributeError, UnboundLocalError):
        stream.close()


def runtime_event(raw: dict[str, Any]) -> RuntimeEvent | None:
    """Convert an event of the engine. Returns None if the event is irrelevant."""
    kind = _KINDS.get(str(raw.get("Action", raw.get("status", ""))))
    attributes = (raw.get("Actor") or {}).get("Attributes") or {}
    instance_id = labels.instance_id_of(attributes)
    if kind is None or not instance_id:
        return None
    if kind is RuntimeEventKind.KILLED and str(attributes.get("signal")) not in _TERMINATING_SIGNALS:
        return None
    code = str(attributes.get("exitCode", ""))
    exit_code = int(code) if kind is RuntimeEventKind.DIED and code.isdecimal() else None
    return RuntimeEvent(kind, instance_id, exit_code)
