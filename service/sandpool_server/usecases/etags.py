"""Etags: the version of a resource, in a form that callers compare and do not count with."""

import re

from sandpool_server.domain.errors import FieldViolation, InvalidArgument

_FORM = re.compile(r"v([1-9][0-9]{0,17})")


def etag_of(version: int) -> str:
    """The etag of a resource's version (1 and up)."""
    return f"v{version}"


def version_of(etag: str) -> int | None:
    """The version that an etag names; None, for any version, where it is empty. Raises `InvalidArgument` (`etag`)."""
    if not etag:
        return None
    match = _FORM.fullmatch(etag)
    if match is None:
        raise InvalidArgument(
            FieldViolation("etag", "is not an etag of this server; send the one that the resource came with, or none")
        )
    return int(match[1])
