"""Image pulls: read the engine's progress stream to its end and sum the layers."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import requests
import urllib3.exceptions
from docker.errors import APIError

from sandpool_server.domain.model import PullProgress
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.failures import PullRefused

_FETCHED = frozenset({"Verifying Checksum", "Download complete", "Extracting", "Pull complete"})
"""Statuses of a layer that is completely downloaded."""


class Pull:
    """An active pull, which runs in one thread. All threads may read `progress`.

    `changed` is called in the pull's thread, at most once every `report_secs` seconds.
    """

    def __init__(self, image: str, changed: Callable[[], None], report_secs: float) -> None:
        self._image = image
        self._changed = changed
        self._report_secs = report_secs
        self._reported = float("-inf")
        self._layers: dict[str, tuple[int, int]] = {}
        self.progress = PullProgress(image, 0, 0)

    def __call__(self, client: EngineClient, idle_secs: float) -> None:
        """Pull the image. Raises `PullRefused` if the engine reports an error or sends nothing for `idle_secs`."""
        client.timeout = idle_secs
        try:
            self.read(client.pull(self._image, stream=True, decode=True))
        except APIError as error:
            raise PullRefused(str(error.explanation or error)) from error
        except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
            raise PullRefused(f"the pull made no progress for {idle_secs:g} seconds") from error

    def read(self, lines: Iterable[dict[str, Any]]) -> None:
        """Process the lines of the progress stream. Raises `PullRefused` if a line contains an error."""
        for line in lines:
            if "error" in line:
                raise PullRefused(str(line["error"]))
            if self._update(line):
                current = sum(done for done, _ in self._layers.values())
                total = sum(size for _, size in self._layers.values())
                self.progress = PullProgress(self._image, current, total)
                now = time.monotonic()
                if now - self._reported >= self._report_secs:
                    self._reported = now
                    self._changed()

    def _update(self, line: dict[str, Any]) -> bool:
        """Process one line. Returns whether the progress changed.

        The size of a layer of unknown size is the number of bytes received so far.
        """
        layer, layer_status = str(line.get("id", "")), line.get("status")
        before = self._layers.get(layer, (0, 0))
        if layer_status == "Downloading":
            detail = line.get("progressDetail") or {}
            current = int(detail.get("current") or 0)
            after = (current, max(current, int(detail.get("total") or 0)))
        elif layer_status in _FETCHED and layer in self._layers:
            after = (before[1], before[1])
        else:
            return False
        self._layers[layer] = after
        return after != before
