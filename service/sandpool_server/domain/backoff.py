"""How long to wait after failures: exponential, bounded, jittered downwards."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """Seconds: the first wait, and the longest."""

    base_secs: float = 1.0
    max_secs: float = 60.0

    def delay(self, consecutive_failures: int, jitter: float) -> timedelta:
        """The wait after that many failures in a row (at least 1); `jitter` in [0, 1) shortens it by up to a half."""
        doublings = min(consecutive_failures - 1, 32)
        longest = min(self.max_secs, self.base_secs * 2.0**doublings)
        return timedelta(seconds=longest * (1.0 - jitter / 2.0))
