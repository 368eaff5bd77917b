"""Helpers that check arguments and build requests from them."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from numbers import Real
from typing import Any, Final, Literal, TypeAlias, TypeVar

from google.protobuf.duration_pb2 import Duration

from sandpool._models.enums import ApiEnum

ValueT = TypeVar("ValueT")
EnumT = TypeVar("EnumT", bound=ApiEnum)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NANOS: Final = 1_000_000_000


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""The value of an argument that is not given.

In an update it leaves the field unchanged, while None resets the field to its default. As `request_timeout` it means
the timeout of the client, while None means no limit.
"""

Maybe: TypeAlias = ValueT | Literal[Unset.UNSET]
"""A value, or not given."""

Timeout: TypeAlias = float | Literal[Unset.UNSET] | None
"""Seconds, None for no limit, or UNSET for the default."""


def new_request_id() -> str:
    """Return a unique identifier of a request, so that the server recognizes a retry of it."""
    return str(uuid.uuid4())


def present(**arguments: object) -> dict[str, Any]:
    """Return the arguments that are neither None nor UNSET."""
    return {name: value for name, value in arguments.items() if value is not None and value is not UNSET}


def is_given(value: object) -> bool:
    """Return whether a value is neither None nor UNSET."""
    return value is not None and value is not UNSET


def reject_unknown(function: str, arguments: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError if an argument is not known."""
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}")


def reject(why: str, **arguments: object) -> None:
    """Raise TypeError that names the given arguments, if there are any."""
    wrong = [name for name, value in arguments.items() if is_given(value)]
    if wrong:
        raise TypeError(f"{' and '.join(wrong)} not allowed: {why}")


def strings(name: str, value: Iterable[str] | None) -> list[str] | None:
    """Return a list of strings. Raise TypeError for one string, which would count as a list of its characters."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a list of strings, not one string: use {name}=[{value!r}]")
    return None if value is None else list(value)


def text(name: str, value: str) -> str:
    """Return a string that can be sent. Errors do not contain the value, because it may be secret.

    Raises:
        TypeError: The value is not a string.
        ValueError: The value contains a lone surrogate, which cannot be encoded.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if _LONE_SURROGATE.search(value):
        raise ValueError(f"{name} contains a lone surrogate, which is not valid text")
    return value


def string_map(name: str, value: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return a mapping of strings to strings. Errors contain keys but no values."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of strings to strings, not {type(value).__name__}")
    return {text(f"a key of {name}", key): text(f"{name}[{key!r}]", item) for key, item in value.items()}


def duration(name: str, value: float | None) -> Duration | None:
    """Return a Duration for a number of seconds.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not finite.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number of seconds, not {value}; use None for no limit")
    total = round(value * _NANOS)
    sign = -1 if total < 0 else 1
    seconds, nanos = divmod(abs(total), _NANOS)
    return Duration(seconds=sign * seconds, nanos=sign * nanos)


def choice(name: str, kind: type[EnumT], value: EnumT | str) -> EnumT:
    """Return the member of an enum. Raise ValueError that lists the allowed values for any other value."""
    try:
        found = kind(value)
    except ValueError:
        found = None
    if found is None or found.value == "unknown":
        allowed = ", ".join(repr(member.value) for member in kind if member.value != "unknown")
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
    return found
