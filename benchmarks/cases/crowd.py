"""Many concurrent callers, on three hundred instances."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.cases import Setting
from benchmarks.server import CALL_SECS, Bench
from benchmarks.stats import Result, amount_over, share_of_rate
from sandpool.v1.sandbox_pb2 import START_TYPE_WARM
from sandpool.v1.sandbox_service_pb2 import CreateSandboxRequest
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub

INSTANCES = 100
POOLS = 3
CALLERS = 32
MOST_MEMORY_MB = 150.0

Call = Callable[[], Awaitable[object]]


def crowd(on: Setting) -> list[Result]:
    """Measure a burst of creates, the throughput of concurrent callers, and the server's memory with many instances."""
    with on.servers.real() as bench:
        before = resident_mb(bench.pid)
        pools = [bench.pool(on.image, INSTANCES) for _ in range(POOLS)]
        instances = INSTANCES * POOLS
        memory = amount_over(
            f"server, {instances} instances", resident_mb(bench.pid), "nothing", 0.0, "MB", MOST_MEMORY_MB
        )
        results = asyncio.run(_measure(bench, pools))
        bench.dissolve(*pools)
    print(f"  memory of the server without instances: {before:.0f} MB")
    return [*results, memory]


async def _measure(bench: Bench, pools: list[str]) -> list[Result]:
    async with grpc.aio.insecure_channel(bench.address) as channel:
        health, sandboxes = HealthStub(channel), SandboxServiceStub(channel)

        async def no_op() -> None:
            await health.Check(HealthCheckRequest(), timeout=CALL_SECS)

        def create_from(pool_id: str) -> Call:
            async def create() -> None:
                answer = await sandboxes.CreateSandbox(CreateSandboxRequest(pool_id=pool_id), timeout=CALL_SECS)
                if answer.sandbox.start_type != START_TYPE_WARM:
                    raise RuntimeError("the pool was empty: that would measure a cold start")

            return create

        await no_op()
        first, *others = pools
        bursts = [await _elapsed(no_op, INSTANCES, INSTANCES)]
        burst = await _elapsed(create_from(first), INSTANCES, INSTANCES)
        bursts.append(await _elapsed(no_op, INSTANCES, INSTANCES))

        no_ops, creates = 0.0, 0.0
        for pool_id in others:
            no_ops += await _elapsed(no_op, INSTANCES, CALLERS)
            creates += await _elapsed(create_from(pool_id), INSTANCES, CALLERS)
            no_ops += await _elapsed(no_op, INSTANCES, CALLERS)
        count = INSTANCES * len(others)
    floor_ms = sum(bursts) / len(bursts) * 1000
    ratio = round(burst * 1000 / floor_ms, 2)
    return [
        Result(
            f"burst of {INSTANCES} creates",
            round(burst * 1000, 1),
            f"{INSTANCES} concurrent no-ops",
            round(floor_ms, 1),
            "ms total",
            ratio,
            "<= 3 x",
            ratio <= 3,
        ),
        share_of_rate(f"creates, {CALLERS} callers", count / creates, "no-ops", 2 * count / no_ops, 0.6),
    ]


async def _elapsed(call: Call, count: int, callers: int) -> float:
    """Return the time in seconds for `count` calls of `callers` concurrent callers."""
    numbers = iter(range(count))

    async def one_caller() -> None:
        for _ in numbers:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(one_caller() for _ in range(callers)))
    return time.perf_counter() - began


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (10**6 bytes)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6
