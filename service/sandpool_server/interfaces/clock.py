"""The interface to the time and to random numbers."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """A source of time and random numbers that tests can replace."""

    def now(self) -> datetime:
        """Return the current time as an aware UTC datetime."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary point. The value never decreases."""
        ...

    def random_bits(self) -> int:
        """Return 64 random bits, for identifiers and jitter."""
        ...
