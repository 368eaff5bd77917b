"""Many callers at once."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sandpool import Sandbox, SandpoolError

T = TypeVar("T")

CALL_SECS = 90.0
"""Seconds that the callers may take."""


def together(count: int, call: Callable[[int], T]) -> list[T | SandpoolError]:
    """What `count` callers get who all call at the same moment: answers, and errors of the call; others are raised."""
    start = threading.Barrier(count)

    def one(number: int) -> T | SandpoolError:
        start.wait(30)
        try:
            return call(number)
        except SandpoolError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count), timeout=CALL_SECS))


def sandboxes_of(answers: Iterable[object]) -> list[Sandbox]:
    """The sandboxes among the answers."""
    return [answer for answer in answers if isinstance(answer, Sandbox)]


def errors_of(answers: Iterable[object]) -> list[SandpoolError]:
    """The errors among the answers."""
    return [answer for answer in answers if isinstance(answer, SandpoolError)]


def behind(call: Callable[[], T]) -> "Future[T]":
    """The call in a thread of its own; its result is to be asked for with a timeout."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
