"""Arguments of other products as arguments of sandpool."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from sandpool import UNSET
from sandpool._core.arguments import Maybe, Unset, is_given, strings

ObjectT = TypeVar("ObjectT")

_MIB: Final = 1024 * 1024
_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)")


def rename(options: Any, **names: dict[str, object]) -> dict[str, Any]:
    """Return arguments with those of another product added.

    Args:
        options: The arguments that have the same name in sandpool.
        names: For each name in sandpool, the arguments of the other product that mean the same.

    Raises:
        TypeError: One argument is given under two names.
    """
    arguments = dict(options)
    for name, others in names.items():
        given = {other: value for other, value in others.items() if value is not UNSET}
        if is_given(arguments.get(name)):
            given = {name: arguments[name], **given}
        if len(given) > 1:
            raise TypeError(f"{' and '.join(given)} mean the same; give one of them")
        if given:
            arguments[name] = next(iter(given.values()))
    return arguments


def reference(**names: str | None) -> str:
    """Return the identifier or name of a resource, given under one of several argument names.

    Raises:
        TypeError: None of them or more than one is given.
    """
    given = [value for value in names.values() if value is not None]
    if len(given) != 1:
        raise TypeError(f"give exactly one of {' and '.join(names)}, which is the identifier or name")
    return given[0]


def command_of(command: str | Sequence[str], args: Sequence[str] | None) -> str | Sequence[str]:
    """Return a program and its arguments as one list, or the command if there are no `args`.

    Raises:
        TypeError: `args` is given with a command that is a list, or it is one string.
    """
    arguments = strings("args", args)
    if arguments is None:
        return command
    if not isinstance(command, str):
        raise TypeError("args requires a command that is one string; add the arguments to the list instead")
    return [command, *arguments]


def cpus(value: Maybe[str | float | None]) -> Maybe[float | None]:
    """Return the number of CPUs for a quantity such as `2`, `"0.5"` or `"500m"`. Raise ValueError for another value."""
    if value is None or isinstance(value, (int, float, Unset)):
        return value
    found = _QUANTITY.fullmatch(value)
    if found is None or found[2] not in {"", "m"}:
        raise ValueError(f"cpu={value!r} is not a number of CPUs; use a value like 2, '0.5' or '500m'")
    return float(found[1]) / (1000 if found[2] else 1)


def mebibytes(name: str, value: Maybe[str | int | None]) -> Maybe[int | None]:
    """Return the number of MiB for a number of bytes such as `"512Mi"` or `"2G"`.

    Raises:
        ValueError: The value is not a whole number of MiB.
    """
    if value is None or isinstance(value, Unset):
        return value
    found = _QUANTITY.fullmatch(str(value))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{name}={value!r} is not a number of bytes; use a value like '512Mi' or '2Gi'")
    amount = float(found[1]) * _UNITS[found[2]] / _MIB
    if not amount.is_integer():
        raise ValueError(f"{name}={value!r} is not a whole number of MiB; use a value like '512Mi' or '2Gi'")
    return int(amount)


def copied_as(kind: type[ObjectT], value: object) -> ObjectT:
    """Return a copy of a dataclass object as an object of a subclass that has the same fields."""
    return kind(**vars(value))
