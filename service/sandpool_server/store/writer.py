"""The writer: a thread with one open connection that executes all changes of the database.

The thread executes all waiting operations in one transaction (a batch), so that 32 callers need one flush of the disk
instead of 32. Each operation of a batch runs in its own savepoint: an error undoes only the writes of its operation.
The callers get their results after the commit.
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
"""The maximum number of operations in one transaction. It limits the time that the first one waits for the last."""

_STATEMENT_ERRORS = (DataError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError)
"""The errors of a single statement. All other database errors are failures of the database and its transaction."""

T = TypeVar("T")


@dataclass(slots=True)
class Transaction:
    """The connection for the writes of an operation, and the record of these writes."""

    connection: Connection
    touched: set[str] = field(default_factory=set)
    """The ids of the changed pools and sandboxes."""
    hits: Counter[str] = field(default_factory=Counter)
    """The number of hits to add, by pool id, once for the whole batch. It is negative for released claims."""
    misses: Counter[str] = field(default_factory=Counter)


class _Job(Generic[T]):
    """A waiting operation and the future of its caller."""

    __slots__ = ("_acquired", "error", "future", "operation", "result")

    def __init__(self, operation: Callable[[Transaction], T], future: "asyncio.Future[T]") -> None:
        self.operation = operation
        self.future = future
        self.result: T | None = None
        self.error: BaseException | None = None
        self._acquired = threading.Lock()

    def acquire(self) -> bool:
        """Return True only for the first call: by the writer to execute the job, or by its caller to abandon it."""
        return self._acquired.acquire(blocking=False)


class Writer:
    """Runs operations in transactions, in the order of their arrival.

    Args:
        engine: The database.
        finish: A function that writes the totals of a batch (hits and misses) before the commit.
        notify: A function that is called on the event loop after each commit that changed pools or sandboxes, after the
            callers got their results.
        limit: The maximum number of waiting operations.
        deadline: The time limit in seconds for the start of an operation.
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
        self._stopped: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Start the thread. The writer then belongs to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        self._closed = False
        threading.Thread(target=self._work, name="store-writer", daemon=True).start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Run the operation and return its result after the commit.

        The deadline applies only to the start: a started operation can be committed, so the method waits for its result
        without a limit. If the caller is cancelled, a waiting operation is dropped and a started one is finished.

        Raises:
            Unavailable: too many operations are waiting, the operation did not start in time, or the database failed.
            Exception: any error of the operation.
        """
        if self._closed or self._loop is None:
            raise Unavailable("DATABASE_CLOSED", "the server is shutting down; try again later")
        if self._waiting >= self._limit:
            raise Unavailable("DATABASE_BUSY", f"the database is busy: {self._limit} changes are waiting; try again")
        job = _Job(operation, self._loop.create_future())
        self._waiting += 1
        self._queue.put(job)
        late = self._loop.call_later(self._deadline, self._abandon, job)
        try:
            result: T = await job.future
            return result
        finally:
            late.cancel()
            # If the job is still free here, its caller was cancelled while the job was waiting.
            if job.acquire():
                self._waiting -= 1

    async def close(self) -> None:
        """Execute the waiting operations and stop the thread."""
        if not self._closed and self._stopped is not None:
            self._closed = True
            self._queue.put(None)
            await self._stopped

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        connection: Connection | None = None
        running = True
        while running:
            batch, running = self._next_batch()
            if not batch:
                continue
            whole = None
            try:
                if connection is None or connection.invalidated or connection.closed:
                    connection = self._engine.connect()
                whole = _transact(connection, batch, self._finish)
            except BaseException as error:
                # Every error is reported to the callers, and the thread continues with the next batch.
                failure = _batch_error(error)
                for job in batch:
                    job.error = Unavailable(failure.reason, failure.message)
                _discard(connection)
                connection = None
            self._on_loop(self._settle, batch, frozenset(whole.touched) if whole else frozenset())
        if connection is not None:
            connection.close()
        self._on_loop(self._set_stopped)

    def _next_batch(self) -> tuple[list[_Job[Any]], bool]:
        """Wait for operations and return them, and whether the writer stays open. Abandoned operations are skipped."""
        batch: list[_Job[Any]] = []
        job = self._queue.get()
        while job is not None:
            if job.acquire():
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
            _LOG.debug("the event loop was closed before the store; the results of the last operations are dropped")

    # --- on the event loop --------------------------------------------------------------------------------------------

    def _abandon(self, job: _Job[Any]) -> None:
        """Fail a waiting operation whose deadline has expired. Does nothing if the operation has started."""
        if not job.future.done() and job.acquire():
            self._waiting -= 1
            job.future.set_exception(
                Unavailable("DATABASE_BUSY", f"the database did not respond in time ({self._deadline:g} s); try again")
            )

    def _settle(self, batch: list[_Job[Any]], touched: frozenset[str]) -> None:
        self._waiting -= len(batch)
        for job in batch:
            if job.future.done():
                continue  # The caller was cancelled.
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
        if touched:
            self._notify(touched)

    def _set_stopped(self) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)


def _transact(connection: Connection, batch: list[_Job[Any]], finish: Callable[[Transaction], None]) -> Transaction:
    """Run the batch in one transaction, set the result or error of each job, and return the record of all writes.

    Raises:
        Exception: the transaction failed; nothing was written.
    """
    whole = Transaction(connection)
    with connection.begin() as transaction:
        if len(batch) == 1:
            # A single operation needs no savepoint: its error rolls back the transaction.
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
                        # Not `+=`, because it removes negative counts.
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
    """Run one operation and return whether it succeeded. An error of the operation is set in the job.

    Raises:
        DBAPIError: the database, and therefore the transaction, failed.
    """
    try:
        job.result = job.operation(part)
    except DBAPIError as error:
        if not isinstance(error, _STATEMENT_ERRORS):
            raise
        job.error = error
    except Exception as error:
        # The caller gets the original error: a domain error, or a bug in the operation.
        job.error = error
    return job.error is None


def _batch_error(error: BaseException) -> Unavailable:
    """Return the error for the callers of a failed batch."""
    if isinstance(error, DBAPIError):
        return unavailable(error)
    _LOG.error("transaction failed", exc_info=error)
    return Unavailable(
        "DATABASE_UNAVAILABLE", "no data was changed: the transaction failed; check the log of the server"
    )


def _discard(connection: Connection | None) -> None:
    """Close a connection with an unknown state. The next batch opens a new one."""
    if connection is not None:
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError as error:
            _LOG.debug("cannot close a broken connection: %s", error)
