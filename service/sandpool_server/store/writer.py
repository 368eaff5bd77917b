"""The one writer: a thread with one kept connection that turns waiting operations into few transactions.

What waits when the thread comes back is written in one transaction (a "batch"), so that 32 callers pay for one flush of
the disk and not for 32. Each operation of a batch runs in a savepoint of its own: what one raises undoes its own writes
and nobody else's. Answers go out after the commit alone.
"""

import asyncio
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from sandpool_server.domain.errors import Unavailable
from sandpool_server.store.errors import unavailable

_LOG = logging.getLogger(__name__)
_BATCH = 128
"""The most operations in one transaction: bounds how long the first waits for the last."""

_OWN_FAULT = (DataError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError)
"""Errors of one statement; any other says that the database fails, and the transaction with it."""

T = TypeVar("T")


@dataclass(slots=True)
class Transaction:
    """What an operation writes through, and what it says of its writes."""

    connection: Connection
    touched: set[str] = field(default_factory=set)
    """Ids of the pools and sandboxes that it changed."""
    hits: Counter[str] = field(default_factory=Counter)
    """By pool: claims to be counted as hits, once for the whole batch; below zero where some are taken back."""
    misses: Counter[str] = field(default_factory=Counter)


class _Job(Generic[T]):
    """An operation that waits, and its caller."""

    __slots__ = ("_taken", "error", "future", "operation", "result")

    def __init__(self, operation: Callable[[Transaction], T], future: "asyncio.Future[T]") -> None:
        self.operation = operation
        self.future = future
        self.result: T | None = None
        self.error: BaseException | None = None
        self._taken = threading.Lock()

    def take(self) -> bool:
        """True for the first who asks: the writer, to begin it, or its caller, to give it up."""
        return self._taken.acquire(blocking=False)


class Writer:
    """Runs operations in transactions, in the order in which they came.

    `finish` writes what a batch has gathered (its hits and misses) before the commit; `notify` is called on the event
    loop once for each commit that touched something, after the answers were handed out. At most `limit` operations
    wait; each waits at most `deadline` seconds to be begun.
    """

    def __init__(
        self,
        engine: Engine,
        finish: Callable[[Transaction], None],
        notify: Callable[[frozenset[str]], None],
        limit: int,
        deadline: float,
    ) -> None:
        self._engine = engine
        self._finish = finish
        self._notify = notify
        self._limit = limit
        self._deadline = deadline
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin; belongs to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._closed = False
        threading.Thread(target=self._work, name="store-writer", daemon=True).start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Run the operation and return its result once it is committed; raises what it raises.

        `Unavailable` when too many wait, when the database fails, and when the operation was not begun within the
        deadline. One that has begun may still be committed: its outcome is waited for, however long it takes. When the
        caller is cancelled, an operation that waits is dropped and one that has begun is finished.
        """
        if self._closed or self._loop is None:
            raise Unavailable("DATABASE_CLOSED", "the server is shutting down")
        if self._waiting >= self._limit:
            raise Unavailable("DATABASE_BUSY", "the database is busy: too many changes wait to be written")
        job = _Job(operation, self._loop.create_future())
        self._waiting += 1
        self._queue.put(job)
        late = self._loop.call_later(self._deadline, self._give_up, job)
        try:
            result: T = await job.future
            return result
        finally:
            late.cancel()
            # Whoever takes the job first decides: here only a cancelled caller can still be first.
            if job.take():
                self._waiting -= 1

    async def close(self) -> None:
        """Finish what waits and end the thread."""
        if not self._closed and self._ended is not None:
            self._closed = True
            self._queue.put(None)
            await self._ended

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        connection: Connection | None = None
        going = True
        while going:
            batch, going = self._next_batch()
            if not batch:
                continue
            whole = None
            try:
                if connection is None or connection.invalidated or connection.closed:
                    connection = self._engine.connect()
                whole = _transact(connection, batch, self._finish)
            except BaseException as error:
                # Whatever it is, the callers hear of it and the thread goes on.
                failure = _for_callers(error)
                for job in batch:
                    job.error = Unavailable(failure.reason, failure.message)
                _let_go(connection)
                connection = None
            self._on_loop(self._settle, batch, frozenset(whole.touched) if whole else frozenset())
        if connection is not None:
            connection.close()
        self._on_loop(self._end)

    def _next_batch(self) -> tuple[list[_Job[Any]], bool]:
        """What waits now, at least one unless it was given up; and whether more may come."""
        batch: list[_Job[Any]] = []
        job = self._queue.get()
        while job is not None:
            if job.take():
                batch.append(job)
            if len(batch) >= _BATCH:
                return batch, True
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _on_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            _LOG.debug("the event loop ended before the store was closed; nobody waits for answers any more")

    # --- on the event loop --------------------------------------------------------------------------------------------

    def _give_up(self, job: _Job[Any]) -> None:
        """Let a late caller go unless its operation has begun."""
        if not job.future.done() and job.take():
            self._waiting -= 1
            job.future.set_exception(Unavailable("DATABASE_BUSY", "the database did not answer in time"))

    def _settle(self, batch: list[_Job[Any]], touched: frozenset[str]) -> None:
        self._waiting -= len(batch)
        for job in batch:
            if job.future.done():
                continue  # its caller has gone
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
        if touched:
            self._notify(touched)

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _transact(connection: Connection, batch: list[_Job[Any]], finish: Callable[[Transaction], None]) -> Transaction:
    """Run the batch in one transaction, note each job's result or error, and return all that was written.

    Raises when the transaction as a whole failed: then nothing was written.
    """
    whole = Transaction(connection)
    with connection.begin() as transaction:
        if len(batch) == 1:
            # Alone it needs no savepoint: what it raises undoes the transaction.
            if not _attempt(batch[0], whole):
                transaction.rollback()
                return Transaction(connection)
        else:
            cursor = connection.connection.cursor()
            try:
                for job in batch:
                    part = Transaction(connection)
                    cursor.execute("SAVEPOINT operation")
                    if _attempt(job, part):
                        whole.touched |= part.touched
                        # Not `+=`: that forgets what is below zero.
                        whole.hits.update(part.hits)
                        whole.misses.update(part.misses)
                    else:
                        cursor.execute("ROLLBACK TO SAVEPOINT operation")
                    cursor.execute("RELEASE SAVEPOINT operation")
            finally:
                cursor.close()
        finish(whole)
    return whole


def _attempt(job: _Job[Any], part: Transaction) -> bool:
    """Run one operation; false when it raised. Raises when the database itself fails, and with it the transaction."""
    try:
        job.result = job.operation(part)
    except DBAPIError as error:
        if not isinstance(error, _OWN_FAULT):
            raise
        job.error = error
    except Exception as error:
        # Handed to the caller as it is: a domain error, or a bug of the operation's.
        job.error = error
    return job.error is None


def _for_callers(error: BaseException) -> Unavailable:
    """Why a whole batch failed."""
    if isinstance(error, DBAPIError):
        return unavailable(error)
    _LOG.error("a transaction failed", exc_info=error)
    return Unavailable("DATABASE_UNAVAILABLE", "the database does not answer; nothing was changed")


def _let_go(connection: Connection | None) -> None:
    """Close a connection whose state nobody knows any more; the next batch gets a fresh one."""
    if connection is not None:
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError as error:
            _LOG.debug("closing the broken connection: %s", error)
