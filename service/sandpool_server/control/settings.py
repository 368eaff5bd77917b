"""What the control loop may be told."""

from dataclasses import dataclass, field

from sandpool_server.domain.backoff import BackoffPolicy


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Limits and times, in seconds.

    `refill_parallelism` is how many members are created at once to fill pools, `cold_parallelism` how many for callers
    who wait; the first is kept small so that claims have CPU left. `ready_timeout` is how long a started container may
    take until its agent answers. `resync_interval` is how often everything is looked at even if nothing seems to
    happen, `min_interval` the shortest time between two rounds of planning. Ended sandboxes stay visible for
    `ended_retention`, answers to named requests are kept for `request_retention`.
    """

    refill_parallelism: int = 2
    cold_parallelism: int = 4
    removal_parallelism: int = 2
    ready_timeout: float = 30.0
    resync_interval: float = 30.0
    min_interval: float = 0.01
    ended_retention: float = 3600.0
    request_retention: float = 86400.0
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
