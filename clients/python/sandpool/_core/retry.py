"""When a call is sent again, and after which delay."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How the client retries calls while the server does not respond.

    The client retries only calls for which a retry is safe. The delay before retry n is
    `initial_delay * 2 ** (n - 1)` seconds, limited by `max_delay` and reduced by a random part of up to one half. If
    the server requests a longer delay, the client waits that long. No retry starts after the time limit of the call.
    `RetryPolicy(max_attempts=1)` disables retries.

    Raises:
        ValueError: `max_attempts` is less than 1, or `initial_delay` is not between 0 and `max_delay`.
    """

    max_attempts: int = 5
    """The maximum number of attempts, including the first one."""
    initial_delay: float = 0.1
    """The delay before the first retry in seconds."""
    max_delay: float = 2.0
    """The maximum delay in seconds."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.initial_delay <= self.max_delay:
            raise ValueError(
                f"initial_delay must be between 0 and max_delay ({self.max_delay}), not {self.initial_delay}"
            )

    def pause(
        self,
        attempt: int,
        remaining: float | None,
        retry_after: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the delay in seconds after a failed attempt, or None if no retry is allowed.

        Args:
            attempt: The number of the failed attempt, starting at 1.
            remaining: The remaining time of the call in seconds, or None for no limit.
            retry_after: The delay that the server requested in seconds, or None.
            chance: A source of random numbers from 0 to 1.
        """
        if attempt >= self.max_attempts:
            return None
        exponent = min(attempt - 1, 32)  # Far beyond max_delay; the limit keeps the power small.
        delay = min(self.initial_delay * 2**exponent, self.max_delay) * (1 - chance() / 2)
        delay = max(delay, retry_after or 0.0)
        return delay if remaining is None or delay < remaining else None
