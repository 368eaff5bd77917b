"""Waiting in line for a sandbox: first come, first served, and nothing is lost on those who go away.

The rows named are those of docs/user-demands.md.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import grpc
import pytest

from sandpool import (
    PoolEmptyError,
    QuotaExceededError,
    ResourceTimeoutError,
    Sandbox,
    SandboxClient,
    SandboxStart,
    WhenEmpty,
)
from sandpool.v1.sandbox_service_pb2 import WHEN_EMPTY_WAIT, CreateSandboxRequest
from sandpool.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from tests.e2e.conftest import MakePool
from tests.support.callers import behind, errors_of, sandboxes_of, together
from tests.support.engine_view import EngineView
from tests.support.pool_members import members_of, wait_until_no_container
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_for_pool, wait_until_warm

pytestmark = pytest.mark.engine

SECS = 60.0
"""What a caller in line is given, and more than anyone needs here."""


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[SandboxServiceStub]:
    """The service without the client, for calls that are to be cancelled."""
    with grpc.insecure_channel(server.address) as channel:
        yield SandboxServiceStub(channel)


def in_line(client: SandboxClient, pool_id: str, waiting: int) -> None:
    """Return once so many wait."""
    wait_for_pool(client, pool_id, lambda pool: pool.status.waiting == waiting)


def wait_for_one(client: SandboxClient, pool_id: str) -> "Future[Sandbox]":
    """A caller who waits in line, behind."""
    return behind(lambda: client.create(pool_id=pool_id, when_empty="wait", wait_secs=SECS))


def test_first_come_first_served_across_callers(server: ServerProcess, client: SandboxClient, make_pool: MakePool):
    """Row 17: at the maximum a caller in line gets the next one that is free, in the order of arrival."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    with ExitStack() as stack:
        places: list[Future[Sandbox]] = []
        for number in range(1, 4):
            other = stack.enter_context(SandboxClient(server.address))
            places.append(wait_for_one(other, pool.pool_id))
            in_line(client, pool.pool_id, number)
        for number, place in enumerate(places, 1):
            holder.delete()
            holder = place.result(SECS)
            assert holder.start is SandboxStart.WARM
            assert not any(later.done() for later in places[number:]), "somebody was served before his turn"
            assert client.get_pool(pool.pool_id).status.waiting == len(places) - number
        holder.delete()
    wait_until_warm(client, pool.pool_id, 1)


def test_callers_who_go_away_take_nothing_along(
    client: SandboxClient, make_pool: MakePool, stub: SandboxServiceStub, engine: EngineView
):
    """Rows 8, 17: one whose time is up and one who cancels lose no member and leave no sandbox."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    request = CreateSandboxRequest(pool_id=pool.pool_id, when_empty=WHEN_EMPTY_WAIT, wait_secs=SECS)
    cancelled = stub.CreateSandbox.future(request, timeout=SECS)
    in_line(client, pool.pool_id, 1)
    behind_it = wait_for_one(client, pool.pool_id)
    in_line(client, pool.pool_id, 2)
    cancelled.cancel()
    in_line(client, pool.pool_id, 1)
    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id, when_empty="wait", wait_secs=0.2)
    assert late.value.reason == "NOT_READY_IN_TIME"

    holder.delete()
    served = behind_it.result(SECS)
    assert [found.sandbox_id for found in client.list_sandboxes(pool_id=pool.pool_id, states=["running"])] == [
        served.sandbox_id
    ]
    served.delete()
    wait_until_warm(client, pool.pool_id, 1)
    assert len(members_of(engine, pool.pool_id)) == 1
    assert client.get_pool(pool.pool_id).status.hits == 2, "the holder's and the served caller's"


def test_deadlines_at_every_moment_of_a_wait(
    client: SandboxClient, make_pool: MakePool, stub: SandboxServiceStub, engine: EngineView
):
    """Rows 1, 8: whenever the deadline comes, before, during or after the claim, what nobody got is not kept."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    request = CreateSandboxRequest(pool_id=pool.pool_id, when_empty=WHEN_EMPTY_WAIT, wait_secs=SECS)
    calls = [stub.CreateSandbox.future(request, timeout=0.002 * number) for number in range(1, 40)]
    got = set()
    for call in calls:
        try:
            got.add(call.result(SECS).sandbox.sandbox_id)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017 (each call may end either way)
    # What the server saw nobody take ends behind. An answer that is on its way when its caller's deadline passes is
    # lost to both: no server can tell, and only a retry with the same request id would find it. It takes a rare moment.
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
    assert len(members_of(engine, pool.pool_id)) == len(running) + 2


def test_three_ways_to_get_none_are_three_errors(client: SandboxClient, make_pool: MakePool):
    """Row 17: at the maximum, nothing ready, and not ready in time are told apart, each with what helps."""
    pool = make_pool(warm_containers=1, max_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    client.create(pool_id=pool.pool_id)
    with pytest.raises(QuotaExceededError) as at_max:
        client.create(pool_id=pool.pool_id, when_empty="start_cold")
    with pytest.raises(PoolEmptyError) as empty:
        client.create(pool_id=pool.pool_id, when_empty=WhenEmpty.FAIL)
    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id, when_empty="wait", wait_secs=0.1)
    errors = (at_max.value, empty.value, late.value)
    assert [(error.code, error.reason) for error in errors] == [
        ("RESOURCE_EXHAUSTED", "POOL_AT_MAX"),
        ("RESOURCE_EXHAUSTED", "POOL_EMPTY"),
        ("DEADLINE_EXCEEDED", "NOT_READY_IN_TIME"),
    ]
    assert [error.quota_subject for error in errors] == [f"pool:{pool.pool_id}", "", ""]
    assert all(error.retry_after for error in errors[:2])


def test_a_pool_that_keeps_none_ready_makes_one_for_who_waits(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 17, 25: with warm_containers 0 the one in line is served, and nothing is kept after."""
    pool = make_pool(warm_containers=0)
    sandboxes = client.create_batch(2, pool_id=pool.pool_id, when_empty="wait", wait_secs=SECS)
    assert all(sandbox.run("true").success for sandbox in sandboxes)
    for sandbox in sandboxes:
        sandbox.delete()
    wait_until_no_container(engine, pool.pool_id)
    assert client.get_pool(pool.pool_id).status.misses == 0


def test_at_the_maximum_what_is_being_made_serves_a_caller(client: SandboxClient, make_pool: MakePool):
    """Rows 5, 17: refilling takes no place away from callers: one gets what is made, those beyond are refused."""
    pool = make_pool(warm_containers=1, max_containers=2, readiness_command=["sleep", "1"])
    wait_until_warm(client, pool.pool_id, 1)
    client.create(pool_id=pool.pool_id)
    wait_for_pool(client, pool.pool_id, lambda seen: seen.status.creating == 1)
    answers = together(3, lambda _: client.create(pool_id=pool.pool_id))
    (served,) = sandboxes_of(answers)
    assert served.start is SandboxStart.WARM
    assert [error.reason for error in errors_of(answers)] == ["POOL_AT_MAX"] * 2


def test_who_does_not_wait_does_not_overtake_who_does(client: SandboxClient, make_pool: MakePool):
    """Row 17: ready members, and the room under the maximum, are for those who came first and wait."""
    pool = make_pool(warm_containers=1, max_containers=3)
    wait_until_warm(client, pool.pool_id, 1)
    holder = client.create(pool_id=pool.pool_id)
    # Two may be ready beside the holder; the one in line wants three.
    in_front = behind(lambda: client.create_batch(3, pool_id=pool.pool_id, when_empty="wait", wait_secs=SECS))
    wait_until_warm(client, pool.pool_id, 2)
    with pytest.raises(PoolEmptyError, match="came before"):
        client.create(pool_id=pool.pool_id, when_empty="fail")
    holder.delete()
    refused = 0
    while not in_front.done():
        with pytest.raises(QuotaExceededError):
            client.create(pool_id=pool.pool_id)
        refused += 1
    assert len(in_front.result(0)) == 3
    assert refused > 0
