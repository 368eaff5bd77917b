"""Brings the schema of a database up to date."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine

from sandpool_server.domain.errors import Unavailable

_SCRIPTS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = threading.Lock()
"""Alembic hands its context to the scripts through a global of the process."""


def upgrade(engine: Engine) -> None:
    """Apply the migrations that are missing, all in one transaction; two servers that start at once take turns.

    Raises `Unavailable` for a database that a newer version has written, and database errors.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _ONE_AT_A_TIME, engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Unavailable(
                "DATABASE_NEWER", f"the database was written by another version of the server; use that one ({error})"
            ) from error
