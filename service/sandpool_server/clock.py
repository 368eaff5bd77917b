"""The real time."""

import secrets
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `ports.Clock` on this machine's clocks."""

    def now(self) -> datetime:
        """The present moment, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the performance counter."""
        return time.perf_counter()

    def random_bits(self) -> int:
        """64 bits from the operating system's source."""
        return secrets.randbits(64)
