"""Overhead of the TypeScript client over bare stubs in Node, on a real engine."""

import json
import subprocess

from benchmarks.cases import Setting
from benchmarks.stats import Result, summarize, times_floor
from tests.support.node_project import PACKAGE, node

CREATES = 40
ROUNDS = 80
WARM_UPS = 10
"""Rounds without measurement, in which the JavaScript engine compiles the code."""
MOST = 1.3
LONGEST_SECS = 240


def typescript_client(on: Setting) -> list[Result]:
    """Measure create, run and get with the client; baseline: the same calls with stubs in the same Node process."""
    with on.servers.real() as bench:
        pool_id = bench.pool(on.image, 2 * (CREATES + WARM_UPS) + 1)
        sandbox_id = bench.create(pool_id)
        argv = [node(), str(PACKAGE / "benchmarks" / "overhead.mjs"), bench.address, pool_id, sandbox_id]
        counts = map(str, (CREATES, ROUNDS, WARM_UPS))
        done = subprocess.run([*argv, *counts], capture_output=True, text=True, timeout=LONGEST_SECS, check=False)
        bench.dissolve(pool_id)
    if done.returncode != 0:
        raise RuntimeError(f"overhead.mjs exited with code {done.returncode}: {done.stderr}")
    taken: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    summaries = {
        name: {variant: summarize(ms / 1000 for ms in times) for variant, times in works.items()}
        for name, works in taken.items()
    }
    return [
        times_floor(f"client's {name}, Node", found["client"], "bare stub", found["stub"], MOST)
        for name, found in summaries.items()
    ]
