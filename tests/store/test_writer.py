"""The writer: batches, savepoints, cancelled callers, failing databases. The operations are plain SQL."""

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
    """An operation that blocks the thread of the writer until the gate is opened."""

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
    """Return an operation that writes a row."""

    def operation(tx: Transaction) -> str:
        tx.connection.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})
        tx.touched.add(name)
        tx.hits["pool"] += 1
        return name

    return operation


def add_and_raise(name: str, error: Exception) -> Callable[[Transaction], str]:
    """Return an operation that writes a row and then fails."""

    def operation(tx: Transaction) -> str:
        add(name)(tx)
        raise error

    return operation


def all_things(tx: Transaction) -> set[str]:
    return set(tx.connection.execute(text("SELECT name FROM things")).scalars())


@dataclass
class WriterHarness:
    """A writer and records of its notifications and finished transactions."""

    writer: Writer
    notified: list[frozenset[str]]
    finished: list[dict[str, int]]

    async def block(self) -> tuple[Gate, "asyncio.Task[str]"]:
        """Block the thread: later operations wait and form one batch."""
        gate = Gate(asyncio.Event())
        task = asyncio.create_task(self.writer.run(gate))
        await gate.begun.wait()
        return gate, task

    async def queue(self, *operations: Callable[[Transaction], object]) -> "list[asyncio.Task[object]]":
        """Put these operations into the queue, in this order."""
        tasks = [asyncio.create_task(self.writer.run(operation)) for operation in operations]
        await asyncio.sleep(0)  # each task runs until it waits
        return tasks


@pytest.fixture
def make_writer(url: str):
    """Return a function that creates writers on an empty table."""

    @asynccontextmanager
    async def make(
        limit: int = 100,
        deadline: float = 30.0,
        notify: Callable[[frozenset[str]], None] | None = None,
        finish: Callable[[Transaction], None] | None = None,
    ) -> AsyncIterator[WriterHarness]:
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
            yield WriterHarness(writer, notified, finished)
        finally:
            await writer.close()
            engine.dispose()

    return make


async def test_queued_operations_form_one_transaction(make_writer) -> None:
    async with make_writer() as harness:
        gate, first = await harness.block()
        tasks = await harness.queue(add("a"), add("b"), add("c"))
        gate.opened.set()
        assert await asyncio.gather(first, *tasks) == ["gate", "a", "b", "c"]
        assert harness.notified == [{"gate"}, {"a", "b", "c"}]
        assert harness.finished == [{}, {"pool": 3}]


async def test_failing_operation_does_not_affect_others(make_writer) -> None:
    async with make_writer() as harness:
        gate, _ = await harness.block()
        tasks = await harness.queue(
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
        assert await harness.writer.run(all_things) == {"gate", "a", "c"}
        assert harness.notified == [{"gate"}, {"a", "c"}]
        assert harness.finished[:2] == [{}, {"pool": 2}]


async def test_single_failing_operation_writes_nothing(make_writer) -> None:
    async with make_writer() as harness:
        with pytest.raises(AlreadyExists):
            await harness.writer.run(add_and_raise("a", AlreadyExists("pool", "a")))
        assert await harness.writer.run(all_things) == set()
        assert harness.notified == []


async def test_drops_queued_operation_of_cancelled_caller(make_writer) -> None:
    async with make_writer() as harness:
        gate, first = await harness.block()
        tasks = await harness.queue(add("a"), add("b"))
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        gate.opened.set()
        assert await asyncio.gather(first, tasks[1]) == ["gate", "b"]
        assert await harness.writer.run(all_things) == {"gate", "b"}


async def test_finishes_running_operation_of_cancelled_caller(make_writer) -> None:
    async with make_writer() as harness:
        gate, first = await harness.block()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.opened.set()
        assert await harness.writer.run(all_things) == {"gate"}
        assert harness.notified == [{"gate"}]


async def test_starts_no_transaction_when_all_callers_cancel(make_writer) -> None:
    async with make_writer() as harness:
        gate, first = await harness.block()
        for task in await harness.queue(add("a"), add("b")):
            task.cancel()
        gate.opened.set()
        await first
        assert await harness.writer.run(all_things) == {"gate"}
        assert harness.notified == [{"gate"}]


async def test_returns_and_notifies_after_commit(make_writer, url: str) -> None:
    reader = dialect.make_engine(url, writes=False)
    seen: list[tuple[str, set[str]]] = []

    def read_at(step: str) -> None:
        with reader.connect() as connection:
            seen.append((step, set(connection.execute(text("SELECT name FROM things")).scalars())))

    async with make_writer(notify=lambda _: read_at("notified")) as harness:
        gate, first = await harness.block()
        read_at("before")
        first.add_done_callback(lambda _: read_at("returned"))
        gate.opened.set()
        await first
    assert seen == [("before", set()), ("notified", {"gate"}), ("returned", {"gate"})]
    reader.dispose()


async def test_rejects_operations_when_queue_is_full(make_writer) -> None:
    async with make_writer(limit=2) as harness:
        gate, first = await harness.block()
        [waiting] = await harness.queue(add("a"))
        with pytest.raises(Unavailable) as caught:
            await harness.writer.run(add("b"))
        assert caught.value.reason == "DATABASE_BUSY"
        # A cancelled operation makes room immediately.
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        [third] = await harness.queue(add("c"))
        gate.opened.set()
        assert await asyncio.gather(first, third) == ["gate", "c"]
        assert await harness.writer.run(all_things) == {"gate", "c"}


async def test_queued_operation_fails_at_deadline(make_writer) -> None:
    async with make_writer(deadline=0.05) as harness:
        gate, first = await harness.block()
        with pytest.raises(Unavailable) as caught:
            await harness.writer.run(add("a"))
        assert caught.value.reason == "DATABASE_BUSY"
        gate.opened.set()
        await first
        # The failed operation is not written later.
        assert await harness.writer.run(all_things) == {"gate"}


async def test_waits_for_running_operation_beyond_deadline(make_writer) -> None:
    async with make_writer(deadline=0.05) as harness:
        gate, first = await harness.block()
        with pytest.raises(Unavailable):
            await harness.writer.run(add("a"))  # queued later, so the deadline of the first operation has also expired
        assert not first.done()
        gate.opened.set()
        assert await first == "gate"
        assert harness.notified == [{"gate"}]


async def test_reports_failure_of_running_operation_after_deadline(make_writer) -> None:
    async with make_writer(deadline=0.05) as harness:
        gate = Gate(asyncio.Event())

        def refuse(tx: Transaction) -> None:
            gate(tx)
            raise AlreadyExists("pool", "a")

        first = asyncio.create_task(harness.writer.run(refuse))
        await gate.begun.wait()
        with pytest.raises(Unavailable):
            await harness.writer.run(add("a"))
        gate.opened.set()
        with pytest.raises(AlreadyExists):
            await first
        assert await harness.writer.run(all_things) == set()


async def test_expired_operations_make_room_in_queue(make_writer) -> None:
    async with make_writer(limit=2, deadline=0.05) as harness:
        gate, first = await harness.block()
        for _ in range(3):
            with pytest.raises(Unavailable, match="in time"):
                await harness.writer.run(add("a"))
        gate.opened.set()
        assert await first == "gate"


async def test_sums_counter_changes_in_a_batch(make_writer) -> None:
    def count(hits: int) -> Callable[[Transaction], None]:
        return lambda tx: tx.hits.update({"pool": hits})

    async with make_writer() as harness:
        gate, first = await harness.block()
        tasks = await harness.queue(count(-2), count(1), count(-1))
        gate.opened.set()
        await asyncio.gather(first, *tasks)
        assert harness.finished[1] == {"pool": -2}


async def test_full_disk_fails_batch_but_not_the_writer(make_writer) -> None:
    def limit_size(tx: Transaction) -> None:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")

    async with make_writer() as harness:
        await harness.writer.run(limit_size)
        gate, first = await harness.block()
        tasks = await harness.queue(add("a"), add("x" * 100_000), add("b"))
        gate.opened.set()
        await first
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert {str(result) for result in results} == {
            "no data was changed: the database has no disk space left; free disk space"
        }
        # The limit applied only to the closed connection.
        assert await harness.writer.run(add("y" * 100_000))
        assert await harness.writer.run(all_things) == {"gate", "y" * 100_000}
        assert harness.notified == [{"gate"}, {"y" * 100_000}]


async def test_locked_database_is_unavailable_until_unlocked(
    make_writer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_WAIT_SECS", 0.01)
    other = dialect.make_engine(url, writes=True)
    async with make_writer() as harness:
        with other.connect() as holder:
            holding = holder.begin()
            with pytest.raises(Unavailable, match="locked by another process"):
                await harness.writer.run(add("a"))
            holding.rollback()
        assert await harness.writer.run(add("b")) == "b"
        assert await harness.writer.run(all_things) == {"b"}
    other.dispose()


async def test_does_not_commit_when_finish_fails(make_writer) -> None:
    def fail(_: Transaction) -> None:
        raise ArithmeticError

    async with make_writer(finish=fail) as harness:
        with pytest.raises(Unavailable):
            await harness.writer.run(add("a"))
        assert harness.notified == []
    async with make_writer() as harness:
        assert await harness.writer.run(all_things) == set()


async def test_close_finishes_queued_operations_and_rejects_new_ones(make_writer) -> None:
    async with make_writer() as harness:
        gate, first = await harness.block()
        [waiting] = await harness.queue(add("a"))
        closing = asyncio.create_task(harness.writer.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await harness.writer.run(add("b"))
        assert caught.value.reason == "DATABASE_CLOSED"
        gate.opened.set()
        await closing
        assert await asyncio.gather(first, waiting) == ["gate", "a"]
