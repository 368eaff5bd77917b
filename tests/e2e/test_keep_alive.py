"""Both clients share one connection for all calls and detect a network that fails silently."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from sandpool import PoolEvent, SandboxClient
from tests.support.cut_proxy import CutProxy
from tests.support.node_project import NodeProject
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow_parallel, pytest.mark.timeout(180)]

PROGRAM = """
import { SandboxClient } from "sandpool";
const out: Record<string, unknown> = {};
const client = new SandboxClient();
await client.createPool("first", { image: "busybox:latest" });
await Promise.all(Array.from({ length: 100 }, () => client.listPools().toArray()));
for await (const { pool } of client.watchPools()) {
  if (pool.name === "first") await tell("mute");
  if (pool.name === "second") break;
}
out.seen = true;
client.close();
"""


def test_shares_one_connection_and_detects_a_dead_one(server: ServerProcess, tmp_path: Path):
    """A watch has no deadline. Only a ping without a response, 30 s after the last data, shows the failure."""
    with (
        CutProxy(server.address) as proxy,
        SandboxClient(server.address) as other,
        SandboxClient(proxy.address) as client,
        closing(client.watch_pools(timeout=120)) as events,
        ThreadPoolExecutor(1) as thread,
    ):
        for _ in range(100):
            list(client.list_pools())
        muted: list[int] = []
        waiting: list[Future[PoolEvent]] = []

        def mute(_: str) -> None:
            if not muted:
                assert next(events).pool.name == "first"
                muted.append(proxy.mute())
                waiting.append(thread.submit(next, (event for event in events if event.pool.name == "second")))
                other.create_pool("second", image="busybox:latest")

        assert NodeProject(tmp_path, proxy.address).talk(PROGRAM, mute, secs=120) == {"seen": True}
        assert waiting[0].result(120).pool.name == "second"
    assert muted == [2], "one connection for each client"
    assert proxy.connections == 4, "one new connection for each client"
