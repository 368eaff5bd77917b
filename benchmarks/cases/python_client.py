"""Overhead of the Python client over bare gRPC stubs, on a real engine."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator

import grpc

from benchmarks.cases import Setting
from benchmarks.server import CALL_SECS
from benchmarks.stats import Result, interleaved, times_floor
from sandpool import AsyncSandboxClient, SandboxClient
from sandpool.v1.process_service_pb2 import ConnectProcessRequest, StartProcessRequest
from sandpool.v1.sandbox_service_pb2 import CreateSandboxRequest, GetSandboxRequest
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub

SAMPLES = 40
ROUNDS = 80
MOST = 1.3
COMMAND = ["/bin/echo", "hello"]


def python_client(on: Setting) -> list[Result]:
    """Measure create, run and get with the blocking and the asyncio client; baseline: the same calls with stubs."""
    with on.servers.real() as bench:
        pool_id = bench.pool(on.image, 3 * SAMPLES + 3)
        sandbox_id = bench.create(pool_id)
        blocking = _blocking(bench.address, pool_id, sandbox_id)
        with_asyncio = asyncio.run(_asyncio(bench.address, sandbox_id))
        bench.dissolve(pool_id)
    return [*blocking, *with_asyncio]


def _blocking(address: str, pool_id: str, sandbox_id: str) -> list[Result]:
    with SandboxClient(address) as client, grpc.insecure_channel(address) as channel:
        sandboxes, processes = SandboxServiceStub(channel), ProcessServiceStub(channel)
        box = client.get_sandbox(sandbox_id)
        creates = interleaved(
            SAMPLES,
            {
                "client": lambda: client.create(pool_id=pool_id),
                "stub": lambda: sandboxes.CreateSandbox(_create(pool_id), timeout=CALL_SECS),
            },
        )
        runs = interleaved(
            ROUNDS,
            {
                "client": lambda: box.run(COMMAND),
                "stub": lambda: list(processes.ConnectProcess(_connect(sandbox_id), timeout=CALL_SECS)),
            },
        )
        reads = interleaved(
            ROUNDS * 3,
            {
                "client": lambda: client.get_sandbox(sandbox_id),
                "stub": lambda: sandboxes.GetSandbox(GetSandboxRequest(sandbox_id=sandbox_id), timeout=CALL_SECS),
            },
        )
    return [
        times_floor(f"client's {name}", taken["client"], "bare stub", taken["stub"], MOST)
        for name, taken in (("create", creates), ("run", runs), ("get", reads))
    ]


async def _asyncio(address: str, sandbox_id: str) -> list[Result]:
    async with AsyncSandboxClient(address) as client, grpc.aio.insecure_channel(address) as channel:
        sandboxes, processes = SandboxServiceStub(channel), ProcessServiceStub(channel)
        box = await client.get_sandbox(sandbox_id)

        async def bare_run() -> None:
            async for _ in processes.ConnectProcess(_connect(sandbox_id), timeout=CALL_SECS):
                pass

        loop = asyncio.get_running_loop()

        def waits(work: Callable[[], Awaitable[object]]) -> Callable[[], object]:
            """Return a blocking function for `interleaved`, which runs in another thread. Both sides have this hop."""
            return lambda: asyncio.run_coroutine_threadsafe(_awaited(work), loop).result()

        runs = await asyncio.to_thread(
            interleaved, ROUNDS, {"client": waits(lambda: box.run(COMMAND)), "stub": waits(bare_run)}
        )
        read = GetSandboxRequest(sandbox_id=sandbox_id)
        reads = await asyncio.to_thread(
            interleaved,
            ROUNDS * 3,
            {
                "client": waits(lambda: client.get_sandbox(sandbox_id)),
                "stub": waits(lambda: sandboxes.GetSandbox(read, timeout=CALL_SECS)),
            },
        )
    return [
        times_floor(f"client's {name}, asyncio", taken["client"], "bare stub", taken["stub"], MOST)
        for name, taken in (("run", runs), ("get", reads))
    ]


async def _awaited(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


def _create(pool_id: str) -> CreateSandboxRequest:
    return CreateSandboxRequest(pool_id=pool_id, request_id=str(uuid.uuid4()))


def _connect(sandbox_id: str) -> Iterator[ConnectProcessRequest]:
    """Return the requests of a command, as the client sends them."""
    start = StartProcessRequest(sandbox_id=sandbox_id, process_id=f"p-{uuid.uuid4().hex}", argv=COMMAND)
    return iter([ConnectProcessRequest(start=start)])
