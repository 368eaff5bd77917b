"""The system clock."""

import secrets
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `interfaces.Clock` with the clocks of this machine."""

    def now(self) -> datetime:
        """Return the current time as a timezone-aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the performance counter in seconds."""
        return time.perf_counter()

    def random_bits(self) -> int:
        """Return 64 random bits from the operating system."""
        return secrets.randbits(64)
