"""Failures are reported with their cause, affect only their pool, and end when their cause ends.

Row numbers refer to tests/user-demands.md.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandpool import (
    Pool,
    PoolErrorReason,
    PoolState,
    PortConnection,
    QuotaExceededError,
    ResourceCreationError,
    ResourceTimeoutError,
    RetryPolicy,
    Sandbox,
    SandboxClient,
    SandpoolError,
    StartType,
    TunnelConnectionRefusedError,
)
from tests.e2e.conftest import MakePool
from tests.support.engine_events import EngineEvents
from tests.support.engine_view import EngineView
from tests.support.pool_instances import container, instances_of, wait_until_no_container
from tests.support.proxied_engine import ProxiedEngine
from tests.support.server_process import ServerProcess
from tests.support.waiting import WAIT_SECS, eventually, wait_for_pool, wait_until_warm

pytestmark = pytest.mark.engine

NO_SPACE = "write /var/lib/docker/overlay2/x: no space left on device"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedEngine]:
    """Run a proxy of the engine that can inject failures."""
    socket = tmp_path_factory.mktemp("proxy") / "engine.sock"
    with ProxiedEngine(os.environ["DOCKER_HOST"], socket) as engine:
        yield engine


@pytest.fixture(scope="module")
def server(faulty: ProxiedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run the module's server on that engine. The proxy works again before the server is stopped."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", docker_host=faulty.url) as process:
        yield process
        faulty.heal()


@pytest.fixture
def trouble(server: ServerProcess, faulty: ProxiedEngine) -> Iterator[ProxiedEngine]:
    """Return the proxy. After the test, wait until the proxy and the server work again."""
    yield faulty
    faulty.heal()
    wait_for_health(server, HealthCheckResponse.SERVING)


def wait_for_health(server: ServerProcess, expected: int) -> None:
    """Wait until the server reports the expected health. Fail after 30 seconds."""
    with grpc.insecure_channel(server.address) as channel:
        for response in HealthStub(channel).Watch(HealthCheckRequest(), timeout=30):
            if response.status == expected:
                return
    raise AssertionError("the watch of the server's health ended")


def wait_for_failure(client: SandboxClient, pool: Pool, reason: PoolErrorReason, times: int = 1) -> Pool:
    """Return the pool when it has `times` consecutive failures. Fail if the last one has another reason."""
    failing = wait_for_pool(
        client,
        pool.pool_id,
        lambda seen: seen.status.last_error is not None and seen.status.last_error.consecutive_failures >= times,
    )
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is reason, failing.status.last_error
    assert failing.status.last_error.message
    assert (failing.status.state, failing.status.warm) == (PoolState.DEGRADED, 0)
    return failing


def wait_before_next_attempt(pool: Pool) -> float:
    """Return the seconds from the last failure to the next attempt."""
    error = pool.status.last_error
    assert error is not None
    assert error.time is not None
    assert error.next_attempt_time is not None
    return (error.next_attempt_time - error.time).total_seconds()


def test_reports_the_reason_of_each_failure_and_isolates_pools(
    client: SandboxClient, registry: str, make_pool: MakePool
):
    """Row 3: another pool is not affected, and a corrected image is tried immediately."""
    wrong = {
        PoolErrorReason.IMAGE_NOT_FOUND: {"image": f"{registry}/sandpool-test/does-not-exist:1"},
        PoolErrorReason.PULL_FAILED: {"image": "127.0.0.1:9/nothing/listens:1"},
        PoolErrorReason.START_FAILED: {"entrypoint": ["/no/such/program"]},
        PoolErrorReason.LIMIT_UNSUPPORTED: {"cpus": 256.0},
    }
    failing = {reason: make_pool(warm_containers=5, **fields) for reason, fields in wrong.items()}
    good = make_pool(warm_containers=2)
    wait_until_warm(client, good.pool_id, 2)
    for reason, pool in failing.items():
        wait_for_failure(client, pool, reason, times=2)
        with pytest.raises(ResourceCreationError) as refused:
            client.create(pool_id=pool.pool_id)
        assert refused.value.reason == reason.name
        assert refused.value.message
    assert client.create(pool_id=good.pool_id).start_type is StartType.WARM
    wait_until_warm(client, good.pool_id, 2)
    assert client.get_pool(good.pool_id).status.last_error is None
    for pool in failing.values():
        assert client.get_pool(pool.pool_id).status.active == 0
    fixed = failing[PoolErrorReason.IMAGE_NOT_FOUND]
    assert client.update_pool(fixed.pool_id, image="busybox:latest", warm_containers=1).status.last_error is None
    wait_until_warm(client, fixed.pool_id, 1)


def test_back_off_grows_until_an_update(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 2, 3, 8: attempts are sequential with growing delays, leave nothing, and a fix is tried immediately."""
    pool = make_pool(warm_containers=5, entrypoint=["/no/such/program"])
    with EngineEvents(pool.pool_id) as events:
        for times in (1, 2, 3):
            failing = wait_for_failure(client, pool, PoolErrorReason.START_FAILED, times)
            assert failing.status.last_error is not None
            exponent = failing.status.last_error.consecutive_failures - 1
            assert 2**exponent / 2 <= wait_before_next_attempt(failing) <= 2**exponent
        attempts = failing.status.last_error.consecutive_failures
        assert len(events.of("create")) <= attempts + 1, "the pool created containers without back-off"
        fixed = client.update_pool(pool.pool_id, entrypoint=None)
        assert fixed.status.last_error is None
        fixed = wait_until_warm(client, pool.pool_id, 5)
        assert fixed.status.last_error is None
        assert fixed.status.state is PoolState.READY
    assert len(instances_of(engine, pool.pool_id)) == 5

    client.update_pool(pool.pool_id, entrypoint=["/no/such/program"])
    again = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.last_error is not None)
    assert again.status.last_error is not None
    assert again.status.last_error.consecutive_failures == 1, "the success in between resets the back-off"


def test_backs_off_when_the_entrypoint_exits_immediately(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 3, 4: instances that exit immediately are no capacity, and the delay between attempts grows."""
    pool = make_pool(warm_containers=2, entrypoint=["sh", "-c", "exit 7"])
    with EngineEvents(pool.pool_id) as events:
        began = time.monotonic()
        failing = wait_for_pool(
            client,
            pool.pool_id,
            lambda seen: seen.status.last_error is not None and seen.status.last_error.consecutive_failures >= 3,
        )
        took = time.monotonic() - began
        created = len(events.of("create"))
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is PoolErrorReason.START_FAILED
    assert "7" in failing.status.last_error.message
    assert took > 0.5, "three consecutive failures have delays between them"
    assert created <= 10, f"{created} containers in {took:.1f} s"


def test_reports_a_full_disk_and_refills_afterwards(client: SandboxClient, make_pool: MakePool, trouble: ProxiedEngine):
    """Rows 3, 17: the pool and a caller receive DISK_FULL; the pool refills when the engine has space again."""
    trouble.fail("/containers/create", 500, NO_SPACE)
    pool = make_pool(warm_containers=1)
    failing = wait_for_failure(client, pool, PoolErrorReason.DISK_FULL)
    assert failing.status.last_error is not None
    assert "disk is full" in failing.status.last_error.message
    with pytest.raises(QuotaExceededError) as refused:
        client.create(pool_id=pool.pool_id)
    assert (refused.value.reason, refused.value.quota_subject) == ("DISK_FULL", "engine:disk")
    assert refused.value.retry_after
    trouble.heal()
    assert wait_until_warm(client, pool.pool_id, 1).status.last_error is None


def test_failed_create_removes_its_container(
    client: SandboxClient, make_pool: MakePool, trouble: ProxiedEngine, engine: EngineView
):
    """Row 8: a container that the engine cannot start is removed, for a pool and for a caller."""
    pool = make_pool()
    trouble.fail("/start", 500, "driver failed programming external connectivity")
    with EngineEvents(pool.pool_id) as events:
        with pytest.raises(ResourceCreationError) as refused:
            client.create(pool_id=pool.pool_id)
        assert refused.value.reason == "START_FAILED"
        assert "external connectivity" in refused.value.message
        client.update_pool(pool.pool_id, warm_containers=1)
        wait_for_failure(client, pool, PoolErrorReason.START_FAILED, times=2)  # the create call was the first failure
        client.update_pool(pool.pool_id, paused=True)
        wait_until_no_container(engine, pool.pool_id)
        events.wait(lambda seen: len(seen.of("destroy")) >= 2)
        assert {event.instance_id for event in events.of("create")} == {
            event.instance_id for event in events.of("destroy")
        }


@pytest.mark.parametrize("how", ["hung", "stopped"])
def test_serves_warm_sandboxes_while_the_engine_is_unavailable(
    server: ServerProcess,
    client: SandboxClient,
    make_pool: MakePool,
    trouble: ProxiedEngine,
    engine: EngineView,
    how: str,
):
    """Rows 6, 8, 11, 23: calls that need the engine meet their deadline, and the pool is complete afterwards."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    in_use = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 3)
    if how == "hung":
        trouble.hang()
    else:
        trouble.refuse()
    wait_for_health(server, HealthCheckResponse.NOT_SERVING)

    claimed = client.create(pool_id=pool.pool_id)
    assert claimed.start_type is StartType.WARM
    assert claimed.info.start_duration is not None
    assert claimed.info.start_duration < 2
    assert [one.run(["echo", "on"]).stdout for one in (in_use, claimed)] == ["on\n", "on\n"]
    began = time.monotonic()
    with SandboxClient(server.address, retry=RetryPolicy(max_attempts=1)) as impatient:
        with pytest.raises(SandpoolError) as failed:
            impatient.create(image="busybox:latest", request_timeout=3)
        assert time.monotonic() - began < 5
        expected = {"hung": {"DEADLINE_EXCEEDED"}, "stopped": {"UNAVAILABLE"}}
        assert failed.value.code in expected[how] or isinstance(failed.value, ResourceTimeoutError)
    in_use.delete()
    # The server cannot detect this external removal.
    removed = min(instances_of(engine, pool.pool_id) - {in_use.sandbox_id, claimed.sandbox_id})
    engine.api.remove_container(container(removed), force=True)

    trouble.heal()
    wait_for_health(server, HealthCheckResponse.SERVING)
    refilled = wait_for_pool(
        client,
        pool.pool_id,
        lambda seen: (
            len(instances_of(engine, pool.pool_id)) == 4
            and (seen.status.warm, seen.status.creating, seen.status.removing, seen.status.active) == (3, 0, 0, 1)
        ),
    )
    assert refilled.status.last_error is None
    assert not {removed, in_use.sandbox_id} & instances_of(engine, pool.pool_id)
    assert claimed.run("true").success
    server_id = engine.server_id_of(claimed.sandbox_id)
    known = {found.sandbox_id for found in client.list_sandboxes()}
    alone = {"label": [f"sandpool.server={server_id}", "sandpool.pool="]}
    engine.wait_until(
        lambda seen: (
            {one["Labels"]["sandpool.instance"] for one in seen.api.containers(all=True, filters=alone)} <= known
        ),
        WAIT_SECS,
    )


def test_claims_and_removals_continue_while_starts_hang(
    client: SandboxClient, make_pool: MakePool, trouble: ProxiedEngine, engine: EngineView
):
    """Rows 18, 23: the engine starts no container for a while; afterwards the pool is refilled."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    trouble.hang_on("/start")
    first, second = (client.create(pool_id=pool.pool_id) for _ in range(2))
    assert {first.start_type, second.start_type} == {StartType.WARM}
    with pytest.raises(ResourceTimeoutError):
        client.create(pool_id=pool.pool_id, request_timeout=2)
    first.delete()
    engine.wait_until(lambda seen: first.sandbox_id not in instances_of(seen, pool.pool_id))
    assert second.run("true").success
    trouble.heal()
    wait_until_warm(client, pool.pool_id, 2)
    assert client.get_pool(pool.pool_id).status.active == 1
    engine.wait_until(lambda seen: len(instances_of(seen, pool.pool_id)) == 3)


def test_sandbox_io_needs_no_engine(server: ServerProcess, client: SandboxClient, trouble: ProxiedEngine):
    """Calls for processes, terminals, files, ports, logs and metrics go from the server to the agent only."""
    with client.create(image="busybox:latest", entrypoint=["sh", "-c", "echo up; exec sleep 1000"]) as sandbox:
        trouble.refuse()
        wait_for_health(server, HealthCheckResponse.NOT_SERVING)

        assert sandbox.processes.start("cat", stdin=True).process_id
        assert sandbox.run("echo out; exit 3").exit_code == 3
        sandbox.processes.start("exec nc -ll -p 7000 -e cat", name="echo")
        assert {process.name for process in sandbox.processes.list()} >= {"echo"}
        with sandbox.terminals.create(["stty", "size"], rows=30, cols=100) as terminal:
            assert b"".join(terminal).strip() == b"30 100"
        sandbox.files.write("/in/a", b"1" * 100_000)
        assert (sandbox.files.read("/in/a"), [one.name for one in sandbox.files.list("/in")]) == (b"1" * 100_000, ["a"])
        changes = sandbox.files.watch("/in")
        sandbox.files.remove("/in/a")
        assert next(changes).path == "/in/a"
        with eventually_connected(sandbox, 7000) as connection:
            connection.send(b"hello")
            assert connection.receive() == b"hello"
        assert [line.text for line in sandbox.logs(sources=["entrypoint"])] == ["up"]
        assert sandbox.metrics().processes > 0
        trouble.heal()
        wait_for_health(server, HealthCheckResponse.SERVING)


def eventually_connected(sandbox: Sandbox, port: int) -> PortConnection:
    """Return a connection to a port when a process listens on it."""
    found: list[PortConnection] = []

    def connects() -> bool:
        with suppress(TunnelConnectionRefusedError):
            found.append(sandbox.ports.connect(port))
        return bool(found)

    eventually(connects)
    return found[0]
