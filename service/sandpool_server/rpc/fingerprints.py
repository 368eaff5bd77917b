"""Digests of requests, by which a retry is told from another request under the same `request_id`."""

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

_DIGITS = 32


def fingerprint_of(request: Message, request_id: str, hidden: Iterable[str] = ()) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of what the request asks for, `request_id` itself left out.

    Empty without a `request_id`: nobody will ask. Fields that this server does not know do not count, nor do the
    `hidden` ones: a digest is kept, and from that of a short secret the secret can be guessed.
    """
    if not request_id:
        return ""
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", *hidden):
        content.ClearField(name)
    content.DiscardUnknownFields()
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:_DIGITS]
