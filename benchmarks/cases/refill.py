"""Speed of refilling pools, and its effect on claims."""

import time

from benchmarks.cases import Setting
from benchmarks.engine import bare_engine
from benchmarks.server import Bench
from benchmarks.stats import Result, Summary, share_of_rate, summarize, timed, times_floor

INSTANCES = 16
THREADS = 2
"""The default of the server's `refill_parallelism`."""
ROUNDS = 2

CLAIMS = 100
PACE_SECS = 0.04
"""Time between two claims, so that the claims are spread over the refill."""


def refill_rate(on: Setting) -> list[Result]:
    """Measure new warm instances per second; baseline: containers that a bare client starts with as many threads."""
    taken, bare = 0.0, 0.0
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, 1, refills=True)
        for round_number in range(ROUNDS):
            bare += timed(lambda: engine.create_and_start_many(INSTANCES, THREADS))
            engine.remove_containers()
            size = 1 + INSTANCES * (round_number + 1)
            began = time.perf_counter()
            bench.resize(pool_id, size)
            bench.wait_full(pool_id, size)
            taken += time.perf_counter() - began
        bench.dissolve(pool_id)
    count = ROUNDS * INSTANCES
    return [share_of_rate("refill", count / taken, f"bare engine, {THREADS} threads", count / bare, 0.9)]


def claims_during_refill(on: Setting) -> list[Result]:
    """Measure the 99th percentile of claims while another pool is refilled; baseline: claims without a refill."""
    with on.servers.real() as bench:
        pool_id, other = bench.pool(on.image, 2 * CLAIMS + 1), bench.pool(on.image, 1, refills=True)
        bench.create(pool_id)
        idle = _paced_claims(bench, pool_id)
        # More instances than the server can start during the claims.
        bench.resize(other, 100)
        busy = _paced_claims(bench, pool_id)
        bench.dissolve(pool_id, other)
    ratio = round(busy.p99_ms / idle.p99_ms, 2)
    result = times_floor("claim p99 in refill", busy, "claim p99 idle", idle, 3)
    return [
        Result(
            result.name,
            busy.p99_ms,
            result.floor_name,
            idle.p99_ms,
            "ms p99",
            ratio,
            result.goal,
            ratio <= 3,
            result.detail,
        )
    ]


def _paced_claims(bench: Bench, pool_id: str) -> Summary:
    began = time.perf_counter()
    taken = []
    for number in range(CLAIMS):
        time.sleep(max(0.0, began + number * PACE_SECS - time.perf_counter()))
        taken.append(timed(lambda: bench.create(pool_id)))
    return summarize(taken)
