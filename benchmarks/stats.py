"""Samples, percentiles and results."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Summary:
    """Durations of `count` runs of an operation, in milliseconds."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float


def summarize(seconds: Iterable[float]) -> Summary:
    """Return nearest-rank percentiles of at least one duration in seconds."""
    ordered = sorted(value * 1000 for value in seconds)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return Summary(len(ordered), rank(0.5), rank(0.9), rank(0.99), round(ordered[0], 3), round(ordered[-1], 3))


def timed(work: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(rounds: int, works: dict[str, Callable[[], object]], rest_secs: float = 0.0) -> dict[str, Summary]:
    """Measure all functions in each round, so that other load of the machine affects all of them equally.

    After each call there is a pause of `rest_secs`, for work that continues in the background after the call.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(timed(work))
            time.sleep(rest_secs)
    return {name: summarize(values) for name, values in taken.items()}


@dataclass(frozen=True)
class Result:
    """A measured value and its baseline `floor`, both in `unit`. `value` is the ratio or difference of the goal."""

    name: str
    measured: float
    floor_name: str
    floor: float
    unit: str
    value: float
    goal: str
    met: bool
    detail: dict[str, Summary] = field(default_factory=dict)


def times_floor(name: str, measured: Summary, floor_name: str, floor: Summary, most: float) -> Result:
    """Return a result whose goal is a median of at most `most` times the baseline."""
    value = round(measured.p50_ms / floor.p50_ms, 2)
    detail = {name: measured, floor_name: floor}
    return Result(
        name, measured.p50_ms, floor_name, floor.p50_ms, "ms p50", value, f"<= {most:g} x", value <= most, detail
    )


def times_faster(name: str, measured: Summary, floor_name: str, floor: Summary, least: float) -> Result:
    """Return a result whose goal is a median that is at least `least` times faster than the baseline."""
    value = round(floor.p50_ms / measured.p50_ms, 1)
    goal = f">= {least:g} x faster"
    detail = {name: measured, floor_name: floor}
    return Result(name, measured.p50_ms, floor_name, floor.p50_ms, "ms p50", value, goal, value >= least, detail)


def within(name: str, measured: Summary, most_ms: float, floor_name: str = "", floor: Summary | None = None) -> Result:
    """Return a result whose goal is a median of at most `most_ms` milliseconds, with an optional baseline."""
    detail = {name: measured, **({floor_name: floor} if floor else {})}
    baseline = floor.p50_ms if floor else most_ms
    met = measured.p50_ms <= most_ms
    goal = f"<= {most_ms:g} ms"
    return Result(name, measured.p50_ms, floor_name, baseline, "ms p50", measured.p50_ms, goal, met, detail)


def share_of_rate(name: str, rate: float, floor_name: str, floor: float, least: float) -> Result:
    """Return a result whose goal is a rate of at least `least` times the baseline, in operations per second."""
    value = round(rate / floor, 2)
    return Result(name, round(rate, 1), floor_name, round(floor, 1), "1/s", value, f">= {least:g} x", value >= least)


def amount_over(name: str, measured: float, floor_name: str, floor: float, unit: str, most: float) -> Result:
    """Return a result whose goal is a value of at most `most` more than the baseline."""
    value = round(measured - floor, 1)
    goal = f"<= {most:g} {unit} over"
    return Result(name, round(measured, 1), floor_name, round(floor, 1), unit, value, goal, value <= most)
