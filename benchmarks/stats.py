"""Samples, percentiles and figures."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


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


def interleaved(rounds: int, works: dict[str, Callable[[], object]], rest_secs: float = 0.0) -> dict[str, Summary]:
    """Time each of `works` once a round, so that whatever else the machine does meets all of them alike.

    After each there is a rest, for what goes on behind its answer.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(timed(work))
            time.sleep(rest_secs)
    return {name: summarize(values) for name, values in taken.items()}


@dataclass(frozen=True)
class Figure:
    """One operation beside its floor, both in `unit`. `result` is what the goal is about: a ratio or a difference."""

    name: str
    measured: float
    floor_name: str
    floor: float
    unit: str
    result: float
    goal: str
    met: bool
    detail: dict[str, Summary] = field(default_factory=dict)


def times_floor(name: str, measured: Summary, floor_name: str, floor: Summary, most: float) -> Figure:
    """The operation's median may be at most so many times its floor's."""
    result = round(measured.p50_ms / floor.p50_ms, 2)
    detail = {name: measured, floor_name: floor}
    return Figure(
        name, measured.p50_ms, floor_name, floor.p50_ms, "ms p50", result, f"<= {most:g} x", result <= most, detail
    )


def times_faster(name: str, measured: Summary, floor_name: str, floor: Summary, least: float) -> Figure:
    """The operation's median must be at least so many times faster than what it is compared to."""
    result = round(floor.p50_ms / measured.p50_ms, 1)
    goal = f">= {least:g} x faster"
    detail = {name: measured, floor_name: floor}
    return Figure(name, measured.p50_ms, floor_name, floor.p50_ms, "ms p50", result, goal, result >= least, detail)


def within(name: str, measured: Summary, most_ms: float, floor_name: str = "", floor: Summary | None = None) -> Figure:
    """The operation's median may take so many milliseconds at most; a floor is shown beside it."""
    detail = {name: measured, **({floor_name: floor} if floor else {})}
    beside = floor.p50_ms if floor else most_ms
    met = measured.p50_ms <= most_ms
    goal = f"<= {most_ms:g} ms"
    return Figure(name, measured.p50_ms, floor_name, beside, "ms p50", measured.p50_ms, goal, met, detail)


def share_of_rate(name: str, rate: float, floor_name: str, floor: float, least: float) -> Figure:
    """So many operations a second; at least this share of the floor's."""
    result = round(rate / floor, 2)
    return Figure(name, round(rate, 1), floor_name, round(floor, 1), "1/s", result, f">= {least:g} x", result >= least)


def amount_over(name: str, measured: float, floor_name: str, floor: float, unit: str, most: float) -> Figure:
    """At most so much more than the floor, in the unit of both."""
    result = round(measured - floor, 1)
    goal = f"<= {most:g} {unit} over"
    return Figure(name, round(measured, 1), floor_name, round(floor, 1), unit, result, goal, result <= most)
