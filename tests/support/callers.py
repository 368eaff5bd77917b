"""Concurrent callers."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sandpool import Sandbox, SandpoolError

T = TypeVar("T")

CALL_SECS = 90.0
"""Longest duration of concurrent calls, in seconds."""


def together(count: int, call: Callable[[int], T]) -> list[T | SandpoolError]:
    """Make `count` calls at the same time and return their results and `SandpoolError`s. Raise other errors."""
    start = threading.Barrier(count)

    def one(number: int) -> T | SandpoolError:
        start.wait(30)
        try:
            return call(number)
        except SandpoolError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count), timeout=CALL_SECS))


def sandboxes_of(results: Iterable[object]) -> list[Sandbox]:
    """Return the sandboxes among the results."""
    return [result for result in results if isinstance(result, Sandbox)]


def errors_of(results: Iterable[object]) -> list[SandpoolError]:
    """Return the errors among the results."""
    return [result for result in results if isinstance(result, SandpoolError)]


def in_background(call: Callable[[], T]) -> "Future[T]":
    """Make the call in a separate thread. Callers must pass a timeout when they wait for the result."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
