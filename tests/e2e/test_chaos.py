"""Kill the server repeatedly under load, then compare the engine, the database and the responses to callers.

Rows 1, 5, 6 and 8 of tests/user-demands.md: agent-sandbox #418 and #608, fission #1939, deer-flow #1976, suna #3571,
cloudflare/sandbox-sdk #794.
"""

import os
import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sandpool import Pool, PoolState, SandboxClient, SandboxState
from tests.support.chaos import TAG, Caller, Ledger
from tests.support.engine_view import EngineView
from tests.support.server_process import ServerProcess
from tests.support.waiting import WAIT_SECS, eventually, wait_for_pool
from tests.support.watcher import Watcher

pytestmark = [pytest.mark.engine, pytest.mark.slow_parallel]

IMAGE = "busybox:latest"
SEED_VARIABLE = "SANDPOOL_CHAOS_SEED"
KILLS = int(os.environ.get("SANDPOOL_CHAOS_KILLS") or 30)
"""The number of times that the server is killed. Set a smaller number for a quick run."""
CALLERS = 4
MOST = 7
"""The `max_containers` of one of the pools: fewer than the callers would create."""


def rows(data_dir: Path) -> list[sqlite3.Row]:
    """Return the rows of all instances that are not removed, read without the code of the server."""
    with closing(sqlite3.connect(f"file:{data_dir / 'sandpool.db'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return database.execute("SELECT * FROM instances WHERE state != 'removed'").fetchall()


def settled(pool: Pool) -> bool:
    """Return whether the pool is full and no operation is in progress."""
    status = pool.status
    busy = status.creating + status.removing + status.stale
    return status.state is PoolState.READY and status.warm == status.desired and not busy


def is_idle(server: ServerProcess, engine: EngineView, server_id: str) -> bool:
    """Return whether no instance is being created or removed, including sandboxes without a pool."""
    stored = rows(server.data_dir)
    return len(engine.instances(server_id)) == len(stored) and {row["state"] for row in stored} <= {"warm", "active"}


@pytest.mark.timeout(400)
def test_loses_leaks_and_duplicates_nothing_after_thirty_kills(own_server: ServerProcess, engine: EngineView) -> None:
    seed = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().getrandbits(32))
    print(f"{SEED_VARIABLE}={seed}")
    dice = random.Random(seed)
    ledger, stop = Ledger(), threading.Event()
    with SandboxClient(own_server.address) as client:
        limited = client.create_pool(image=IMAGE, warm_containers=3, max_containers=MOST).pool_id
        unlimited = client.create_pool(image=IMAGE, warm_containers=2).pool_id
        wait_for_pool(client, limited, settled)
        with client.create(image=IMAGE) as first:
            server_id = engine.server_id_of(first.sandbox_id)

    callers = [
        Caller(number, seed, own_server.address, [limited, unlimited], IMAGE, ledger, stop) for number in range(CALLERS)
    ]
    with Watcher(limited) as watcher:
        with ThreadPoolExecutor(CALLERS) as threads:
            running = [threads.submit(caller.work) for caller in callers]
            try:
                for _ in range(KILLS):
                    # A random moment, mostly under load: callers need some time to reconnect.
                    ledger.wait_for_successes(dice.choice([0, dice.randint(1, 60)]), seconds=6)
                    threading.Event().wait(dice.uniform(0, 0.3))
                    own_server.kill()
                    own_server.start()
            finally:
                stop.set()
            for caller in running:
                caller.result(60)
        print(dict(sorted(ledger.calls.items())))
        with SandboxClient(own_server.address) as client:
            client.get_pool(limited)  # retried until the server responds; a watch is not
            pools = [wait_for_pool(client, pool_id, settled) for pool_id in (limited, unlimited)]
            eventually(lambda: is_idle(own_server, engine, server_id), WAIT_SECS)
            compare(own_server, engine, server_id, client, ledger, pools)
    assert watcher.seen.polls > 100
    assert watcher.seen.created > MOST
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) <= MOST


def compare(
    server: ServerProcess, engine: EngineView, server_id: str, client: SandboxClient, ledger: Ledger, pools: list[Pool]
) -> None:
    """Compare the engine, the database and the responses to callers, each read separately."""
    instances = engine.instances(server_id)
    stored = {row["id"]: row for row in rows(server.data_dir)}
    assert instances.keys() == stored.keys(), "every container has a row and every row has a container"
    running = engine.api.containers(filters={"label": f"sandpool.server={server_id}"})
    assert {found["Labels"]["sandpool.instance"] for found in running} == instances.keys(), "all containers run"
    assert {row["state"] for row in stored.values()} <= {"warm", "active"}
    assert len(engine.api.networks(filters={"label": f"sandpool.server={server_id}"})) == 1

    assert ledger.wrong == []
    assert ledger.calls["_create succeeded"] > KILLS
    for known in ledger.existing():
        assert stored[known.sandbox_id]["state"] == "active"
        sandbox = client.get_sandbox(known.sandbox_id)
        assert sandbox.state is SandboxState.RUNNING
        known.check_commands(sandbox)
    deleted = {sandbox_id for sandbox_id, known in ledger.sandboxes.items() if known.deleted}
    assert not deleted & instances.keys(), "deleted sandboxes have no container"

    listed = list(client.list_sandboxes(states=[SandboxState.RUNNING]))
    assert {one.sandbox_id for one in listed} == {key for key, row in stored.items() if row["state"] == "active"}
    tags = Counter(one.info.metadata[TAG] for one in listed)
    assert max(tags.values(), default=1) == 1, f"more than one sandbox for one creation: {tags}"
    unconfirmed = {one.info.metadata[TAG] for one in listed if one.sandbox_id not in ledger.sandboxes}
    assert unconfirmed <= ledger.unconfirmed_tags, (
        "a sandbox without a create call, or with another identifier than in the response"
    )

    for pool in pools:
        of_pool = [row["state"] for row in stored.values() if row["pool_id"] == pool.pool_id]
        assert of_pool.count("warm") == pool.status.warm == pool.status.desired
        assert of_pool.count("active") == pool.status.active
        assert len(of_pool) <= (pool.max_containers or len(of_pool))
