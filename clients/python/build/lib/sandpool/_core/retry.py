"""When a call is repeated, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How calls that may be repeated are repeated while the server does not answer.

    The pause before repetition n is `initial_delay * 2 ** (n - 1)` seconds, at most `max_delay`, less a random share of
    up to a half so that many clients do not come back at once; longer where the server says when to come back. Nothing
    is repeated beyond the call's own timeout. `RetryPolicy(max_attempts=1)` never repeats.
    """

    max_attempts: int = 5
    initial_delay: float = 0.1
    max_delay: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.initial_delay <= self.max_delay:
            raise ValueError("initial_delay must be between 0 and max_delay")

    def pause(
        self,
        attempt: int,
        remaining: float,
        retry_after: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait after the failure of attempt number `attempt` (from 1), or None to give up.

        `remaining` is what is left of the call's timeout, `retry_after` what the server asked for, `chance` a source of
        numbers from 0 to 1.
        """
        if attempt >= self.max_attempts:
            return None
        exponent = min(attempt - 1, 32)  # max_delay is reached long before; keeps the power small
        delay = min(self.initial_delay * 2**exponent, self.max_delay) * (1 - chance() / 2)
        delay = max(delay, retry_after or 0.0)
        return delay if delay < remaining else None
