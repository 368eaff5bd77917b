"""Bounded threads for blocking engine calls, off the event loop.

docker-py blocks, so each class of calls has a lane: a few daemon threads, each with a client of its own. A call of one
class never waits for one of another, so starts that hang hold up no removal and no ping. A thread cannot be killed: one
whose call has passed its deadline is *late*, and keeps its place in the lane until the call comes back (the client's
timeouts see to that). While all threads of a lane are late, calls fail at once instead of queueing up.
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

_MAX_WAITING = 4096
_CLOSE_SECS = 2.0


class _Job:
    """One call under way. `done` belongs to the loop and ends when the thread does, whoever still waits for it."""

    def __init__(self, call: Callable[[EngineClient], Any], deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.deadline = deadline
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()
        # Whoever waited may be gone: then the failure has been told to nobody, and that is right.
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.late = False
        self.timer: asyncio.TimerHandle | None = None


class Lane:
    """At most `threads` engine calls of one class at once. All methods belong to the event loop."""

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

    async def run(self, call: Callable[[EngineClient], T], deadline: float, patience: float | None = None) -> T:
        """Run a blocking call and return its result: `begin` and `wait` in one.

        Raises `EngineDown`, docker-py's `APIError`, and what `call` itself raises.
        """
        return await self.wait(await self.begin(call, deadline, patience), deadline)

    async def begin(
        self, call: Callable[[EngineClient], T], deadline: float, patience: float | None = None
    ) -> asyncio.Future[T]:
        """Wait up to `patience` seconds for a thread, hand it the call and return the future of its end.

        `patience` is the deadline if not given. When this raises (`EngineDown`, cancellation) the call has not begun.
        The future is not cancelled with its waiters: use `wait`.
        """
        await self._take_turn(deadline if patience is None else patience)
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
        """Return the result of a call that has begun, or raise `EngineDown` after `deadline` seconds."""
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.shield(done)
        except TimeoutError:
            raise EngineDown("the container engine did not answer in time") from None

    async def close(self) -> None:
        """Refuse new calls, fail those that wait, and end the threads; late ones end when their call does."""
        self._closed = True
        self._fail_waiting("the server is stopping")
        for _ in self._threads:
            self._work.put(None)
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            await asyncio.get_running_loop().run_in_executor(None, _join, alive, _CLOSE_SECS)

    async def _take_turn(self, patience: float) -> None:
        if self._closed:
            raise EngineDown("the server is stopping")
        if self._free:
            self._free -= 1
            return
        if self._late >= self._size:
            raise EngineDown("the container engine does not answer; earlier calls still hang")
        if len(self._waiting) >= _MAX_WAITING:
            raise EngineDown("too many calls wait for the container engine")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise EngineDown("the container engine is too busy; the call waited too long for its turn") from None
        except asyncio.CancelledError:
            self._give_up(turn)
            raise

    def _give_up(self, turn: "asyncio.Future[None]") -> None:
        """Leave the queue; a turn that was granted at the same moment goes to the next in line."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._next_turn()

    def _next_turn(self) -> None:
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
            self._fail_waiting("the container engine does not answer; earlier calls still hang")

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
        self._next_turn()

    def _serve(self) -> None:
        """Work off calls until told to end. Runs in a thread of its own."""
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
                if client is not None and _speaks_another_version(error):
                    client.close()
                    client = None
            try:
                job.loop.call_soon_threadsafe(self._finished, job, result, error)
            except RuntimeError:  # The loop has ended, and with it everybody who waited.
                break
            del job, result, error
        if client is not None:
            client.close()


def _speaks_another_version(error: Exception) -> bool:
    """Whether the engine was replaced by one that does not take the version agreed on with its predecessor."""
    return isinstance(error, APIError) and status(error) == 400 and "client version" in str(error.explanation)


def _join(threads: list[threading.Thread], timeout: float) -> None:
    for thread in threads:
        thread.join(timeout / len(threads))
