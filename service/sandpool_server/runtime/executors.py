"""Thread pools for blocking engine calls.

docker-py blocks, so each kind of call has a bounded executor: a few daemon threads, each with its own client. Calls of
different kinds never wait for each other, so container starts that hang do not delay removals or pings. A thread cannot
be killed: if its call exceeds the deadline, the thread is *late* and occupies its executor until the call returns, at
the latest when the client's timeout expires. While all threads of an executor are late, new calls fail immediately.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from docker.errors import APIError

from sandpool_server.runtime.client import Connect, EngineClient
from sandpool_server.runtime.failures import EngineDown, normalised, status

T = TypeVar("T")

_UNRESPONSIVE = "the container engine does not respond: earlier calls are still pending; check the engine"
_MAX_WAITING = 4096
_CLOSE_SECS = 2.0


class _Job:
    """An active call. The event loop completes `done` when the call returns, even if its caller no longer waits."""

    def __init__(self, call: Callable[[EngineClient], Any], deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.deadline = deadline
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()
        # Read the exception, because asyncio would log it if the caller no longer waits.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.late = False
        self.timer: asyncio.TimerHandle | None = None


class BoundedExecutor:
    """Runs at most `threads` engine calls of one kind at the same time. Call all methods on the event loop."""

    def __init__(self, name: str, threads: int, connect: Connect) -> None:
        self._name = name
        self._size = threads
        self._connect = connect
        self._free = threads
        self._late = 0
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._work: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle_threads = 0

    async def run(self, call: Callable[[EngineClient], T], deadline: float, queue_timeout: float | None = None) -> T:
        """Run a blocking call and return its result. Combines `begin` and `wait`.

        Raises `EngineDown`, docker-py's `APIError`, and the exceptions of `call`.
        """
        return await self.wait(await self.begin(call, deadline, queue_timeout), deadline)

    async def begin(
        self, call: Callable[[EngineClient], T], deadline: float, queue_timeout: float | None = None
    ) -> asyncio.Future[T]:
        """Wait for a free thread, start the call in it, and return a future with its result.

        Use `wait` for the future, because cancelling the future does not cancel the call. If this method raises
        (`EngineDown` or a cancellation), the call has not started.

        Args:
            call: The function to call. Its argument is the thread's client.
            deadline: Time limit of the call in seconds.
            queue_timeout: Time limit of the wait for a thread in seconds; `deadline` by default.
        """
        await self._acquire(deadline if queue_timeout is None else queue_timeout)
        loop = asyncio.get_running_loop()
        job = _Job(call, deadline, loop)
        job.timer = loop.call_later(deadline, self._passed_deadline, job)
        if self._idle_threads:
            self._idle_threads -= 1
        else:
            thread = threading.Thread(
                target=self._serve, name=f"engine-{self._name}-{len(self._threads) + 1}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._work.put(job)
        return job.done

    async def wait(self, done: asyncio.Future[T], deadline: float) -> T:
        """Return the result of an active call. Raises `EngineDown` after `deadline` seconds."""
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.shield(done)
        except TimeoutError:
            raise EngineDown(f"the container engine did not respond in time ({deadline:g} seconds)") from None

    async def close(self) -> None:
        """Reject new and waiting calls, and end the threads. A late thread ends when its call returns."""
        self._closed = True
        self._fail_waiting("the server is stopping")
        for _ in self._threads:
            self._work.put(None)
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            await asyncio.get_running_loop().run_in_executor(None, _join, alive, _CLOSE_SECS)

    async def _acquire(self, timeout: float) -> None:
        """Wait for a free thread. Raises `EngineDown`."""
        if self._closed:
            raise EngineDown("the server is stopping")
        if self._free:
            self._free -= 1
            return
        if self._late >= self._size:
            raise EngineDown(_UNRESPONSIVE)
        if len(self._waiting) >= _MAX_WAITING:
            raise EngineDown(f"the container engine is overloaded: {_MAX_WAITING} calls are waiting; try again later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(timeout):
                await turn
        except TimeoutError:
            self._abandon(turn)
            raise EngineDown(
                f"the container engine is overloaded: the call waited {timeout:g} seconds in the queue; try again later"
            ) from None
        except asyncio.CancelledError:
            self._abandon(turn)
            raise

    def _abandon(self, turn: "asyncio.Future[None]") -> None:
        """Leave the queue. If the thread was already assigned, assigns it to the next waiter."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._release()

    def _release(self) -> None:
        """Assign a free thread to the next waiter."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _fail_waiting(self, message: str) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(EngineDown(message))

    def _passed_deadline(self, job: _Job) -> None:
        job.late = True
        self._late += 1
        if self._late >= self._size:
            self._fail_waiting(_UNRESPONSIVE)

    def _finished(self, job: _Job, result: Any, error: Exception | None) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job.late:
            self._late -= 1
        self._idle_threads += 1
        if error is None:
            job.done.set_result(result)
        else:
            job.done.set_exception(error)
        self._release()

    def _serve(self) -> None:
        """Run calls until the executor is closed. Runs in an executor's thread."""
        client: EngineClient | None = None
        while (job := self._work.get()) is not None:
            result, error = None, None
            try:
                if client is None:
                    client = self._connect(job.deadline)
                client.timeout = job.deadline
                result = job.call(client)
            except Exception as raised:
                error = normalised(raised)
                if client is not None and _has_another_version(error):
                    client.close()
                    client = None
            try:
                job.loop.call_soon_threadsafe(self._finished, job, result, error)
            except RuntimeError:  # The event loop is closed, so no caller waits.
                break
            del job, result, error
        if client is not None:
            client.close()


def _has_another_version(error: Exception) -> bool:
    """Return whether the engine no longer supports the negotiated API version, for example after an upgrade."""
    return isinstance(error, APIError) and status(error) == 400 and "client version" in str(error.explanation)


def _join(threads: list[threading.Thread], timeout: float) -> None:
    for thread in threads:
        thread.join(timeout / len(threads))
