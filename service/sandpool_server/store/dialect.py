"""The code that depends on SQLite. The rest of the package uses only portable SQL."""

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
"""The time limit for a transaction to wait for the lock of another process."""

_UNIQUE_VIOLATIONS = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}

_DESCRIPTIONS = {
    sqlite3.SQLITE_BUSY: "is locked by another process; try again, or stop that process",
    sqlite3.SQLITE_LOCKED: "is locked by another process; try again, or stop that process",
    sqlite3.SQLITE_FULL: "has no disk space left; free disk space",
    sqlite3.SQLITE_READONLY: "is read-only; check the permissions of its file and directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check the permissions of its file and directory",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is not a database of this server; check the data directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk for errors",
}
_UNKNOWN = "does not respond; check the log of the server"


def prepare(url: str) -> None:
    """Create the file of the database, readable only by its owner, and its parent directories if they do not exist.

    Raises:
        OSError: the file or a directory cannot be created.
        ValueError: the URL is not a SQLite file.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        raise ValueError(f"the database type {parsed.get_backend_name()} is not supported; use a URL sqlite:///PATH")
    if parsed.database in (None, "", ":memory:"):
        raise ValueError(
            "a database in memory is not supported, because the readers and the writer cannot share it; use a URL "
            "sqlite:///PATH"
        )
    path = Path(str(parsed.database))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives the write-ahead log and its index the permissions of this file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def make_engine(url: str, *, writes: bool) -> Engine:
    """Return an SQLAlchemy engine without a connection pool: the caller keeps the connections open.

    With `writes`, a transaction holds the write lock of the database from its start. Without it, connections are
    read-only: a transaction sees the state of the database at its first statement and does not wait for writers.
    """
    engine = create_engine(
        url,
        poolclass=NullPool,
        # The driver must not start transactions itself, because `on_begin` does.
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": _LOCK_WAIT_SECS},
        json_serializer=_compact_json,
        # The parameters contain the environments and metadata of users. They must not appear in error messages.
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
    """Return whether the error reports that a value of this column exists already."""
    return (
        getattr(error.orig, "sqlite_errorcode", None) in _UNIQUE_VIOLATIONS
        and f"{table.name}.{column}" in str(error.orig).replace(",", " ").split()
    )


def describe(error: DBAPIError) -> str:
    """Return the predicate of a message "the database …" with the cause and the next action. It contains no SQL."""
    # The lower eight bits are the primary result code. The other bits are details.
    code = getattr(error.orig, "sqlite_errorcode", None)
    return _DESCRIPTIONS.get(code & 0xFF, _UNKNOWN) if isinstance(code, int) else _UNKNOWN


def has_plain_cursor(dialect: Dialect) -> bool:
    """Return whether `run_plain` supports the dialect."""
    return dialect.name == "sqlite" and dialect.positional


def run_plain(connection: Connection, sql: str, arguments: Sequence[object]) -> list[tuple[Any, ...]]:
    """Run a statement on the cursor of the driver and return its rows with the values of the driver.

    For small statements this is several times faster than SQLAlchemy Core. It raises the same errors as Core.
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
    """Return the condition that the list at `key` of the JSON object in the column contains `value`."""
    entry = func.json_each(column, f'$."{key}"').table_valued("value", joins_implicitly=True)
    return exists(select(literal_column("1")).select_from(entry).where(entry.c.value == value))


def json_has(column: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    """Return the condition that the JSON object in the column has the entry `key: value`."""
    entry = func.json_each(column).table_valued("key", "value", joins_implicitly=True)
    return exists(select(literal_column("1")).select_from(entry).where(entry.c.key == key, entry.c.value == value))
