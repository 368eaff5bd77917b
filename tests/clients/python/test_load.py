"""A thousand concurrent calls from one process: all return, and no resources are leaked."""

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil

from sandpool import AsyncSandboxClient, SandboxClient
from tests.clients.python.conftest import FAST
from tests.clients.python.processes import OUT, Processes, Script

CALLS = 1000


def held() -> tuple[int, int]:
    """The number of open files and of threads of this process."""
    gc.collect()
    return psutil.Process(os.getpid()).num_fds(), threading.active_count()


def test_a_thousand_threads(client: SandboxClient):
    pool = client.create_pool(image="i")
    before = held()
    gate = threading.Barrier(CALLS)

    def one(_: int) -> str:
        gate.wait(60)
        return client.get_pool(pool.pool_id, request_timeout=60).pool_id

    with ThreadPoolExecutor(CALLS) as threads:
        assert set(threads.map(one, range(CALLS))) == {pool.pool_id}
    files, count = held()
    assert files <= before[0] + 2
    assert count <= before[1] + 10, "the server in this process has eight threads"


async def test_a_thousand_tasks(address: str, processes: Processes):
    processes.scripts["make"] = Script([(OUT, b"made\n")])
    async with AsyncSandboxClient(address, request_timeout=60, retry=FAST) as client:
        pool = await client.create_pool(image="i")
        box = await client.create(pool_id="p")
        before, others = held()[0], asyncio.all_tasks()
        for _ in range(2):
            found = await asyncio.gather(*[client.get_pool(pool.pool_id) for _ in range(CALLS)])
            assert {one.pool_id for one in found} == {pool.pool_id}
        runs = await asyncio.gather(*[box.run("make") for _ in range(CALLS)])
        assert {run.stdout for run in runs} == {"made\n"}
        assert processes.starts == CALLS
        ending = asyncio.all_tasks() - others  # They end when the loop runs them.
        if ending:
            assert not (await asyncio.wait(ending, timeout=10))[1]
        assert held()[0] <= before + 2


def test_memory_does_not_grow_with_calls(client: SandboxClient):
    client.create_pool(image="i")

    def some() -> int:
        for _ in range(400):
            list(client.list_pools())
        gc.collect()
        return psutil.Process(os.getpid()).memory_info().rss

    some()
    first = some()
    assert max(some() for _ in range(3)) < first + 24 * 1024 * 1024
