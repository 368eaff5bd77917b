"""The settings of the control loop."""

from dataclasses import dataclass, field

from sandpool_server.domain.backoff import BackoffPolicy


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Limits and durations of the control loop. Durations are in seconds."""

    refill_parallelism: int = 2
    """The number of concurrent creations for pools. It is small, so that claims have enough CPU time."""
    cold_parallelism: int = 4
    """The number of concurrent cold starts."""
    removal_parallelism: int = 2
    """The number of concurrent removals of containers."""
    ready_timeout: float = 30.0
    """The time limit for the agent of a started container to respond."""
    engine_wait: float = 5.0
    """The time that a creation waits for the engine, if the engine has not responded since the start of the server."""
    resync_interval: float = 30.0
    """The interval of complete planning rounds, which do not depend on notifications of changes."""
    min_interval: float = 0.005
    """The minimum pause between two planning rounds."""
    max_interval: float = 0.1
    """The maximum pause between two planning rounds; after a long round the pause is longer than the minimum."""
    terminated_retention: float = 3600.0
    """The retention period of terminated sandboxes."""
    request_retention: float = 86400.0
    """The retention period of requests with an id, in which the server detects retries."""
    probe_interval: float = 10.0
    """The interval of the health checks of warm instances."""
    probe_failures: int = 2
    """The number of consecutive failed health checks after which a warm instance is terminated."""
    probe_parallelism: int = 4
    """The number of concurrent health checks."""
    disk_interval: float = 4.0
    """The interval of the disk monitor, on engines that do not enforce disk limits."""
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    """The delays after failures."""

    @property
    def round_interval(self) -> float:
        """The interval of complete planning rounds, which also delete terminated sandboxes after their retention."""
        return min(self.resync_interval, self.terminated_retention)
