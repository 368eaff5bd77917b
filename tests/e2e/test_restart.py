"""Restarts: a killed server loses nothing, leaks nothing, and does not change containers of other owners."""

import pytest

from sandpool import SandboxClient, SandboxState
from tests.support.engine_view import EngineView
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_for_pool, wait_for_sandbox, wait_until_warm

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"


def test_restart_adopts_removes_and_refills(own_server: ServerProcess, engine: EngineView) -> None:
    """Rows 6 and 8 of tests/user-demands.md: agent-sandbox, deer-flow #1976, suna #3571."""
    with SandboxClient(own_server.address) as client:
        pool = client.create_pool(image=IMAGE, warm_containers=2)
        wait_until_warm(client, pool.pool_id, 2)
        active = client.create(pool_id=pool.pool_id)
        active.run(["/bin/sh", "-c", "echo retained > /tmp/marker"])
        wait_until_warm(client, pool.pool_id, 2)
        server_id = engine.server_id_of(active.sandbox_id)
        before = engine.instances(server_id)
        assert len(before) == 3

        orphan_id = "sbx-0rphan00000000000000"
        labels = {"sandpool.server": server_id, "sandpool.instance": orphan_id}
        orphan = engine.start_container(IMAGE, labels, name=f"sandpool-{orphan_id}")
        foreign = engine.start_container(IMAGE, {"sandpool.server": "another-server", "sandpool.instance": "sbx-1"})

        # Kill the server when the engine has a container that is not warm yet.
        client.update_pool(pool.pool_id, warm_containers=6)
        engine.wait_until(lambda seen: len(seen.instances(server_id)) > len(before) + 1)
        own_server.kill()

    own_server.start()
    with SandboxClient(own_server.address) as client:
        wait_until_warm(client, pool.pool_id, 6)
        engine.wait_until(lambda seen: not seen.exists(orphan))
        after = engine.instances(server_id)
        assert len(after) == 7, "six warm instances and one sandbox"
        assert before.items() <= after.items(), "warm instances and sandboxes are adopted, not replaced"
        assert client.get_sandbox(active.sandbox_id).run(["cat", "/tmp/marker"]).stdout == "retained\n"
        assert engine.exists(foreign)
        claimed = {client.create(pool_id=pool.pool_id).sandbox_id for _ in range(6)}
        assert claimed | {active.sandbox_id} == after.keys()


def test_stopped_server_leaves_sandboxes_running(own_server: ServerProcess, engine: EngineView) -> None:
    with SandboxClient(own_server.address) as client:
        sandbox = client.create(image=IMAGE)
        server_id = engine.server_id_of(sandbox.sandbox_id)
        assert own_server.stop() == 0
    assert list(engine.instances(server_id)) == [sandbox.sandbox_id]
    own_server.start()
    with SandboxClient(own_server.address) as client:
        assert client.get_sandbox(sandbox.sandbox_id).run(["echo", "still here"]).stdout == "still here\n"


def test_restart_detects_containers_removed_during_the_outage(own_server: ServerProcess, engine: EngineView) -> None:
    with SandboxClient(own_server.address) as client:
        pool = client.create_pool(image=IMAGE, warm_containers=1)
        wait_until_warm(client, pool.pool_id, 1)
        sandbox = client.create(pool_id=pool.pool_id)
        wait_until_warm(client, pool.pool_id, 1)
        server_id = engine.server_id_of(sandbox.sandbox_id)
    own_server.kill()
    for container_id in engine.instances(server_id).values():
        engine.api.remove_container(container_id, force=True)
    own_server.start()
    with SandboxClient(own_server.address) as client:
        terminated = wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
        assert terminated.termination_reason is not None
        assert terminated.termination_reason.value == "lost"
        refilled = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.warm == 1)
        assert refilled.status.active == 0


def test_rejects_a_second_server_on_the_same_directory(own_server: ServerProcess) -> None:
    second = ServerProcess(own_server.data_dir)
    second.log_file = own_server.log_file.with_suffix(".second.log")
    with pytest.raises(AssertionError, match="is in use by another server"):
        second.start()
