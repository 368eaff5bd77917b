"""The one writer: batches, savepoints, cancelled callers, failing databases. Operations here are plain SQL."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from sandpool_server.domain.errors import AlreadyExists, Unavailable
from sandpool_server.store import dialect
from sandpool_server.store.writer import Transaction, Writer


@dataclass
class Gate:
    """An operation that holds the writer's thread until it is opened."""

    begun: asyncio.Event
    opened: threading.Event = field(default_factory=threading.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def __call__(self, tx: Transaction) -> str:
        tx.connection.execute(text("INSERT INTO things VALUES ('gate')"))
        self.loop.call_soon_threadsafe(self.begun.set)
        assert self.opened.wait(30)
        tx.touched.add("gate")
        return "gate"


def add(name: str) -> Callable[[Transaction], str]:
    """An operation that writes a row."""

    def operation(tx: Transaction) -> str:
        tx.connection.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})
        tx.touched.add(name)
        tx.hits["pool"] += 1
        return name

    return operation


def add_and_raise(name: str, error: Exception) -> Callable[[Transaction], str]:
    """An operation that writes a row and then fails."""

    def operation(tx: Transaction) -> str:
        add(name)(tx)
        raise error

    return operation


def all_things(tx: Transaction) -> set[str]:
    return set(tx.connection.execute(text("SELECT name FROM things")).scalars())


@dataclass
class Made:
    """A writer to test, and what it did."""

    writer: Writer
    notified: list[frozenset[str]]
    finished: list[dict[str, int]]

    async def held(self) -> tuple[Gate, "asyncio.Task[str]"]:
        """Hold the thread: whatever is run now waits, and goes into one batch."""
        gate = Gate(asyncio.Event())
        task = asyncio.create_task(self.writer.run(gate))
        await gate.begun.wait()
        return gate, task

    async def queue(self, *operations: Callable[[Transaction], object]) -> "list[asyncio.Task[object]]":
        """Let these operations wait in the queue, in this order."""
        tasks = [asyncio.create_task(self.writer.run(operation)) for operation in operations]
        await asyncio.sleep(0)  # each runs up to where it waits
        return tasks


@pytest.fixture
def make(url: str):
    """Makes writers on an empty table of things."""

    @asynccontextmanager
    async def make(
        limit: int = 100,
        deadline: float = 30.0,
        notify: Callable[[frozenset[str]], None] | None = None,
        finish: Callable[[Transaction], None] | None = None,
    ) -> AsyncIterator[Made]:
        dialect.prepare(url)
        engine = dialect.make_engine(url, writes=True)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS things (name TEXT)"))
        notified: list[frozenset[str]] = []
        finished: list[dict[str, int]] = []

        def gather(tx: Transaction) -> None:
            finished.append(dict(tx.hits))

        writer = Writer(engine, finish or gather, notify or notified.append, limit, deadline)
        writer.start()
        try:
            yield Made(writer, notified, finished)
        finally:
            await writer.close()
            engine.dispose()

    return make


async def test_what_waits_is_one_transaction(make) -> None:
    async with make() as made:
        gate, first = await made.held()
        tasks = await made.queue(add("a"), add("b"), add("c"))
        gate.opened.set()
        assert await asyncio.gather(first, *tasks) == ["gate", "a", "b", "c"]
        assert made.notified == [{"gate"}, {"a", "b", "c"}]
        assert made.finished == [{}, {"pool": 3}]


async def test_a_poisoned_operation_spoils_nobody_elses(make) -> None:
    async with make() as made:
        gate, _ = await made.held()
        tasks = await made.queue(
            add("a"),
            add_and_raise("b", AlreadyExists("pool", "b")),
            add("c"),
            add_and_raise("d", ZeroDivisionError()),
            lambda tx: tx.connection.exec_driver_sql("INSERT INTO things VALUES (?)", (2**70,)),
            lambda tx: tx.connection.exec_driver_sql("INSERT INTO things VALUES (?)", (object(),)),
            all_things,
        )
        gate.opened.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[0], results[2]] == ["a", "c"]
        assert isinstance(results[1], AlreadyExists)
        assert isinstance(results[3], ZeroDivisionError)
        assert all(isinstance(result, Exception) for result in results[4:6])
        assert results[6] == {"gate", "a", "c"}
        assert await made.writer.run(all_things) == {"gate", "a", "c"}
        assert made.notified == [{"gate"}, {"a", "c"}]
        assert made.finished[:2] == [{}, {"pool": 2}]


async def test_an_operation_that_fails_alone_writes_nothing(make) -> None:
    async with make() as made:
        with pytest.raises(AlreadyExists):
            await made.writer.run(add_and_raise("a", AlreadyExists("pool", "a")))
        assert await made.writer.run(all_things) == set()
        assert made.notified == []


async def test_a_cancelled_caller_that_waits_is_dropped(make) -> None:
    async with make() as made:
        gate, first = await made.held()
        tasks = await made.queue(add("a"), add("b"))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        gate.opened.set()
        assert await asyncio.gather(first, tasks[1]) == ["gate", "b"]
        assert await made.writer.run(all_things) == {"gate", "b"}


async def test_an_operation_that_has_begun_is_finished(make) -> None:
    async with make() as made:
        gate, first = await made.held()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.opened.set()
        assert await made.writer.run(all_things) == {"gate"}
        assert made.notified == [{"gate"}]


async def test_all_callers_cancelled_is_no_transaction(make) -> None:
    async with make() as made:
        gate, first = await made.held()
        for task in await made.queue(add("a"), add("b")):
            task.cancel()
        gate.opened.set()
        await first
        assert await made.writer.run(all_things) == {"gate"}
        assert made.notified == [{"gate"}]


async def test_answers_and_notices_come_after_the_commit(make, url: str) -> None:
    reader = dialect.make_engine(url, writes=False)
    seen: list[tuple[str, set[str]]] = []

    def look(who: str) -> None:
        with reader.connect() as connection:
            seen.append((who, set(connection.execute(text("SELECT name FROM things")).scalars())))

    async with make(notify=lambda _: look("notified")) as made:
        gate, first = await made.held()
        look("before")
        first.add_done_callback(lambda _: look("answered"))
        gate.opened.set()
        await first
    assert seen == [("before", set()), ("notified", {"gate"}), ("answered", {"gate"})]
    reader.dispose()


async def test_too_many_waiting_is_unavailable(make) -> None:
    async with make(limit=2) as made:
        gate, first = await made.held()
        [waiting] = await made.queue(add("a"))
        with pytest.raises(Unavailable) as caught:
            await made.writer.run(add("b"))
        assert caught.value.reason == "DATABASE_BUSY"
        # One that is given up makes room at once.
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        [third] = await made.queue(add("c"))
        gate.opened.set()
        assert await asyncio.gather(first, third) == ["gate", "c"]
        assert await made.writer.run(all_things) == {"gate", "c"}


async def test_nobody_waits_longer_than_the_deadline(make) -> None:
    async with make(deadline=0.05) as made:
        gate, first = await made.held()
        with pytest.raises(Unavailable) as caught:
            await made.writer.run(add("a"))
        assert caught.value.reason == "DATABASE_BUSY"
        gate.opened.set()
        await first
        # It was given up: so it is not written later either.
        assert await made.writer.run(all_things) == {"gate"}


async def test_what_has_begun_is_waited_for_beyond_the_deadline(make) -> None:
    async with make(deadline=0.05) as made:
        gate, first = await made.held()
        with pytest.raises(Unavailable):
            await made.writer.run(add("a"))  # queued later, so the deadline of the first has passed as well
        assert not first.done()
        gate.opened.set()
        assert await first == "gate"
        assert made.notified == [{"gate"}]


async def test_what_has_begun_and_fails_after_the_deadline_says_why(make) -> None:
    async with make(deadline=0.05) as made:
        gate = Gate(asyncio.Event())

        def refuse(tx: Transaction) -> None:
            gate(tx)
            raise AlreadyExists("pool", "a")

        first = asyncio.create_task(made.writer.run(refuse))
        await gate.begun.wait()
        with pytest.raises(Unavailable):
            await made.writer.run(add("a"))
        gate.opened.set()
        with pytest.raises(AlreadyExists):
            await first
        assert await made.writer.run(all_things) == set()


async def test_late_callers_make_room_for_others(make) -> None:
    async with make(limit=2, deadline=0.05) as made:
        gate, first = await made.held()
        for _ in range(3):
            with pytest.raises(Unavailable, match="in time"):
                await made.writer.run(add("a"))
        gate.opened.set()
        assert await first == "gate"


async def test_what_is_taken_back_in_a_batch_is_taken_back(make) -> None:
    def count(hits: int) -> Callable[[Transaction], None]:
        return lambda tx: tx.hits.update({"pool": hits})

    async with make() as made:
        gate, first = await made.held()
        tasks = await made.queue(count(-2), count(1), count(-1))
        gate.opened.set()
        await asyncio.gather(first, *tasks)
        assert made.finished[1] == {"pool": -2}


async def test_a_full_disk_fails_the_batch_and_the_writer_goes_on(make) -> None:
    def limit_size(tx: Transaction) -> None:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")

    async with make() as made:
        await made.writer.run(limit_size)
        gate, first = await made.held()
        tasks = await made.queue(add("a"), add("x" * 100_000), add("b"))
        gate.opened.set()
        await first
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert {str(result) for result in results} == {
            "the database has no disk space left; free some; nothing was changed"
        }
        # The limit went with the connection.
        assert await made.writer.run(add("y" * 100_000))
        assert await made.writer.run(all_things) == {"gate", "y" * 100_000}
        assert made.notified == [{"gate"}, {"y" * 100_000}]


async def test_a_locked_database_is_unavailable_until_it_is_not(
    make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_WAIT_SECS", 0.01)
    other = dialect.make_engine(url, writes=True)
    async with make() as made:
        with other.connect() as holder:
            holding = holder.begin()
            with pytest.raises(Unavailable, match="locked by another process"):
                await made.writer.run(add("a"))
            holding.rollback()
        assert await made.writer.run(add("b")) == "b"
        assert await made.writer.run(all_things) == {"b"}
    other.dispose()


async def test_what_cannot_be_finished_is_not_committed(make) -> None:
    def fail(_: Transaction) -> None:
        raise ArithmeticError

    async with make(finish=fail) as made:
        with pytest.raises(Unavailable):
            await made.writer.run(add("a"))
        assert made.notified == []
    async with make() as made:
        assert await made.writer.run(all_things) == set()


async def test_close_finishes_what_waits_and_refuses_the_rest(make) -> None:
    async with make() as made:
        gate, first = await made.held()
        [waiting] = await made.queue(add("a"))
        closing = asyncio.create_task(made.writer.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await made.writer.run(add("b"))
        assert caught.value.reason == "DATABASE_CLOSED"
        gate.opened.set()
        await closing
        assert await asyncio.gather(first, waiting) == ["gate", "a"]
