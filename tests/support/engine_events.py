"""Events of the containers of one pool, with the times of the engine. A thread reads them while a test runs."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import docker


@dataclass(frozen=True)
class EngineEvent:
    """An event: its action (`create`, `start`, `die`, `destroy`, `pause` …), instance and time in seconds."""

    action: str
    instance_id: str
    time: float


class EngineEvents:
    """Reads events within its `with` block. `seen` contains them in the order of the engine."""

    def __init__(self, pool_id: str) -> None:
        self._pool_id = pool_id
        self._changed = threading.Condition()
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
            instance_id = raw["Actor"]["Attributes"].get("sandpool.instance", "")
            with self._changed:
                self.seen.append(EngineEvent(raw["Action"], instance_id, raw["timeNano"] / 1e9))
                self._changed.notify_all()

    def of(self, action: str, after: float = 0.0) -> list[EngineEvent]:
        """Return the events of an action at or after a time that were read so far."""
        return [event for event in tuple(self.seen) if event.action == action and event.time >= after]

    def wait(self, condition: Callable[[Self], bool], seconds: float = 30.0) -> None:
        """Return when the events satisfy the condition. Fail with the events after `seconds`."""
        end = time.monotonic() + seconds
        with self._changed:
            while not condition(self):
                if not self._changed.wait(end - time.monotonic()):
                    raise AssertionError(f"the events did not satisfy the condition: {self.seen}")
