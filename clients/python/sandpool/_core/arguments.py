"""What the builders of requests share: arguments that were not given, other names of arguments, wrong mixtures."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypeVar

ValueT = TypeVar("ValueT")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
"""The default of an argument of an update: leave this field as it is. None means: back to the field's default."""

Maybe: TypeAlias = ValueT | Literal[Unset.UNSET]
"""A value, or not given."""


def fresh_request_id() -> str:
    """A name for one request, so that the server tells a repetition of it from a second one."""
    return str(uuid.uuid4())


def given(**arguments: object) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def changed(**arguments: object) -> dict[str, Any]:
    """Those that are not UNSET. Raises TypeError where that leaves none."""
    found = {name: value for name, value in arguments.items() if value is not UNSET}
    if not found:
        raise TypeError(f"nothing to change; give at least one of {', '.join(arguments)}")
    return found


def one_of(absent: object, **names: ValueT) -> ValueT:
    """The argument that was given under one of several names, else `absent`. Raises TypeError for two of them."""
    found = {name: value for name, value in names.items() if value is not absent}
    if len(found) > 1:
        raise TypeError(f"{' and '.join(found)} mean the same; give one of them")
    return next(iter(found.values()), next(iter(names.values())))


def ref(argument: str, value: str | None, name: str | None) -> str:
    """Which resource is meant: its identifier or name, given as `argument` or, as in the template style, as `name`.

    Raises TypeError for none of them and for both.
    """
    found = one_of(None, **{argument: value, "name": name})
    if found is None:
        raise TypeError(f"say which is meant: give {argument}, its identifier or name")
    return found


def ref_and_name(argument: str, value: str | None, name: Maybe[str | None]) -> tuple[str, Maybe[str | None]]:
    """Which resource is to be changed, and its new name: where `argument` is not given, `name` says which it is."""
    if value is not None:
        return value, name
    return ref(argument, None, None if name is UNSET else name), UNSET


def words(name: str, value: Iterable[str] | None) -> list[str] | None:
    """A list of strings. Raises TypeError for one string, which would otherwise count as a list of its letters."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a list of strings, not one string: {name}=[{value!r}]")
    return None if value is None else list(value)


def text(name: str, value: str) -> str:
    """A string that can be sent. Errors do not show it, for it may be secret; protobuf's own would.

    Raises TypeError for what is no string, ValueError for half a character, which is no text.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if _LONE_SURROGATE.search(value):
        raise ValueError(f"{name} holds half a character (a lone surrogate), which is no text")
    return value


def pairs(name: str, value: Mapping[str, str] | None) -> dict[str, str] | None:
    """A mapping of strings to strings. Errors name keys and never show values."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of strings to strings, not {type(value).__name__}")
    return {text(f"a key of {name}", key): text(f"{name}[{key!r}]", item) for key, item in value.items()}


def refuse(why: str, **arguments: object) -> None:
    """Raise TypeError, naming the arguments that are not None, where there are such."""
    wrong = [name for name, value in arguments.items() if value is not None]
    if wrong:
        raise TypeError(f"{', '.join(wrong)}: {why}")
