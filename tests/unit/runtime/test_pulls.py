"""The progress of a pull, computed from messages of the engine."""

from typing import Any

import pytest

from sandpool_server.domain.model import PullProgress
from sandpool_server.runtime.failures import PullRefused
from sandpool_server.runtime.pulls import Pull


def line(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, Any]:
    """Return a message of the engine as docker-py decodes it."""
    detail = {name: value for name, value in (("current", current), ("total", total)) if value is not None}
    return {"id": layer, "status": status, "progressDetail": detail}


LINES = [
    {"status": "Pulling from library/python", "id": "3.11"},
    line("a", "Pulling fs layer"),
    line("b", "Already exists"),
    line("a", "Downloading", 10, 100),
    line("c", "Downloading", 5, 50),
    line("a", "Downloading", 60, 100),
    line("c", "Verifying Checksum"),
    line("c", "Download complete"),
    line("d", "Downloading", 7),
    line("a", "Download complete"),
    line("a", "Extracting", 3, 100),
    line("a", "Pull complete"),
    {"status": "Digest: sha256:00"},
]
SUMS = [(10, 100), (15, 150), (65, 150), (110, 150), (117, 157), (157, 157)]


def test_sums_layers_and_reports_only_changes() -> None:
    seen: list[PullProgress] = []
    pull = Pull("python", lambda: seen.append(pull.progress), report_secs=0)
    pull.read(LINES)
    assert [(progress.current, progress.total) for progress in seen] == SUMS
    assert pull.progress == PullProgress("python", 157, 157)


def test_limits_report_rate_but_progress_is_current() -> None:
    seen: list[PullProgress] = []
    pull = Pull("python", lambda: seen.append(pull.progress), report_secs=3600)
    pull.read(LINES)
    assert [(progress.current, progress.total) for progress in seen] == SUMS[:1]
    assert pull.progress == PullProgress("python", 157, 157)


def test_error_in_stream_ends_pull() -> None:
    pull = Pull("python", lambda: None, report_secs=0)
    with pytest.raises(PullRefused, match="no space left"):
        pull.read([*LINES[:4], {"error": "write /x: no space left on device", "errorDetail": {}}, line("a", "never")])
    assert pull.progress == PullProgress("python", 10, 100)
