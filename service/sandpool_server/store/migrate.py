"""The migration of the database schema to the current version.

Alembic is imported only if a migration is necessary, because it would use several megabytes of the server's memory.
"""

import threading
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from sandpool_server.domain.errors import Unavailable
from sandpool_server.store.tables import METADATA

SCRIPTS = Path(__file__).parent / "migrations"
HEAD = max(path.name for path in (SCRIPTS / "versions").glob("[0-9]*.py")).partition("_")[0]
"""The revision of the newest migration: the beginning of its file name."""

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""The table of Alembic, which contains the revision of the database."""
_LOCK = threading.Lock()
"""Allows one migration at a time, because Alembic passes its context to the scripts in a global variable."""


def upgrade(engine: Engine) -> None:
    """Create the tables of a new database, or apply the missing migrations of an existing one, in one transaction.

    If two servers start at the same time, the second one waits for the first.

    Raises:
        Unavailable: (DATABASE_NEWER) another version of the server has written the database.
        DBAPIError: the database reports an error.
    """
    with _LOCK, engine.connect() as connection, connection.begin():
        tables = inspect(connection).get_table_names()
        if not tables:
            METADATA.create_all(connection)
            _VERSION.create(connection)
            connection.execute(insert(_VERSION), {"version_num": HEAD})
        elif _VERSION.name not in tables or connection.scalar(select(_VERSION.c.version_num)) != HEAD:
            _migrate(connection)


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable(
            "DATABASE_NEWER",
            f"the database was written by another version of the server ({error}); start the server of that version",
        ) from error
