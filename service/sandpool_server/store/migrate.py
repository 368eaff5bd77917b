"""Brings the schema of a database up to date.

Alembic is loaded only where there is something to migrate: it takes several megabytes that a server would keep.
"""

import threading
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, insert, inspect, select

from sandpool_server.domain.errors import Unavailable
from sandpool_server.store.tables import METADATA

SCRIPTS = Path(__file__).parent / "migrations"
HEAD = max(path.name for path in (SCRIPTS / "versions").glob("[0-9]*.py")).partition("_")[0]
"""The newest migration's revision, which its file's name begins with."""

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own table: the revision that the database has."""
_ONE_AT_A_TIME = threading.Lock()
"""Alembic hands its context to the scripts through a global of the process."""


def upgrade(engine: Engine) -> None:
    """Make the tables of a new database, or apply the migrations that are missing, all in one transaction.

    Two servers that start at once take turns. Raises `Unavailable` for a database that a newer version has written, and
    database errors.
    """
    with _ONE_AT_A_TIME, engine.connect() as connection, connection.begin():
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
            "DATABASE_NEWER", f"the database was written by another version of the server; use that one ({error})"
        ) from error
