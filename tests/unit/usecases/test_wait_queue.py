"""The wait queue: first in, first out, and empty after the last waiter leaves."""

from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.wait_queue import WaitQueue

A, B = ("pool-a",), ("pool-b",)
BOTH = ("pool-a", "pool-b")


def test_is_empty_at_first() -> None:
    queue = WaitQueue(ChangeHub())
    assert not queue
    assert not queue.awaited(A)
    assert queue.waiting("pool-a") == 0


def test_first_waiter_is_next() -> None:
    queue = WaitQueue(ChangeHub())
    with queue.join(A, 1) as first, queue.join(A, 2) as second:
        assert queue.is_next(first)
        assert not queue.is_next(second)
        assert queue.waiting("pool-a") == 3
    assert not queue


def test_waiters_for_different_pools_are_independent() -> None:
    queue = WaitQueue(ChangeHub())
    with queue.join(A, 1) as first, queue.join(B, 1) as second:
        assert queue.is_next(first)
        assert queue.is_next(second)
        assert queue.awaited(BOTH)
        assert not queue.awaited(("pool-c",))


def test_waiter_for_template_is_queued_for_each_of_its_pools() -> None:
    queue = WaitQueue(ChangeHub())
    with queue.join(BOTH, 1), queue.join(B, 1) as second, queue.join(A, 1) as third:
        assert not queue.is_next(second)
        assert not queue.is_next(third)
        assert (queue.waiting("pool-a"), queue.waiting("pool-b")) == (2, 1), "a waiter counts once"


def test_claiming_waiter_stays_first_but_needs_no_instance() -> None:
    queue = WaitQueue(ChangeHub())
    with queue.join(A, 1) as first, queue.join(BOTH, 2) as second, queue.join(A, 1) as third:
        with queue.claiming(first):
            assert not queue.is_next(second)
            assert (queue.unserved(A), queue.unserved(A, before=third), queue.unserved(A, before=second)) == (3, 2, 0)
            assert queue.awaited(A) == 4
        assert (queue.unserved(A), queue.unserved(A, before=third), queue.unserved(A, before=second)) == (4, 3, 1)


async def test_joining_and_leaving_notify_subscribers() -> None:
    hub = ChangeHub()
    queue = WaitQueue(hub)
    with hub.subscribe() as others:
        with queue.join(A, 1):
            assert await others.next() == {"pool-a"}
        assert await others.next() == {"pool-a"}
