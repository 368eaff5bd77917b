"""The wait queue: callers are served in FIFO order, and waiters that disconnect leak no instance.

Row numbers refer to tests/user-demands.md.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import grpc
import pytest

from sandpool import (
    PoolEmptyError,
    QuotaExceededError,
    ReadinessProbe,
    ResourceTimeoutError,
    Sandbox,
    SandboxClient,
    StartType,
    WhenEmpty,
)
from sandpool.v1.sandbox_service_pb2 import WHEN_EMPTY_WAIT, CreateSandboxRequest
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from tests.e2e.conftest import MakePool
from tests.support.callers import errors_of, in_background, sandboxes_of, together
from tests.support.durations import seconds
from tests.support.engine_view import EngineView
from tests.support.pool_instances import instances_of, wait_until_no_container
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_for_pool, wait_until_warm

pytestmark = pytest.mark.engine

SECS = 60.0
"""The queue timeout of a waiter, longer than any test needs."""


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[SandboxServiceStub]:
    """Return a stub of the service, for calls that the test cancels."""
    with grpc.insecure_channel(server.address) as channel:
        yield SandboxServiceStub(channel)


def wait_for_waiters(client: SandboxClient, pool_id: str, waiting: int) -> None:
    """Wait until the queue of the pool has `waiting` callers."""
    wait_for_pool(client, pool_id, lambda pool: pool.status.waiting == waiting)


def wait_for_one(client: SandboxClient, pool_id: str) -> "Future[Sandbox]":
    """Create a sandbox in the background. The call waits in the queue."""
    return in_background(lambda: client.create(pool_id=pool_id, when_empty="wait", queue_timeout=SECS))


def test_serves_waiters_in_fifo_order(server: ServerProcess, client: SandboxClient, make_pool: MakePool):
    """Row 17: at the maximum the next free instance is assigned to the first waiter, of any client."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    with ExitStack() as stack:
        waiters: list[Future[Sandbox]] = []
        for number in range(1, 4):
            other = stack.enter_context(SandboxClient(server.address))
            waiters.append(wait_for_one(other, pool.pool_id))
            wait_for_waiters(client, pool.pool_id, number)
        for number, waiter in enumerate(waiters, 1):
            holder.delete()
            holder = waiter.result(SECS)
            assert holder.start_type is StartType.WARM
            assert not any(later.done() for later in waiters[number:]), "a later waiter was served first"
            assert client.get_pool(pool.pool_id).status.waiting == len(waiters) - number
        holder.delete()
    wait_until_warm(client, pool.pool_id, 1)


def test_cancelled_and_expired_waiters_leak_no_instance(
    client: SandboxClient, make_pool: MakePool, stub: SandboxServiceStub, engine: EngineView
):
    """Rows 8, 17: a cancelled and an expired waiter leave no sandbox."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    request = CreateSandboxRequest(pool_id=pool.pool_id, when_empty=WHEN_EMPTY_WAIT, queue_timeout=seconds(SECS))
    cancelled = stub.CreateSandbox.future(request, timeout=SECS)
    wait_for_waiters(client, pool.pool_id, 1)
    next_waiter = wait_for_one(client, pool.pool_id)
    wait_for_waiters(client, pool.pool_id, 2)
    cancelled.cancel()
    wait_for_waiters(client, pool.pool_id, 1)
    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id, when_empty="wait", queue_timeout=0.2)
    assert late.value.reason == "QUEUE_TIMEOUT"

    holder.delete()
    served = next_waiter.result(SECS)
    assert [found.sandbox_id for found in client.list_sandboxes(pool_id=pool.pool_id, states=["running"])] == [
        served.sandbox_id
    ]
    served.delete()
    wait_until_warm(client, pool.pool_id, 1)
    assert len(instances_of(engine, pool.pool_id)) == 1
    assert client.get_pool(pool.pool_id).status.hits == 2, "one of the holder and one of the served waiter"


def test_deadline_at_any_moment_leaks_no_claim(
    client: SandboxClient, make_pool: MakePool, stub: SandboxServiceStub, engine: EngineView
):
    """Rows 1, 8: with a deadline before, during or after the claim, the server deletes sandboxes without a caller."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    request = CreateSandboxRequest(pool_id=pool.pool_id, when_empty=WHEN_EMPTY_WAIT, queue_timeout=seconds(SECS))
    calls = [stub.CreateSandbox.future(request, timeout=0.002 * number) for number in range(1, 40)]
    got = set()
    for call in calls:
        try:
            got.add(call.result(SECS).sandbox.sandbox_id)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 (each call may end either way)
    # The server deletes sandboxes whose caller has disconnected in the background. A response that is in transit when
    # the deadline passes is lost: the server cannot detect it, and only a retry with the same request id returns the
    # sandbox. This is rare.
    wait_for_pool(
        client,
        pool.pool_id,
        lambda seen: (
            (seen.status.warm, seen.status.creating, seen.status.removing, seen.status.waiting) == (2, 0, 0, 0)
            and len(got) <= seen.status.active <= len(got) + 2
        ),
    )
    running = {found.sandbox_id for found in client.list_sandboxes(pool_id=pool.pool_id, states=["running"])}
    assert got <= running
    assert len(instances_of(engine, pool.pool_id)) == len(running) + 2


def test_limit_empty_pool_and_timeout_are_different_errors(client: SandboxClient, make_pool: MakePool):
    """Row 17: each error has a code, a reason and, where a retry can succeed, a delay."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    client.create(pool_id=pool.pool_id)
    with pytest.raises(QuotaExceededError) as at_max:
        client.create(pool_id=pool.pool_id, when_empty="start_cold")
    with pytest.raises(PoolEmptyError) as empty:
        client.create(pool_id=pool.pool_id, when_empty=WhenEmpty.FAIL)
    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id, when_empty="wait", queue_timeout=0.1)
    errors = (at_max.value, empty.value, late.value)
    assert [(error.code, error.reason) for error in errors] == [
        ("RESOURCE_EXHAUSTED", "POOL_LIMIT_REACHED"),
        ("RESOURCE_EXHAUSTED", "POOL_EMPTY"),
        ("DEADLINE_EXCEEDED", "QUEUE_TIMEOUT"),
    ]
    assert [error.quota_subject for error in errors] == [f"pool:{pool.pool_id}", None, None]
    assert all(error.retry_after for error in errors[:2])


def test_pool_without_warm_instances_starts_one_for_each_waiter(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 17, 25: with `warm_containers` 0 waiters are served, and no instance remains afterwards."""
    pool = make_pool(warm_containers=0)
    sandboxes = client.create_batch(2, pool_id=pool.pool_id, when_empty="wait", queue_timeout=SECS)
    assert all(sandbox.run("true").success for sandbox in sandboxes)
    for sandbox in sandboxes:
        sandbox.delete()
    wait_until_no_container(engine, pool.pool_id)
    assert client.get_pool(pool.pool_id).status.misses == 0


def test_instance_being_created_serves_a_caller_at_the_maximum(client: SandboxClient, make_pool: MakePool):
    """Rows 5, 17: refilling takes no capacity from callers: one caller is served, the others are rejected."""
    pool = make_pool(warm_containers=1, max_containers=2, readiness_probe=ReadinessProbe(["sleep", "1"]))
    wait_until_warm(client, pool.pool_id, 1)
    client.create(pool_id=pool.pool_id)
    wait_for_pool(client, pool.pool_id, lambda seen: seen.status.creating == 1)
    results = together(3, lambda _: client.create(pool_id=pool.pool_id))
    (served,) = sandboxes_of(results)
    assert served.start_type is StartType.WARM
    assert [error.reason for error in errors_of(results)] == ["POOL_LIMIT_REACHED"] * 2


def test_caller_that_does_not_wait_does_not_overtake_waiters(client: SandboxClient, make_pool: MakePool):
    """Row 17: warm instances and the remaining capacity are reserved for earlier waiters."""
    pool = make_pool(warm_containers=1, max_containers=3)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    # The pool has room for two instances next to the holder; the waiter requests three.
    waiter = in_background(lambda: client.create_batch(3, pool_id=pool.pool_id, when_empty="wait", queue_timeout=SECS))
    wait_until_warm(client, pool.pool_id, 2)
    with pytest.raises(PoolEmptyError, match="earlier callers"):
        client.create(pool_id=pool.pool_id, when_empty="fail")
    holder.delete()
    refused = 0
    while not waiter.done():
        with pytest.raises(QuotaExceededError):
            client.create(pool_id=pool.pool_id)
        refused += 1
    assert len(waiter.result(0)) == 3
    assert refused > 0
