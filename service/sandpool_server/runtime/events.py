"""The engine's events of this server's containers, as a stream that tells when it may have missed some."""

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

from sandpool_server.ports import RuntimeEvent, RuntimeEventKind
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
_ENDING_SIGNALS = {"9", "15"}
"""Of the signals that somebody may have the engine send, those that end a container."""
_RESYNC = RuntimeEvent(RuntimeEventKind.RESYNC)
_MAX_QUEUED = 10_000
_CONNECT_SECS = 5.0
_FIRST_PAUSE_SECS = 0.1
_MAX_PAUSE_SECS = 5.0


class Log(Protocol):
    """What the reader says about itself."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log at level warning."""
        ...


class EventReader:
    """One reader: a thread that reads the engine's stream, and a bounded queue to the event loop.

    Use: iterate over `stream()` once; `close()` ends the iteration.
    """

    def __init__(self, connect: Connect, server_id: str, idle_secs: float, log: Log) -> None:
        self._connect = connect
        self._server_id = server_id
        self._idle_secs = idle_secs
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: deque[RuntimeEvent] = deque()
        self._news = asyncio.Event()
        self._closed = threading.Event()
        self._open: CancellableStream[Any] | None = None
        self._guard = threading.Lock()

    async def stream(self) -> AsyncIterator[RuntimeEvent]:
        """Yield events until closed, RESYNC first and after each interruption."""
        thread = threading.Thread(target=self._read_for_ever, name="engine-events", daemon=True)
        thread.start()
        try:
            while not self._closed.is_set():
                while self._queue:
                    yield self._queue.popleft()
                self._news.clear()
                if not self._closed.is_set():
                    await self._news.wait()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream and the thread. Idempotent; to be called on the event loop."""
        self._closed.set()
        self._news.set()
        with self._guard:
            stream, self._open = self._open, None
        if stream is not None:
            _shut(stream)

    def _put(self, event: RuntimeEvent) -> None:
        """Queue an event for the loop's side. When nobody keeps up, all that waits is replaced by one RESYNC."""
        if len(self._queue) >= _MAX_QUEUED:
            self._queue.clear()
            event = _RESYNC
        self._queue.append(event)
        self._news.set()

    def _hand_over(self, event: RuntimeEvent) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, event)
        except RuntimeError:  # The loop has ended.
            self._closed.set()

    def _read_for_ever(self) -> None:
        """Read, reconnect, back off. Runs in the thread."""
        pause = _FIRST_PAUSE_SECS
        while not self._closed.is_set():
            client: EngineClient | None = None
            began = time.monotonic()
            try:
                client = self._connect(_CONNECT_SECS)
                self._read(client)
            except (DockerException, APIError, urllib3.exceptions.HTTPError, OSError, ValueError, KeyError) as error:
                if not self._closed.is_set():
                    self._log.warning("the engine's events are interrupted", error=str(normalised(error)))
            finally:
                with self._guard:
                    stream, self._open = self._open, None
                if stream is not None:
                    _shut(stream)
                if client is not None:
                    client.close()
            # A stream that lasted was a good one; an engine that hangs up at once is left alone for longer and longer.
            pause = _FIRST_PAUSE_SECS if time.monotonic() - began > _MAX_PAUSE_SECS else min(2 * pause, _MAX_PAUSE_SECS)
            self._closed.wait(pause)

    def _read(self, client: EngineClient) -> None:
        """Read one stream to its end: broken, silent for too long, or closed."""
        # The engine answers before it has subscribed us, so ask for events from its own present second on: some may
        # come twice, none is missed.
        ping = client.get(f"{client.base_url}/_ping")
        ping.raise_for_status()
        since = int(parsedate_to_datetime(ping.headers["Date"]).timestamp())
        client.timeout = self._idle_secs
        filters = {
            "type": ["container"],
            "label": [f"{labels.SERVER}={self._server_id}", labels.MEMBER],
            "event": list(_KINDS),
        }
        stream = client.events(since=since, decode=True, filters=filters)
        with self._guard:
            self._open = stream
        if self._closed.is_set():
            return
        self._hand_over(_RESYNC)
        try:
            for raw in stream:
                event = runtime_event(raw)
                if event is not None:
                    self._hand_over(event)
        except urllib3.exceptions.ReadTimeoutError:
            return


def _shut(stream: "CancellableStream[Any]") -> None:
    """Shut the stream's socket, which wakes a thread that reads it.

    docker-py cannot for some transports (ssh), and says so in several ways; there the thread ends by the silence limit.
    """
    with contextlib.suppress(DockerException, OSError, AttributeError, UnboundLocalError):
        stream.close()


def runtime_event(raw: dict[str, Any]) -> RuntimeEvent | None:
    """Read one event of the engine; None for those that say nothing to us."""
    kind = _KINDS.get(str(raw.get("Action", raw.get("status", ""))))
    attributes = (raw.get("Actor") or {}).get("Attributes") or {}
    member_id = attributes.get(labels.MEMBER)
    if kind is None or not member_id:
        return None
    if kind is RuntimeEventKind.KILLED and str(attributes.get("signal")) not in _ENDING_SIGNALS:
        return None
    code = str(attributes.get("exitCode", ""))
    exit_code = int(code) if kind is RuntimeEventKind.DIED and code.isdecimal() else None
    return RuntimeEvent(kind, str(member_id), exit_code)
