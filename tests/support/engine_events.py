"""The engine's events of one pool's containers, with the engine's own times, read by a thread while a test acts."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import docker


@dataclass(frozen=True)
class EngineEvent:
    """One event: what happened (`create`, `start`, `die`, `destroy`, `pause` …), to which member, when in seconds."""

    action: str
    member_id: str
    time: float


class EngineEvents:
    """Reads inside its `with` block; everything that happens there is in `seen`, in the engine's order."""

    def __init__(self, pool_id: str) -> None:
        self._pool_id = pool_id
        self._news = threading.Condition()
        self.seen: list[EngineEvent] = []

    def __enter__(self) -> Self:
        self._api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=120)
        self._stream = self._api.events(decode=True, filters={"label": f"sandpool.pool={self._pool_id}"})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(5)
        self._api.close()

    def _read(self) -> None:
        for raw in self._stream:
            member_id = raw["Actor"]["Attributes"].get("sandpool.member", "")
            with self._news:
                self.seen.append(EngineEvent(raw["Action"], member_id, raw["timeNano"] / 1e9))
                self._news.notify_all()

    def of(self, action: str, after: float = 0.0) -> list[EngineEvent]:
        """The events of that kind at or after a time, so far."""
        return [event for event in tuple(self.seen) if event.action == action and event.time >= after]

    def wait(self, wanted: Callable[[Self], bool], seconds: float = 30.0) -> None:
        """Return once the events are as wanted; fails, showing them, after that many seconds."""
        end = time.monotonic() + seconds
        with self._news:
            while not wanted(self):
                if not self._news.wait(end - time.monotonic()):
                    raise AssertionError(f"the events never became as wanted: {self.seen}")
