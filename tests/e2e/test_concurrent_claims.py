"""Concurrent claims: a pool never exceeds its maximum, and each instance is assigned to one caller.

Row numbers refer to tests/user-demands.md.
"""

from collections import Counter

import pytest

from sandpool import PoolEmptyError, QuotaExceededError, SandboxClient, SandpoolError, StartType
from tests.e2e.conftest import MakePool
from tests.support.callers import errors_of, sandboxes_of, together
from tests.support.engine_view import EngineView
from tests.support.pool_instances import instances_of
from tests.support.waiting import wait_until_warm
from tests.support.watcher import Watcher

pytestmark = pytest.mark.engine


def test_serves_thirty_of_two_hundred_concurrent_callers(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 1, 2, 5, 16, 17: the pool creates `max_containers` sandboxes; the other callers receive the reason."""
    pool = make_pool(warm_containers=20, max_containers=30)
    wait_until_warm(client, pool.pool_id, 20)
    with Watcher(pool.pool_id) as watcher:
        results = together(200, lambda _: client.create(pool_id=pool.pool_id))

    sandboxes, errors = sandboxes_of(results), errors_of(results)
    assert Counter(error.reason for error in errors) == {"POOL_LIMIT_REACHED": 170}
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == len(sandboxes) == 30
    for error in errors:
        assert isinstance(error, QuotaExceededError)
        assert (error.code, error.quota_subject) == ("RESOURCE_EXHAUSTED", f"pool:{pool.pool_id}")
        assert error.retry_after
        assert error.retry_after > 0
    assert instances_of(engine, pool.pool_id) == {sandbox.sandbox_id for sandbox in sandboxes}
    assert (watcher.seen.most_polled, watcher.seen.most_by_events) == (30, 30)
    assert watcher.seen.polls > 20, "the watcher polled during the whole burst"
    status = client.get_pool(pool.pool_id).status
    starts = Counter(sandbox.start_type for sandbox in sandboxes)
    assert (status.active, status.hits, status.misses) == (30, starts[StartType.WARM], starts[StartType.COLD])


def test_respects_the_maximum_in_a_burst_of_creates_and_deletes(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 1, 2, 5, 14, 18: concurrent creates, claims and removals; no instance is reused."""
    pool = make_pool(warm_containers=2, max_containers=5)
    wait_until_warm(client, pool.pool_id, 2)
    used: list[str] = []
    starts: Counter[StartType | None] = Counter()
    refused: list[SandpoolError] = []

    def caller(_: int) -> None:
        for _round in range(4):
            try:
                sandbox = client.create(pool_id=pool.pool_id)
            except QuotaExceededError as error:
                refused.append(error)
                continue
            used.append(sandbox.sandbox_id)
            starts[sandbox.start_type] += 1
            clean = sandbox.run("test ! -e /tmp/used && echo > /tmp/used")
            sandbox.delete()
            assert clean.success, "another caller used this sandbox before"

    with Watcher(pool.pool_id) as watcher:
        assert errors_of(together(8, caller)) == []
        wait_until_warm(client, pool.pool_id, 2)
    assert len(used) == len(set(used))
    assert {error.reason for error in refused} <= {"POOL_LIMIT_REACHED"}
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) <= 5
    assert min(starts[StartType.WARM], starts[StartType.COLD]) > 0, "the burst mixed both"
    assert len(instances_of(engine, pool.pool_id)) == 2
    status = client.get_pool(pool.pool_id).status
    assert (status.hits, status.misses) == (starts[StartType.WARM], starts[StartType.COLD])


def test_creates_a_batch_completely_or_not_at_all(client: SandboxClient, make_pool: MakePool):
    """Rows 1, 16, 17: a rejected batch claims nothing; a batch uses warm instances before cold starts."""
    pool = make_pool(warm_containers=2, max_containers=4)
    wait_until_warm(client, pool.pool_id, 2)
    with pytest.raises(QuotaExceededError) as at_max:
        client.create_batch(5, pool_id=pool.pool_id)
    assert at_max.value.reason == "POOL_LIMIT_REACHED"
    with pytest.raises(PoolEmptyError):
        client.create_batch(3, pool_id=pool.pool_id, when_empty="fail")
    assert list(client.list_sandboxes(pool_id=pool.pool_id)) == []
    status = client.get_pool(pool.pool_id).status
    assert (status.warm, status.active, status.hits, status.misses) == (2, 0, 0, 0)

    batch = client.create_batch(4, pool_id=pool.pool_id)
    assert Counter(sandbox.start_type for sandbox in batch) == {StartType.WARM: 2, StartType.COLD: 2}
    assert all(sandbox.run("true").success for sandbox in batch)


def test_concurrent_batches_share_no_instance(client: SandboxClient, make_pool: MakePool):
    """Row 1: of five batches the pool has room for two. It serves two completely and rejects the others."""
    pool = make_pool(warm_containers=4, max_containers=4)
    wait_until_warm(client, pool.pool_id, 4)
    results = together(5, lambda _: client.create_batch(2, pool_id=pool.pool_id))
    batches = [result for result in results if isinstance(result, list)]
    assert [error.reason for error in errors_of(results)] == ["POOL_LIMIT_REACHED"] * 3
    assert len({sandbox.sandbox_id for batch in batches for sandbox in batch}) == 4
    assert client.get_pool(pool.pool_id).status.active == 4
