"""Identifiers: a prefix that says what it is, then 20 characters that sort by the time of making.

Lower-case Crockford base32 of 48 bits of milliseconds and 52 random bits. An identifier is a DNS label, so that a
sandbox can have a host name of its own. It is no secret: nothing rests on its being hard to guess.
"""

from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 20
_RANDOM_BITS = 52

POOL = "pool"
TEMPLATE = "tpl"
SANDBOX = "sbx"


def new_id(prefix: str, now: datetime, random_bits: int) -> str:
    """Make an identifier for something made at `now`; `random_bits` is a random number of at least 52 bits."""
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds << _RANDOM_BITS) | (random_bits & ((1 << _RANDOM_BITS) - 1))
    digits = [_ALPHABET[(value >> (5 * place)) & 31] for place in reversed(range(_LENGTH))]
    return f"{prefix}-{''.join(digits)}"
