"""Both clients on a network that goes away without a word: one connection serves all, and a dead one is noticed."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sandpool import PoolEvent, SandboxClient
from tests.support.cut_proxy import CutProxy
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.engine, pytest.mark.beside, pytest.mark.timeout(180)]

PROGRAM = """
import { SandboxClient } from "sandpool";
const out: Record<string, unknown> = {};
const client = new SandboxClient();
await client.createPool("first", { image: "busybox:latest" });
await Promise.all(Array.from({ length: 100 }, () => client.listPools()));
for await (const { pool } of client.watchPools()) {
  if (pool.name === "first") await tell("mute");
  if (pool.name === "second") break;
}
out.seen = true;
client.close();
"""


def test_one_connection_serves_all_calls_and_a_dead_one_is_noticed(server: ServerProcess, tmp_path: Path):
    """A watch has no deadline: only an unanswered ping tells that nobody is there, 30 s after the last word."""
    with (
        CutProxy(server.address) as proxy,
        SandboxClient(server.address) as aside,
        SandboxClient(proxy.address) as client,
        closing(client.watch_pools(timeout=120)) as events,
        ThreadPoolExecutor(1) as thread,
    ):
        for _ in range(100):
            client.list_pools()
        muted: list[int] = []
        waiting: list[Future[PoolEvent]] = []

        def mute(_: str) -> None:
            if not muted:
                assert next(events).pool.name == "first"
                muted.append(proxy.mute())
                waiting.append(thread.submit(next, (event for event in events if event.pool.name == "second")))
                aside.create_pool("second", image="busybox:latest")

        assert NodeProject(tmp_path, proxy.address).talk(PROGRAM, mute, secs=120) == {"seen": True}
        assert waiting[0].result(120).pool.name == "second"
    assert muted == [2], "one connection a client"
    assert proxy.connections == 4, "and one anew for each"
