"""Etags: the version of a resource as an opaque string."""

import re

from sandpool_server.domain.errors import FieldViolation, InvalidArgument

_FORM = re.compile(r"v([1-9][0-9]{0,17})")


def etag_of(version: int) -> str:
    """Return the etag of a version, which is at least 1."""
    return f"v{version}"


def version_of(etag: str) -> int | None:
    """Return the version of an etag; None, which means any version, for an empty etag.

    Raises:
        InvalidArgument: (field `etag`) the text is not an etag.
    """
    if not etag:
        return None
    match = _FORM.fullmatch(etag)
    if match is None:
        raise InvalidArgument(
            FieldViolation("etag", "is not an etag of this server; use the etag of the resource, or leave it empty")
        )
    return int(match[1])
