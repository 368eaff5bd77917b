"""Amounts as Kubernetes and the template style write them: `500m` of a CPU, `512Mi` of memory."""

from __future__ import annotations

import re
from typing import Final

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
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)")


def cpus(value: str | float | None) -> float | None:
    """CPUs of `2`, `"0.5"` or `"500m"`. Raises ValueError for anything else."""
    if value is None or isinstance(value, (int, float)):
        return value
    found = _AMOUNT.fullmatch(value)
    if found is None or found[2] not in {"", "m"}:
        raise ValueError(f"cpu={value!r} is no number of CPUs; write 2, '0.5' or '500m'")
    return float(found[1]) / (1000 if found[2] else 1)


def mebibytes(name: str, value: str | int | None) -> int | None:
    """MiB of a number of bytes such as `"512Mi"` or `"2G"`. Raises ValueError for what is no whole number of MiB."""
    if value is None:
        return None
    found = _AMOUNT.fullmatch(str(value))
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{name}={value!r} is no amount of bytes; write '512Mi' or '2Gi'")
    amount = float(found[1]) * _UNITS[found[2]] / _MIB
    if not amount.is_integer():
        raise ValueError(f"{name}={value!r} is no whole number of MiB; write '512Mi' or '2Gi'")
    return int(amount)
