"""The readers: threads that execute queries, each with its own open connection.

A query reads the last committed state and does not wait for the writer.
"""

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
    """Runs queries, each in one read transaction.

    At most `limit` queries are waiting or in progress. Each must finish within `deadline` seconds.
    """

    def __init__(self, engine: Engine, threads: int, limit: int, deadline: float) -> None:
        self._engine = engine
        self._limit = limit
        self._deadline = deadline
        self._waiting = 0
        self._closed = False
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")

    async def run(self, query: Callable[[Connection], T]) -> T:
        """Run the query and return its result.

        Raises:
            Unavailable: too many queries are waiting, the deadline has expired, or the database reports an error.
            Exception: any error of the query.
        """
        if self._closed:
            raise Unavailable("DATABASE_CLOSED", "the server is shutting down; try again later")
        if self._waiting >= self._limit:
            raise Unavailable("DATABASE_BUSY", f"the database is busy: {self._limit} queries are waiting; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)
        except TimeoutError:
            raise Unavailable(
                "DATABASE_BUSY", f"the database did not respond in time ({self._deadline:g} s); try again"
            ) from None
        except DBAPIError as error:
            raise unavailable(error) from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Execute the waiting queries and stop the threads."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _read(self, query: Callable[[Connection], T]) -> T:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._engine.connect()
            self._connections.append(connection)
        try:
            with connection.begin():
                return query(connection)
        except DBAPIError:
            # The state of the connection is unknown: the next query of this thread opens a new one.
            self._local.connection = None
            connection.invalidate()
            raise
