"""The enums of the API. Enum members are strings: `PoolState.READY == "ready"`."""

from __future__ import annotations

from enum import Enum


class ApiEnum(str, Enum):
    """A string enum whose enum members print and format as their value on every version of Python.

    Enums that the server returns have the enum member UNKNOWN. It stands for a value that a newer server sent and that
    this version of the client does not know.
    """

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self.value), spec)


class PoolState(ApiEnum):
    """State of a pool."""

    UNKNOWN = "unknown"
    READY = "ready"
    """The desired number of containers is warm."""
    FILLING = "filling"
    """Fewer containers than desired are warm; more are being created."""
    DEGRADED = "degraded"
    """Fewer containers than desired are warm, and the last attempt to create one failed; see `last_error`."""
    PAUSED = "paused"
    """The pool is paused: no containers are created and no sandboxes are claimed."""
    DRAINED = "drained"
    """The pool is drained: it is paused and has no warm containers."""


class PullPolicy(ApiEnum):
    """When the engine pulls an image."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    """When the engine does not have the image."""
    ALWAYS = "always"
    """Before each container is created. Creation fails while the registry is not reachable."""
    NEVER = "never"
    """Never. The engine must have the image."""


class DiskEnforcement(ApiEnum):
    """How the limit on a container's disk space is enforced."""

    UNKNOWN = "unknown"
    ENGINE = "engine"
    """The engine's storage rejects writes above the limit."""
    BEST_EFFORT = "best_effort"
    """The server measures the usage every few seconds and terminates a sandbox above its limit."""


class WhenEmpty(ApiEnum):
    """The behaviour of a create call when no warm container is available. Only accepted, never returned."""

    START_COLD = "start_cold"
    """Start a container. Raises QuotaExceededError if `max_containers` leaves no room."""
    WAIT = "wait"
    """Wait in the queue, in FIFO order. Raises ResourceTimeoutError after `queue_timeout`."""
    FAIL = "fail"
    """Raise PoolEmptyError immediately."""


class PoolErrorReason(ApiEnum):
    """Why a container could not be created."""

    UNKNOWN = "unknown"
    IMAGE_NOT_FOUND = "image_not_found"
    """The registry does not have the image or requires credentials for it."""
    PULL_FAILED = "pull_failed"
    """The image exists but could not be pulled."""
    START_FAILED = "start_failed"
    """The engine could not create or start the container, or its entrypoint could not be started."""
    READINESS_TIMEOUT = "readiness_timeout"
    """The container started but did not become ready in time."""
    ENGINE_UNREACHABLE = "engine_unreachable"
    """The engine did not respond."""
    DISK_FULL = "disk_full"
    """The engine has no free disk space."""
    LIMIT_UNSUPPORTED = "limit_unsupported"
    """The engine cannot enforce a requested limit."""


class PoolEventType(ApiEnum):
    """Kind of an event of `watch_pools`."""

    UNKNOWN = "unknown"
    CURRENT = "current"
    """The state of the pool at the start of the watch."""
    CHANGED = "changed"
    """The pool was created or changed."""
    DELETED = "deleted"
    """The pool was deleted."""


class SandboxState(ApiEnum):
    """State of a sandbox."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    """The container is being started."""
    RUNNING = "running"
    """The sandbox runs commands."""
    TERMINATING = "terminating"
    """The container is being removed."""
    TERMINATED = "terminated"
    """The container is removed."""


class StartType(ApiEnum):
    """How a sandbox got its container."""

    UNKNOWN = "unknown"
    WARM = "warm"
    """The sandbox was assigned a warm container of a pool."""
    COLD = "cold"
    """A container was started for the sandbox."""


class TerminationReason(ApiEnum):
    """Why a sandbox terminated."""

    UNKNOWN = "unknown"
    DELETED = "deleted"
    """A caller deleted it."""
    TIMED_OUT = "timed_out"
    """Its lifetime passed."""
    EXITED = "exited"
    """The first process of its container exited."""
    OOM_KILLED = "oom_killed"
    """Its container ran out of memory."""
    DISK_EXCEEDED = "disk_exceeded"
    """It used more disk space than its limit."""
    LOST = "lost"
    """Its container disappeared: another process removed it, or the engine lost it."""
    FAILED = "failed"
    """It could not be started."""


class ExitReason(ApiEnum):
    """How a command or process exited."""

    UNKNOWN = "unknown"
    EXITED = "exited"
    """It exited by itself with an exit code."""
    SIGNALED = "signaled"
    """A signal terminated it."""
    OOM_KILLED = "oom_killed"
    """The kernel killed it because the sandbox ran out of memory."""
    TIMED_OUT = "timed_out"
    """Its timeout passed. It was killed with all its descendants."""
    KILLED = "killed"
    """A caller killed it with all its descendants."""
    IDLE_TIMED_OUT = "idle_timed_out"
    """No client was attached for its idle timeout. It was killed with all its descendants."""
    DISCONNECTED = "disconnected"
    """Its last client disconnected and `kill_on_disconnect` was set. It was killed with all its descendants."""
    SHUT_DOWN = "shut_down"
    """The sandbox was being terminated."""


class OutputStream(ApiEnum):
    """Output stream of a process."""

    UNKNOWN = "unknown"
    STDOUT = "stdout"
    """Standard output. With a terminal, all output of the process."""
    STDERR = "stderr"
    """Standard error."""


class ProcessState(ApiEnum):
    """State of a process."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    """The process runs."""
    BACKING_OFF = "backing_off"
    """A run of the service exited; the next run starts after a delay."""
    EXITED = "exited"
    """The process exited."""


class ProcessHealth(ApiEnum):
    """Result of a service's health check."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    """No check succeeded yet, and fewer than `failure_threshold` checks failed."""
    HEALTHY = "healthy"
    """The last check succeeded."""
    UNHEALTHY = "unhealthy"
    """At least `failure_threshold` consecutive checks failed."""


class RestartPolicy(ApiEnum):
    """When a service is restarted."""

    UNKNOWN = "unknown"
    NEVER = "never"
    """The service is never restarted."""
    ON_FAILURE = "on_failure"
    """The service is restarted when a signal terminated it or its exit code was not 0."""
    ALWAYS = "always"
    """The service is restarted whenever it exits by itself."""


class OutputOverflow(ApiEnum):
    """The behaviour when a process writes more output than the buffer can hold. Only accepted, never returned."""

    WAIT_ATTACHED = "wait_attached"
    """The process waits for the slowest attached client. Without an attached client, the oldest bytes are dropped."""
    DROP_OLDEST = "drop_oldest"
    """The oldest bytes are dropped; the process never waits."""
    WAIT = "wait"
    """The process waits until a client has attached and received the bytes."""


class FileType(ApiEnum):
    """Type of a file system object."""

    UNKNOWN = "unknown"
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a socket or a named pipe."""


class FileChange(ApiEnum):
    """Change of a watched path."""

    UNKNOWN = "unknown"
    CREATED = "created"
    """The path was created, or moved into the watched directory."""
    MODIFIED = "modified"
    """The content changed."""
    REMOVED = "removed"
    """The path was removed, or moved out of the watched directory."""
    ATTRIBUTES = "attributes"
    """The mode, the owner or the times changed."""
    OVERFLOW = "overflow"
    """More changes occurred than could be reported. List the directory again."""


class WriteMode(ApiEnum):
    """The behaviour of a write when the file exists. Only accepted, never returned."""

    REPLACE = "replace"
    """Replace the file atomically."""
    CREATE = "create"
    """Raise ResourceAlreadyExistsError."""
    APPEND = "append"
    """Append the bytes after all of them were received."""
