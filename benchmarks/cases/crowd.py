"""Many callers at once, on three hundred members."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.cases import Setting
from benchmarks.server import CALL_SECS, Bench
from benchmarks.stats import Figure, amount_over, share_of_rate
from sandpool.v1.sandbox_pb2 import SANDBOX_START_WARM
from sandpool.v1.sandbox_service_pb2 import CreateSandboxRequest
from sandpool.v1.sandbox_service_pb2_grpc import SandboxServiceStub

MEMBERS = 100
POOLS = 3
CALLERS = 32
MOST_MEMORY_MB = 150.0

Call = Callable[[], Awaitable[object]]


def crowd(on: Setting) -> list[Figure]:
    """A burst, a sustained crowd, and the server's memory under as many members."""
    with on.servers.real() as bench:
        before = resident_mb(bench.pid)
        pools = [bench.pool(on.image, MEMBERS) for _ in range(POOLS)]
        members = MEMBERS * POOLS
        memory = amount_over(f"server, {members} members", resident_mb(bench.pid), "nothing", 0.0, "MB", MOST_MEMORY_MB)
        figures = asyncio.run(_measure(bench, pools))
        bench.dissolve(*pools)
    print(f"  the server's memory before the first member: {before:.0f} MB")
    return [*figures, memory]


async def _measure(bench: Bench, pools: list[str]) -> list[Figure]:
    async with grpc.aio.insecure_channel(bench.address) as channel:
        health, sandboxes = HealthStub(channel), SandboxServiceStub(channel)

        async def no_op() -> None:
            await health.Check(HealthCheckRequest(), timeout=CALL_SECS)

        def create_from(pool_id: str) -> Call:
            async def create() -> None:
                answer = await sandboxes.CreateSandbox(CreateSandboxRequest(pool_id=pool_id), timeout=CALL_SECS)
                if answer.sandbox.start != SANDBOX_START_WARM:
                    raise RuntimeError("the pool was empty: that would measure a cold start")

            return create

        await no_op()
        first, *others = pools
        bursts = [await _elapsed(no_op, MEMBERS, MEMBERS)]
        burst = await _elapsed(create_from(first), MEMBERS, MEMBERS)
        bursts.append(await _elapsed(no_op, MEMBERS, MEMBERS))

        no_ops, creates = 0.0, 0.0
        for pool_id in others:
            no_ops += await _elapsed(no_op, MEMBERS, CALLERS)
            creates += await _elapsed(create_from(pool_id), MEMBERS, CALLERS)
            no_ops += await _elapsed(no_op, MEMBERS, CALLERS)
        count = MEMBERS * len(others)
    floor_ms = sum(bursts) / len(bursts) * 1000
    result = round(burst * 1000 / floor_ms, 2)
    return [
        Figure(
            f"burst of {MEMBERS} creates",
            round(burst * 1000, 1),
            f"{MEMBERS} no-ops at once",
            round(floor_ms, 1),
            "ms in all",
            result,
            "<= 3 x",
            result <= 3,
        ),
        share_of_rate(f"creates, {CALLERS} callers", count / creates, "no-ops", 2 * count / no_ops, 0.6),
    ]


async def _elapsed(call: Call, count: int, callers: int) -> float:
    """Seconds in which so many callers make so many calls, each the next as soon as it has its answer."""
    numbers = iter(range(count))

    async def one_caller() -> None:
        for _ in numbers:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(one_caller() for _ in range(callers)))
    return time.perf_counter() - began


def resident_mb(pid: int) -> float:
    """What a process has in memory, in MB (10**6 bytes)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6
