"""The conversion of database errors to domain errors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError, IntegrityError

from sandpool_server.domain.errors import AlreadyExists, Unavailable
from sandpool_server.store import dialect

_LOG = logging.getLogger(__name__)


def unavailable(error: DBAPIError) -> Unavailable:
    """Return the domain error for a database error and write the details to the log."""
    _LOG.warning("database error: %s", error.orig)
    return Unavailable("DATABASE_UNAVAILABLE", f"no data was changed: the database {dialect.describe(error)}")


@contextmanager
def unique_name(resource_type: str, table: Table, name: str) -> Iterator[None]:
    """Convert a violation of the table's unique names inside the block to `AlreadyExists`."""
    try:
        yield
    except IntegrityError as error:
        if dialect.violates_unique(error, table, "name"):
            raise AlreadyExists(resource_type, name) from None
        raise
