"""What the TypeScript client adds to its bare stubs in Node, on the server in use."""

import json
import subprocess

from benchmarks.cases import Setting
from benchmarks.stats import Figure, summarize, times_floor
from tests.support.node_project import PACKAGE, node

CREATES = 40
ROUNDS = 80
WARM_UPS = 10
"""Rounds that do not count: before them the engine of JavaScript has compiled nothing."""
MOST = 1.3
LONGEST_SECS = 240


def typescript_client(on: Setting) -> list[Figure]:
    """Creating, running and reading with the client against the same calls on the stubs, in one process of Node."""
    with on.servers.real() as bench:
        pool_id = bench.pool(on.image, 2 * (CREATES + WARM_UPS) + 1)
        sandbox_id = bench.create(pool_id)
        words = [node(), str(PACKAGE / "benchmarks" / "overhead.mjs"), bench.address, pool_id, sandbox_id]
        counts = map(str, (CREATES, ROUNDS, WARM_UPS))
        done = subprocess.run([*words, *counts], capture_output=True, text=True, timeout=LONGEST_SECS, check=False)
        bench.dissolve(pool_id)
    if done.returncode != 0:
        raise RuntimeError(f"overhead.mjs ended with {done.returncode}: {done.stderr}")
    taken: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    summaries = {
        name: {who: summarize(ms / 1000 for ms in times) for who, times in works.items()}
        for name, works in taken.items()
    }
    return [
        times_floor(f"client's {name}, Node", found["client"], "bare stub", found["stub"], MOST)
        for name, found in summaries.items()
    ]
