"""Delays after failures: exponential, with a maximum and a random reduction."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The first delay and the longest delay, in seconds."""

    base_secs: float = 1.0
    max_secs: float = 60.0

    def delay(self, consecutive_failures: int, jitter: float) -> timedelta:
        """Return the delay before the next attempt.

        Args:
            consecutive_failures: The number of failures in a row, at least 1.
            jitter: A number in [0, 1) that shortens the delay by up to one half.
        """
        doublings = min(consecutive_failures - 1, 32)
        longest = min(self.max_secs, self.base_secs * 2.0**doublings)
        return timedelta(seconds=longest * (1.0 - jitter / 2.0))
