"""The waiting line: order of arrival, and nothing left behind."""

from sandpool_server.usecases.changes import ChangeHub
from sandpool_server.usecases.line import WaitingLine

A, B = ("pool-a",), ("pool-b",)
BOTH = ("pool-a", "pool-b")


def test_nobody_waits_at_first() -> None:
    line = WaitingLine(ChangeHub())
    assert not line
    assert not line.awaited(A)
    assert line.waiting("pool-a") == 0


def test_whoever_came_first_is_next() -> None:
    line = WaitingLine(ChangeHub())
    with line.join(A, 1) as first, line.join(A, 2) as second:
        assert line.is_next(first)
        assert not line.is_next(second)
        assert line.waiting("pool-a") == 3
    assert not line


def test_callers_for_other_pools_do_not_wait_for_each_other() -> None:
    line = WaitingLine(ChangeHub())
    with line.join(A, 1) as first, line.join(B, 1) as second:
        assert line.is_next(first)
        assert line.is_next(second)
        assert line.awaited(BOTH)
        assert not line.awaited(("pool-c",))


def test_a_template_s_caller_stands_in_the_line_of_each_of_its_pools() -> None:
    line = WaitingLine(ChangeHub())
    with line.join(BOTH, 1), line.join(B, 1) as second, line.join(A, 1) as third:
        assert not line.is_next(second)
        assert not line.is_next(third)
        assert (line.waiting("pool-a"), line.waiting("pool-b")) == (2, 1), "a place counts once"


def test_a_place_that_claims_is_still_first_but_waits_for_nothing() -> None:
    line = WaitingLine(ChangeHub())
    with line.join(A, 1) as first, line.join(BOTH, 2) as second, line.join(A, 1) as third:
        with line.claiming(first):
            assert not line.is_next(second)
            assert (line.unserved(A), line.unserved(A, before=third), line.unserved(A, before=second)) == (3, 2, 0)
            assert line.awaited(A) == 4
        assert (line.unserved(A), line.unserved(A, before=third), line.unserved(A, before=second)) == (4, 3, 1)


async def test_joining_and_leaving_wake_the_others() -> None:
    hub = ChangeHub()
    line = WaitingLine(hub)
    with hub.subscribe() as others:
        with line.join(A, 1):
            assert await others.next() == {"pool-a"}
        assert await others.next() == {"pool-a"}
