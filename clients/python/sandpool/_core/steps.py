"""How far something is that takes long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BYTES: Final = "B"
"""The unit of what is counted in bytes."""


@dataclass(frozen=True)
class Step:
    """So much of it is done, of a total that may not be known yet."""

    done: int
    total: int | None
    unit: str = BYTES
