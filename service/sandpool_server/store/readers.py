"""The readers: a few threads, each with a kept connection. They see the last commit and never wait for the writer."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from sandpool_server.domain.errors import Unavailable
from sandpool_server.store.errors import unavailable

T = TypeVar("T")


class Readers:
    """Runs queries, each in one read transaction. At most `limit` wait, each at most `deadline` seconds."""

    def __init__(self, engine: Engine, threads: int, limit: int, deadline: float) -> None:
        self._engine = engine
        self._limit = limit
        self._deadline = deadline
        self._waiting = 0
        self._closed = False
        self._own = threading.local()
        self._connections: list[Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run the query and return its result; raises what it raises, and `Unavailable` as `Writer.run` does."""
        if self._closed:
            raise Unavailable("DATABASE_CLOSED", "the server is shutting down")
        if self._waiting >= self._limit:
            raise Unavailable("DATABASE_BUSY", "the database is busy: too many queries wait")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)
        except TimeoutError:
            raise Unavailable("DATABASE_BUSY", "the database did not answer in time") from None
        except DBAPIError as error:
            raise unavailable(error) from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Finish what waits and end the threads."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _read(self, query: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._engine.connect()
            self._connections.append(connection)
        try:
            with connection.begin():
                return query(connection)
        except DBAPIError:
            # Its state is unknown: the next query of this thread gets a fresh one.
            self._own.connection = None
            connection.invalidate()
            raise
