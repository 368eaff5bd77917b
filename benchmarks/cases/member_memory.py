"""What an idle member costs in memory over a bare container."""

from pathlib import Path

from benchmarks.cases import Setting
from benchmarks.engine import BareEngine, bare_engine
from benchmarks.stats import Figure, amount_over

COUNT = 5
MB = 1e6


def member_memory(on: Setting) -> list[Figure]:
    """The mean over a few of each: what the kernel charges the container, and its share of the engine's shim."""
    with on.servers.real() as bench, bare_engine(on.image) as engine:
        pool_id = bench.pool(on.image, COUNT)
        members = engine.containers_of_pool(pool_id)
        bare = [engine.create_and_start() for _ in range(COUNT)]
        sizes = {name: _mean(engine, containers) for name, containers in (("member", members), ("bare", bare))}
        agents = [_memory_kb(engine.first_process(member), "Rss") * 1024 / MB for member in members]
        bench.dissolve(pool_id)
    print(f"  the agent's resident memory: {sum(agents) / COUNT:.1f} MB, of which most is its program's, shared by all")
    return [amount_over("idle member", sizes["member"], "bare container", sizes["bare"], "MB", 12)]


def _mean(engine: BareEngine, containers: list[str]) -> float:
    total = 0.0
    for container in containers:
        total += engine.memory_bytes(container)
        total += _memory_kb(_parent(engine.first_process(container)), "Pss") * 1024
    return total / len(containers) / MB


def _parent(pid: int) -> int:
    """The parent process: of a container's first one, the shim."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _memory_kb(pid: int, kind: str) -> int:
    """Rss counts shared pages in full, Pss a process's share of them; in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel does not tell {kind} of process {pid}")
