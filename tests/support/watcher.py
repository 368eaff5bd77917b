"""An independent watcher of the engine: a separate process that counts containers of a pool, by polling and by events.

`python -m tests.support.watcher POOL_ID` prints `watching` when it starts. At the end of its standard input it prints
its counts as a line of JSON.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import docker

_END_SECS = 30.0
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Seen:
    """The counts of the watcher: highest numbers of containers, by polling and by events, and number of polls."""

    most_polled: int = 0
    most_by_events: int = 0
    polls: int = 0
    created: int = 0
    destroyed: int = 0


class Watcher:
    """The watcher as a context manager. `seen` contains the counts after the block."""

    def __init__(self, pool_id: str) -> None:
        self._pool_id = pool_id
        self.seen = Seen()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.watcher", self._pool_id],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "watching\n", "the watcher did not start"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            try:
                output, _none = self._process.communicate(timeout=_END_SECS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise
        self.seen = Seen(**json.loads(output))


class _Counter:
    """Counts containers by events, in a thread."""

    def __init__(self, filters: dict[str, Any], seen: Seen) -> None:
        self._api = _client()
        self._filters = filters
        self._seen = seen
        self.existing: set[str] = set()
        # Subscribe before the first listing, so that no container is missed between the two.
        self._events = self._api.events(decode=True, filters={**filters, "event": ["create", "destroy"]})
        self.existing = {found["Id"] for found in self._api.containers(all=True, filters=filters)}
        self._note()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _note(self) -> None:
        self._seen.most_by_events = max(self._seen.most_by_events, len(self.existing))

    def _read(self) -> None:
        for event in self._events:
            if event["Action"] == "create":
                self._seen.created += 1
                self.existing.add(event["Actor"]["ID"])
            else:
                self._seen.destroyed += 1
                self.existing.discard(event["Actor"]["ID"])
            self._note()

    def close(self) -> None:
        self._events.close()
        self._thread.join(5)
        self._api.close()


def _client() -> docker.APIClient:
    return docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=60)


def _main(pool_id: str) -> None:
    seen, filters = Seen(), {"label": f"sandpool.pool={pool_id}"}
    counter = _Counter(filters, seen)
    polling = _client()
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        seen.polls += 1
        seen.most_polled = max(seen.most_polled, len(polling.containers(all=True, filters=filters)))
    # The last events have arrived when both counts agree. They may differ while the pool changes: stop after 2 s.
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if {found["Id"] for found in polling.containers(all=True, filters=filters)} == counter.existing:
            break
        select.select([], [], [], 0.05)
    counter.close()
    polling.close()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
