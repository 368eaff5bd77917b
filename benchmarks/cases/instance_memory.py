"""Memory of an idle instance compared with a bare container."""

from pathlib import Path

from benchmarks.cases import Setting
from benchmarks.engine import BareEngine, bare_engine
from benchmarks.stats import Result, amount_over

COUNT = 5
MB = 1e6


def instance_memory(on: Setting) -> list[Result]:
    """Measure the mean memory of a container, with its part of the engine's shim; baseline: a bare container."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, COUNT)
        instances = engine.containers_of_pool(pool_id)
        bare = [engine.create_and_start() for _ in range(COUNT)]
        sizes = {name: _mean(engine, containers) for name, containers in (("instance", instances), ("bare", bare))}
        agents = [_memory_kb(engine.first_process(instance), "Rss") * 1024 / MB for instance in instances]
        bench.dissolve(pool_id)
    print(f"  resident memory of the agent: {sum(agents) / COUNT:.1f} MB, most of it shared by all agents")
    return [amount_over("idle instance", sizes["instance"], "bare container", sizes["bare"], "MB", 12)]


def _mean(engine: BareEngine, containers: list[str]) -> float:
    total = 0.0
    for container in containers:
        total += engine.memory_bytes(container)
        total += _memory_kb(_parent(engine.first_process(container)), "Pss") * 1024
    return total / len(containers) / MB


def _parent(pid: int) -> int:
    """Return the parent process. The parent of a container's first process is the shim."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _memory_kb(pid: int, kind: str) -> int:
    """Return the memory of a process in KiB. `Rss` includes all shared pages, `Pss` a proportional part of them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not report {kind} of process {pid}")
