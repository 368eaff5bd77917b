"""Page tokens: where a list goes on.

A token is opaque to callers. It holds a version, a digest of the method and its filters, and the identifier of the last
resource of the page before, of a secret its name; so that one that was made for another list is refused and not
misread.
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
    """Which part of a list is asked for: up to `size` resources whose identifiers (names) sort after `after`."""

    size: int
    after: str
    list_digest: str

    async def fetch(
        self, read: Callable[[int, str], Awaitable[list[T]]], id_of: Callable[[T], str]
    ) -> tuple[list[T], str]:
        """The page's resources and the token of the next page, empty when this is the last.

        Reads one more than the page holds, so that a full last page is known for what it is.
        """
        found = await read(self.size + 1, self.after)
        if len(found) <= self.size:
            return found, ""
        shown = found[: self.size]
        token = f"{_VERSION}:{self.list_digest}:{id_of(shown[-1])}"
        return shown, base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def page_of(request: Any) -> Page:
    """The page that a List request (with `page_size` and `page_token`) asks for. Raises `InvalidArgument`."""
    digest = _list_digest(request)
    after = ""
    if request.page_token:
        made_for, after = _read_token(request.page_token)
        if made_for != digest:
            raise _wrong_token("belongs to another list; repeat the filters of the page before, or leave it out")
    return Page(request.page_size or DEFAULT_PAGE_SIZE, after, digest)


def _list_digest(request: Message) -> str:
    """Twelve digits that tell one method and its filters from another's."""
    filters = type(request)()
    filters.CopyFrom(request)
    filters.ClearField("page_size")
    filters.ClearField("page_token")
    filters.DiscardUnknownFields()
    content = request.DESCRIPTOR.full_name.encode() + b"\0" + filters.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:12]


def _read_token(token: str) -> tuple[str, str]:
    """The list's digest and the last identifier."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (UnicodeError, binascii.Error):
        text = ""
    match = _FORM.fullmatch(text)
    if match is None:
        raise _wrong_token("is not a page token of this server; send next_page_token of the page before, or none")
    return match[1], match[2]


def _wrong_token(description: str) -> InvalidArgument:
    return InvalidArgument(FieldViolation("page_token", description))
