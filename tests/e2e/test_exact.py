"""Pools are exact whatever the load: never over their maximum, one member for one caller, all or none.

The rows named are those of docs/user-demands.md.
"""

from collections import Counter

import pytest

from sandpool import PoolEmptyError, QuotaExceededError, SandboxClient, SandboxStart, SandpoolError
from tests.e2e.conftest import MakePool
from tests.support.callers import errors_of, sandboxes_of, together
from tests.support.engine_view import EngineView
from tests.support.pool_members import members_of
from tests.support.waiting import wait_until_warm
from tests.support.watcher import Watcher

pytestmark = pytest.mark.engine


def test_two_hundred_callers_of_a_pool_of_thirty(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 1, 2, 5, 16, 17: as many sandboxes as the pool may have, each one caller's, and an error that says why."""
    pool = make_pool(warm_containers=20, max_containers=30)
    wait_until_warm(client, pool.pool_id, 20)
    with Watcher(pool.pool_id) as watcher:
        answers = together(200, lambda _: client.create(pool_id=pool.pool_id))

    sandboxes, errors = sandboxes_of(answers), errors_of(answers)
    assert Counter(error.reason for error in errors) == {"POOL_AT_MAX": 170}
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == len(sandboxes) == 30
    for error in errors:
        assert isinstance(error, QuotaExceededError)
        assert (error.code, error.quota_subject) == ("RESOURCE_EXHAUSTED", f"pool:{pool.pool_id}")
        assert error.retry_after
        assert error.retry_after > 0
    assert members_of(engine, pool.pool_id) == {sandbox.sandbox_id for sandbox in sandboxes}
    assert (watcher.seen.most_polled, watcher.seen.most_by_events) == (30, 30)
    assert watcher.seen.polls > 20, "it looked all the time"
    status = client.get_pool(pool.pool_id).status
    starts = Counter(sandbox.start for sandbox in sandboxes)
    assert (status.active, status.hits, status.misses) == (30, starts[SandboxStart.WARM], starts[SandboxStart.COLD])


def test_a_burst_of_warm_and_cold_starts_and_deletes(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 1, 2, 5, 14, 18: with creations, claims and removals mixed the maximum holds; nothing is used twice."""
    pool = make_pool(warm_containers=2, max_containers=5)
    wait_until_warm(client, pool.pool_id, 2)
    used: list[str] = []
    starts: Counter[SandboxStart | None] = Counter()
    refused: list[SandpoolError] = []

    def caller(_: int) -> None:
        for _round in range(4):
            try:
                sandbox = client.create(pool_id=pool.pool_id)
            except QuotaExceededError as error:
                refused.append(error)
                continue
            used.append(sandbox.sandbox_id)
            starts[sandbox.start] += 1
            clean = sandbox.run("test ! -e /tmp/used && echo > /tmp/used")
            sandbox.delete()
            assert clean.success, "somebody was here before"

    with Watcher(pool.pool_id) as watcher:
        assert errors_of(together(8, caller)) == []
        wait_until_warm(client, pool.pool_id, 2)
    assert len(used) == len(set(used))
    assert {error.reason for error in refused} <= {"POOL_AT_MAX"}
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) <= 5
    assert min(starts[SandboxStart.WARM], starts[SandboxStart.COLD]) > 0, "the burst mixed both"
    assert len(members_of(engine, pool.pool_id)) == 2
    status = client.get_pool(pool.pool_id).status
    assert (status.hits, status.misses) == (starts[SandboxStart.WARM], starts[SandboxStart.COLD])


def test_a_batch_is_all_or_none(client: SandboxClient, make_pool: MakePool):
    """Rows 1, 16, 17: what is refused takes nothing; what is answered is complete, warm ones first."""
    pool = make_pool(warm_containers=2, max_containers=4)
    wait_until_warm(client, pool.pool_id, 2)
    with pytest.raises(QuotaExceededError) as at_max:
        client.create_batch(5, pool_id=pool.pool_id)
    assert at_max.value.reason == "POOL_AT_MAX"
    with pytest.raises(PoolEmptyError):
        client.create_batch(3, pool_id=pool.pool_id, when_empty="fail")
    assert client.list_sandboxes(pool_id=pool.pool_id) == []
    status = client.get_pool(pool.pool_id).status
    assert (status.warm, status.active, status.hits, status.misses) == (2, 0, 0, 0)

    batch = client.create_batch(4, pool_id=pool.pool_id)
    assert Counter(sandbox.start for sandbox in batch) == {SandboxStart.WARM: 2, SandboxStart.COLD: 2}
    assert all(sandbox.run("true").success for sandbox in batch)


def test_batches_at_once_never_share(client: SandboxClient, make_pool: MakePool):
    """Row 1: of more batches than there is room for, as many as fit are served whole and the others not at all."""
    pool = make_pool(warm_containers=4, max_containers=4)
    wait_until_warm(client, pool.pool_id, 4)
    answers = together(5, lambda _: client.create_batch(2, pool_id=pool.pool_id))
    batches = [answer for answer in answers if isinstance(answer, list)]
    assert [error.reason for error in errors_of(answers)] == ["POOL_AT_MAX"] * 3
    assert len({sandbox.sandbox_id for batch in batches for sandbox in batch}) == 4
    assert client.get_pool(pool.pool_id).status.active == 4
