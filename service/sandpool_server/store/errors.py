"""Database errors in the domain's words."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError, IntegrityError

from sandpool_server.domain.errors import AlreadyExists, Unavailable
from sandpool_server.store import dialect

_LOG = logging.getLogger(__name__)


def unavailable(error: DBAPIError) -> Unavailable:
    """The error that a caller gets for one of the database; the details go to the log."""
    _LOG.warning("the database reports: %s", error.orig)
    return Unavailable("DATABASE_UNAVAILABLE", f"the database {dialect.describe(error)}; nothing was changed")


@contextmanager
def unique_name(resource_type: str, table: Table, name: str) -> Iterator[None]:
    """Turn the violation of the table's unique names inside the block into `AlreadyExists`."""
    try:
        yield
    except IntegrityError as error:
        if dialect.violates_unique(error, table, "name"):
            raise AlreadyExists(resource_type, name) from None
        raise
