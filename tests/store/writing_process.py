"""A process that claims until it is killed and prints each acknowledged write. Argument: the URL of the database."""

import asyncio
import sys

from sandpool_server.store import SqlStore
from tests.store.steps import add_warm, make_pool
from tests.support import builders as b


async def main(url: str) -> None:
    """Fill two pools continuously, and claim from them with eight callers."""
    store = SqlStore(url, lambda _: None, b.ManualClock())
    await store.open()
    pools = [await make_pool(store, warm_containers=1_000_000) for _ in range(2)]
    for pool in pools:
        print("pool", pool.id, flush=True)

    async def fill() -> None:
        while True:
            for pool in pools:
                await add_warm(store, pool, 2)

    async def claim(number: int) -> None:
        while True:
            instance = (await store.claim(b.claim_request(pool_ref=pools[number % 2].id))).instances[0]
            kind = "warm" if instance.address else "cold"
            print(kind, instance.id, flush=True)

    await asyncio.gather(fill(), *(claim(number) for number in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
