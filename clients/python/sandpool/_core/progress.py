"""The progress of a long operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BYTES: Final = "B"
"""The unit of a progress in bytes."""


@dataclass(frozen=True)
class Step:
    """How much of an operation is done."""

    done: int
    """The amount that is done."""
    total: int | None
    """The whole amount, or None if it is not known."""
    unit: str = BYTES
    """The unit of both amounts."""
