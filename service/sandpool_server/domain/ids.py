"""Identifiers: a prefix for the type of the resource, followed by 20 characters that sort by creation time.

The characters are lower-case Crockford base32 of 48 bits of milliseconds and 52 random bits. An identifier is a valid
DNS label, so a sandbox can have its own host name. An identifier is not a secret, and access must not depend on it.
"""

from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 20
_RANDOM_BITS = 52

POOL = "pool"
TEMPLATE = "tpl"
SANDBOX = "sbx"


def new_id(prefix: str, now: datetime, random_bits: int) -> str:
    """Return an identifier for a resource that is created at `now`.

    `random_bits` is a random number of at least 52 bits.
    """
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << _RANDOM_BITS) | (random_bits & ((1 << _RANDOM_BITS) - 1))
    digits = [_ALPHABET[(value >> (5 * position)) & 31] for position in reversed(range(_LENGTH))]
    return f"{prefix}-{''.join(digits)}"
