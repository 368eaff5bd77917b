"""How fast pools fill, and what claims feel of it."""

import time

from benchmarks.cases import Setting
from benchmarks.engine import bare_engine
from benchmarks.server import Bench
from benchmarks.stats import Figure, Summary, share_of_rate, summarize, timed, times_floor

MEMBERS = 16
THREADS = 2
"""The server's default `refill_parallelism`."""
ROUNDS = 2

CLAIMS = 100
PACE_SECS = 0.04
"""One claim each: so that they are spread over the refill, not done before it has begun."""


def refill_rate(on: Setting) -> list[Figure]:
    """Members made ready a second, against containers created and started by as many threads of a bare client."""
    taken, bare = 0.0, 0.0
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, 1, refills=True)
        for round_number in range(ROUNDS):
            bare += timed(lambda: engine.create_and_start_many(MEMBERS, THREADS))
            engine.remove_made()
            size = 1 + MEMBERS * (round_number + 1)
            began = time.perf_counter()
            bench.resize(pool_id, size)
            bench.wait_full(pool_id, size)
            taken += time.perf_counter() - began
        bench.dissolve(pool_id)
    count = ROUNDS * MEMBERS
    return [share_of_rate("refill", count / taken, f"bare engine, {THREADS} threads", count / bare, 0.9)]


def claims_during_refill(on: Setting) -> list[Figure]:
    """The slowest percent of claims while another pool is being filled, against the same while nothing is."""
    with on.servers.real() as bench:
        pool_id, other = bench.pool(on.image, 2 * CLAIMS + 1), bench.pool(on.image, 1, refills=True)
        bench.create(pool_id)
        idle = _paced_claims(bench, pool_id)
        # More than can be made in the time that the claims take.
        bench.resize(other, 100)
        busy = _paced_claims(bench, pool_id)
        bench.dissolve(pool_id, other)
    result = round(busy.p99_ms / idle.p99_ms, 2)
    figure = times_floor("claim p99 in refill", busy, "claim p99 idle", idle, 3)
    return [
        Figure(
            figure.name,
            busy.p99_ms,
            figure.floor_name,
            idle.p99_ms,
            "ms p99",
            result,
            figure.goal,
            result <= 3,
            figure.detail,
        )
    ]


def _paced_claims(bench: Bench, pool_id: str) -> Summary:
    began = time.perf_counter()
    taken = []
    for number in range(CLAIMS):
        time.sleep(max(0.0, began + number * PACE_SECS - time.perf_counter()))
        taken.append(timed(lambda: bench.create(pool_id)))
    return summarize(taken)
