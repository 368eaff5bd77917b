"""What the control loop may be told."""

from dataclasses import dataclass, field

from sandpool_server.domain.backoff import BackoffPolicy


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Limits and times, in seconds.

    `refill_parallelism` is how many members are created at once to fill pools, `cold_parallelism` how many for callers
    who wait; the first is kept small so that claims have CPU left. `ready_timeout` is how long a started container may
    take until its agent answers, `engine_wait` how long a start waits for an engine that has not answered since the
    server began. `resync_interval` is how often everything is looked at even if nothing seems to happen. Between two
    rounds of planning passes at least `min_interval`, more after a long round, but for its sake no more than
    `max_interval`. Ended sandboxes stay visible for `ended_retention`, answers to named requests are kept for
    `request_retention`. Ready members are probed every `probe_interval` and given up after `probe_failures` failures in
    a row; disks are looked at every `disk_interval` where the engine does not enforce their limits.
    """

    refill_parallelism: int = 2
    cold_parallelism: int = 4
    removal_parallelism: int = 2
    ready_timeout: float = 30.0
    engine_wait: float = 5.0
    resync_interval: float = 30.0
    min_interval: float = 0.005
    max_interval: float = 0.1
    ended_retention: float = 3600.0
    request_retention: float = 86400.0
    probe_interval: float = 10.0
    probe_failures: int = 2
    probe_parallelism: int = 4
    disk_interval: float = 4.0
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)

    @property
    def round_interval(self) -> float:
        """How often everything is looked at: often enough that ended sandboxes go about when they should."""
        return min(self.resync_interval, self.ended_retention)
