"""All that is SQLite's own. Another database gets its branch here; the rest of the package is SQL that both speak."""

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    Table,
    create_engine,
    event,
    exists,
    func,
    literal_column,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

_LOCK_WAIT_SECS = 5.0
"""How long a transaction waits for another process's."""

_TAKEN = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}

_ADVICE = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_FULL: "has no disk space left; free some",
    sqlite3.SQLITE_READONLY: "cannot be written to; check the permissions of its file and folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check the permissions of its file and folder",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is not a database of this server",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
}


def prepare(url: str) -> None:
    """Make the database's file, readable by its owner alone, and the folders that it is in, where they are missing.

    Raises `OSError`; `ValueError` for a database that cannot be used, such as one in memory.
    """
    where = make_url(url)
    if where.get_backend_name() != "sqlite":
        raise ValueError(f"the database must be sqlite:///…, not {where.get_backend_name()}")
    if where.database in (None, "", ":memory:"):
        raise ValueError("the database must be a file: one in memory cannot be shared by readers and the writer")
    path = Path(str(where.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The write-ahead log and its index get the permissions of the file itself.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def make_engine(url: str, *, writes: bool) -> Engine:
    """An engine whose connections the caller keeps.

    A transaction of a writing one holds the database's write lock from its beginning; one of a reading one sees the
    database as it was at its first statement and neither waits for writers nor can write.
    """
    engine = create_engine(
        url,
        poolclass=NullPool,
        # The driver must not begin transactions by itself: see the event below.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": _LOCK_WAIT_SECS},
        json_serializer=_compact_json,
        # What people put into environments and metadata is no part of an error's text.
        hide_parameters=True,
    )
    pragmas = ["foreign_keys = ON", "journal_mode = WAL", "synchronous = FULL"] if writes else ["query_only = ON"]
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        run_plain(connection, begin, ())

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _compact_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def violates_unique(error: IntegrityError, table: Table, column: str) -> bool:
    """Whether the error says that a value of this column is taken."""
    return (
        getattr(error.orig, "sqlite_errorcode", None) in _TAKEN
        and f"{table.name}.{column}" in str(error.orig).replace(",", " ").split()
    )


def describe(error: DBAPIError) -> str:
    """What is wrong with the database, as the end of "the database …"; holds no SQL."""
    # The lower eight bits are the kind of error, the others more detail on it.
    code = getattr(error.orig, "sqlite_errorcode", None)
    return _ADVICE.get(code & 0xFF, "does not answer") if isinstance(code, int) else "does not answer"


def has_plain_cursor(dialect: Dialect) -> bool:
    """Whether `run_plain` can be used."""
    return dialect.name == "sqlite" and dialect.positional


def run_plain(connection: Connection, sql: str, arguments: Sequence[object]) -> list[tuple[Any, ...]]:
    """Run a statement on the driver's own cursor and return its rows, values as the driver has them.

    Several times as fast as Core for small statements. Raises the errors that Core raises.
    """
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, arguments)
        return list(cursor.fetchall())
    except sqlite3.Error as error:
        raise DBAPIError.instance(sql, None, error, sqlite3.Error, dialect=connection.dialect) from error
    finally:
        cursor.close()


def json_list_has(column: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    """Whether the list under the key of the JSON object in the column holds this text."""
    entry = func.json_each(column, f'$."{key}"').table_valued("value", joins_implicitly=True)
    return exists(select(literal_column("1")).select_from(entry).where(entry.c.value == value))


def json_has(column: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    """Whether the JSON object in the column has this entry."""
    entry = func.json_each(column).table_valued("key", "value", joins_implicitly=True)
    return exists(select(literal_column("1")).select_from(entry).where(entry.c.key == key, entry.c.value == value))
