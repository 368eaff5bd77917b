"""Streams that go on where they broke: when the next connection is opened, and what is known of the time between."""

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
from sandpool._core.resuming import PATIENCE_SECS, AllPools, NamedPools, Resuming

RETRY = RetryPolicy(max_attempts=3, initial_delay=1.0, max_delay=4.0)
BROKEN = SandboxConnectionError("gone")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_before_anything_has_come_the_policy_decides():
    resuming = Resuming(None, Clock())
    assert [resuming.pause(RETRY, BROKEN) is None for _ in range(3)] == [False, False, True]
    assert resuming.left() is None


def test_what_had_begun_is_worth_more_patience_but_not_for_ever():
    clock = Clock()
    resuming = Resuming(None, clock)
    assert resuming.arrived() is False
    for _ in range(20):
        pause = resuming.pause(RETRY, BROKEN)
        assert pause is not None
        assert 0 < pause <= 2.0
    clock.now += PATIENCE_SECS
    assert resuming.pause(RETRY, BROKEN) is None
    assert resuming.arrived() is True, "the first answer after a break"
    assert resuming.arrived() is False
    assert resuming.pause(RETRY, BROKEN) is not None, "and patience begins anew"
    never = Resuming(None, clock)
    never.arrived()
    assert never.pause(RetryPolicy(max_attempts=1), BROKEN) is None


def test_the_timeout_is_for_all_connections_together():
    clock = Clock()
    resuming = Resuming(10.0, clock)
    resuming.arrived()
    clock.now += 9.9
    assert resuming.left() == pytest.approx(0.1)
    assert resuming.pause(RETRY, BROKEN) is None
    clock.now += 1.0
    left = resuming.left()
    assert left is not None
    assert left > 0, "so that the call itself says that the time is over"


@pytest.fixture
def pools(client: SandboxClient) -> tuple[Pool, Pool]:
    return client.create_pool("p", image="i"), client.create_pool("q", image="i")


def test_a_watch_asks_for_identifiers_once_it_knows_them(pools: tuple[Pool, Pool]):
    first, second = pools
    named = NamedPools(["p", second.pool_id, "r"])
    named.take(PoolEvent(PoolEventType.PRESENT, first))
    named.take(PoolEvent(PoolEventType.PRESENT, second))
    assert named.refs == ["r", first.pool_id, second.pool_id]
    gone = named.deleted(PoolNotFoundError("no such pool", resource_name=first.pool_id))
    assert gone == PoolEvent(PoolEventType.DELETED, first)
    named.take(gone)
    assert named.refs == ["r", second.pool_id]
    assert named.deleted(PoolNotFoundError("no such pool", resource_name="r")) is None


def test_what_a_new_connection_does_not_tell_was_deleted(pools: tuple[Pool, Pool]):
    first, second = (PoolEvent(PoolEventType.PRESENT, pool) for pool in pools)
    every = AllPools()
    every.begin()
    assert [every.take(event) for event in (first, second, None)] == [[first], [second], []]
    every.begin()
    assert every.take(second) == [second]
    every.begin()  # it broke again before its bookmark
    assert every.take(second) == [second]
    assert every.take(None) == [PoolEvent(PoolEventType.DELETED, first.pool)]
    gone = PoolEvent(PoolEventType.DELETED, second.pool)
    assert every.take(gone) == [gone]
    every.begin()
    assert every.take(None) == [], "each deletion is told once"
