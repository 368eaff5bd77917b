"""Streams that continue after a broken connection: delays, time limits, and missed changes."""

import pytest

from sandpool import (
    Pool,
    PoolEvent,
    PoolEventType,
    PoolNotFoundError,
    RetryPolicy,
    SandboxClient,
    SandboxConnectionError,
)
from sandpool._core.arguments import UNSET
from sandpool._core.resumption import RESUME_TIMEOUT, AllPools, NamedPools, Resumption

RETRY = RetryPolicy(max_attempts=3, initial_delay=1.0, max_delay=4.0)
BROKEN = SandboxConnectionError("broken")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_retry_policy_limits_the_attempts_before_the_stream_starts():
    resumption = Resumption(None, Clock())
    assert [resumption.pause(RETRY, BROKEN) is None for _ in range(3)] == [False, False, True]
    assert resumption.left() is None
    assert Resumption(UNSET, Clock()).left() is UNSET


def test_a_started_stream_is_resumed_for_a_minute_without_progress():
    clock = Clock()
    resumption = Resumption(None, clock)
    assert resumption.progress() is False
    for _ in range(20):
        pause = resumption.pause(RETRY, BROKEN)
        assert pause is not None
        assert 0 < pause <= 2.0
    clock.now += RESUME_TIMEOUT
    assert resumption.pause(RETRY, BROKEN) is None
    assert resumption.progress() is True, "the first response after a broken connection"
    assert resumption.progress() is False
    assert resumption.pause(RETRY, BROKEN) is not None, "and the minute starts again"
    never = Resumption(None, clock)
    never.progress()
    assert never.pause(RetryPolicy(max_attempts=1), BROKEN) is None


def test_the_time_limit_covers_all_connections():
    clock = Clock()
    resumption = Resumption(10.0, clock)
    resumption.progress()
    clock.now += 9.9
    assert resumption.left() == pytest.approx(0.1)
    assert resumption.pause(RETRY, BROKEN) is None
    clock.now += 1.0
    left = resumption.left()
    assert left is not None
    assert left > 0, "so that the call itself fails with a timeout"


@pytest.fixture
def pools(client: SandboxClient) -> tuple[Pool, Pool]:
    return client.create_pool("p", image="i"), client.create_pool("q", image="i")


def test_a_watch_uses_identifiers_once_they_are_known(pools: tuple[Pool, Pool]):
    first, second = pools
    named = NamedPools(["p", second.pool_id, "r"])
    named.take(PoolEvent(PoolEventType.CURRENT, first))
    named.take(PoolEvent(PoolEventType.CURRENT, second))
    assert named.refs == ["r", first.pool_id, second.pool_id]
    gone = named.deleted(PoolNotFoundError("no such pool", resource_name=first.pool_id))
    assert gone == PoolEvent(PoolEventType.DELETED, first)
    named.take(gone)
    assert named.refs == ["r", second.pool_id]
    assert named.deleted(PoolNotFoundError("no such pool", resource_name="r")) is None


def test_pools_that_a_new_connection_does_not_report_were_deleted(pools: tuple[Pool, Pool]):
    first, second = (PoolEvent(PoolEventType.CURRENT, pool) for pool in pools)
    every = AllPools()
    every.begin()
    assert [every.take(event) for event in (first, second, None)] == [[first], [second], []]
    every.begin()
    assert every.take(second) == [second]
    every.begin()  # The connection broke again before its bookmark.
    assert every.take(second) == [second]
    assert every.take(None) == [PoolEvent(PoolEventType.DELETED, first.pool)]
    gone = PoolEvent(PoolEventType.DELETED, second.pool)
    assert every.take(gone) == [gone]
    every.begin()
    assert every.take(None) == [], "each deletion is reported once"
