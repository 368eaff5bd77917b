"""Latency of claims with many instances and pools, on an in-memory engine."""

from contextlib import ExitStack

from benchmarks.cases import Setting
from benchmarks.server import Bench
from benchmarks.stats import Result, interleaved, times_floor

ROUNDS = 150
REST_SECS = 0.02
"""Pause after each claim, so that the refill is complete before the next claim."""
FEW, MANY = 10, 1000
POOLS = 100


def growth(on: Setting) -> list[Result]:
    """Measure the median of a claim with 1,000 instances and with 100 pools; baseline: one pool with 10 instances."""
    with ExitStack() as stack:
        small, large, wide = (stack.enter_context(on.servers.fake()) for _ in range(3))
        of_small, of_large = small.pool(on.image, FEW, refills=True), large.pool(on.image, MANY, refills=True)
        of_wide = [wide.pool(on.image, FEW, refills=True) for _ in range(POOLS)][POOLS // 2]
        base, instances, pools = "1 pool of 10", f"{MANY} instances", f"{POOLS} pools"
        works = {
            name: _claim(bench, pool_id)
            for name, bench, pool_id in (
                (base, small, of_small),
                (instances, large, of_large),
                (pools, wide, of_wide),
            )
        }
        for work in works.values():
            work()
        taken = interleaved(ROUNDS, works, REST_SECS)
    return [
        times_floor(f"claim, {name}", taken[name], f"claim, {base}", taken[base], 1.2) for name in (instances, pools)
    ]


def _claim(bench: Bench, pool_id: str):  # noqa: ANN202
    return lambda: bench.create(pool_id)
