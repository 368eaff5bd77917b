"""Samples, percentiles and ratios."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Milliseconds of one operation over `count` runs."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float


def summarize(seconds: Iterable[float]) -> Summary:
    """Nearest-rank percentiles of durations in seconds; at least one."""
    ordered = sorted(value * 1000 for value in seconds)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return Summary(len(ordered), rank(0.5), rank(0.9), rank(0.99), round(ordered[0], 3), round(ordered[-1], 3))


def timed(work: Callable[[], object]) -> float:
    """How long one call takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, Summary]:
    """Time each of `works` once a round, so that whatever else the machine does meets all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(timed(work))
    return {name: summarize(values) for name, values in taken.items()}
