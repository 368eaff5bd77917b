"""Time."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time, so that tests can hold it."""

    def now(self) -> datetime:
        """The present moment, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never goes back."""
        ...

    def random_bits(self) -> int:
        """64 random bits, for identifiers and jitter."""
        ...
