"""Page tokens of lists.

A token is opaque to callers. It contains a version, a digest of the method and its filters, and the identifier (or the
name of a secret) of the last resource of the previous page. The digest allows the server to reject a token of another
list.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from sandpool_server.domain.errors import FieldViolation, InvalidArgument

DEFAULT_PAGE_SIZE = 100

_VERSION = "1"
_FORM = re.compile(r"1:([0-9a-f]{12}):((?:pool|tpl|sbx)-[0-9a-hjkmnp-tv-z]{20}|[A-Za-z_][A-Za-z0-9_]{0,127})")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """The requested part of a list: up to `size` resources with identifiers (or names) that sort after `after`."""

    size: int
    after: str
    list_digest: str

    async def fetch(
        self, read: Callable[[int, str], Awaitable[list[T]]], id_of: Callable[[T], str]
    ) -> tuple[list[T], str]:
        """Return the resources of the page and the token of the next page, which is empty on the last page.

        Reads one resource more than the page contains, to detect that a full page is the last one.
        """
        found = await read(self.size + 1, self.after)
        if len(found) <= self.size:
            return found, ""
        shown = found[: self.size]
        token = f"{_VERSION}:{self.list_digest}:{id_of(shown[-1])}"
        return shown, base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def page_of(request: Any) -> Page:
    """Return the page of a List request with `page_size` and `page_token`. Raises `InvalidArgument`."""
    digest = _list_digest(request)
    after = ""
    if request.page_token:
        token_digest, after = _read_token(request.page_token)
        if token_digest != digest:
            raise _wrong_token(
                "belongs to another list; use the filters of the previous page, or omit it to get the first page"
            )
    return Page(request.page_size or DEFAULT_PAGE_SIZE, after, digest)


def _list_digest(request: Message) -> str:
    """Return a digest of 12 digits of the method and the filters."""
    filters = type(request)()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    filters.DiscardUnknownFields()
    content = request.DESCRIPTOR.full_name.encode() + b"\0" + filters.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:12]


def _read_token(token: str) -> tuple[str, str]:
    """Return the list's digest and the last identifier from a token."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (UnicodeError, binascii.Error):
        text = ""
    match = _FORM.fullmatch(text)
    if match is None:
        raise _wrong_token("is not a page token; use next_page_token of the previous page, or omit it")
    return match[1], match[2]


def _wrong_token(description: str) -> InvalidArgument:
    return InvalidArgument(FieldViolation("page_token", description))
