"""Digests of requests, which distinguish a retry from a different request with the same `request_id`."""

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

_DIGITS = 32


def fingerprint_of(request: Message, request_id: str, hidden: Iterable[str] = ()) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 digest of a request.

    The digest excludes `request_id`, unknown fields and the `hidden` fields. Hidden fields are secrets: the digest is
    stored, and a short secret could be guessed from it. Returns an empty string without a `request_id`, because the
    digest is not needed then.
    """
    if not request_id:
        return ""
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", *hidden):
        content.ClearField(name)
    content.DiscardUnknownFields()
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:_DIGITS]
