"""The words of the contract as enums. Members are strings: `PoolState.READY == "ready"`."""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A string that is one of a few. Printed and formatted as its value by every version of Python.

    Every subclass of what a server says has UNKNOWN: what a server that is newer than this client says.
    """

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(str(self.value), spec)


class PoolState(Word):
    """A pool's condition."""

    UNKNOWN = "unknown"
    READY = "ready"
    """As many containers are ready as wanted."""
    FILLING = "filling"
    """Fewer are ready than wanted, and more are on their way."""
    DEGRADED = "degraded"
    """Fewer are ready than wanted, and the last attempt to create one failed: see `PoolStatus.last_error`."""
    PAUSED = "paused"
    """The pool is paused: nothing is created for it and nothing taken from it."""
    DRAINED = "drained"
    """The pool is drained: paused, and it keeps nothing ready."""


class PullPolicy(Word):
    """When a pool's image is pulled."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    """When the engine does not have it."""
    ALWAYS = "always"
    """Before each container is created; where the registry does not answer, creation fails."""
    NEVER = "never"
    """Never: the engine must have it."""


class DiskEnforcement(Word):
    """Who sees to it that a container keeps to its `ephemeral_disk_mb`."""

    UNKNOWN = "unknown"
    ENGINE = "engine"
    """The engine's storage refuses to write more."""
    WATCHED = "watched"
    """The server looks every few seconds and ends a sandbox that is over; no single file grows over the limit."""


class WhenEmpty(Word):
    """What a creation does when no container is ready. Given to a call, never answered."""

    START_COLD = "start_cold"
    """Start a container; QuotaExceededError where `max_containers` leaves no room."""
    WAIT = "wait"
    """Wait in line, first come, first served; ResourceTimeoutError after `wait_secs`."""
    FAIL = "fail"
    """Fail at once with PoolEmptyError."""


class PoolErrorReason(Word):
    """Why a container could not be created."""

    UNKNOWN = "unknown"
    IMAGE_NOT_FOUND = "image_not_found"
    PULL_FAILED = "pull_failed"
    START_FAILED = "start_failed"
    NOT_READY = "not_ready"
    ENGINE_UNREACHABLE = "engine_unreachable"
    DISK_FULL = "disk_full"
    LIMIT_UNSUPPORTED = "limit_unsupported"


class PoolEventType(Word):
    """What an event of `watch_pools` tells."""

    UNKNOWN = "unknown"
    PRESENT = "present"
    """The state at the beginning of the watch."""
    CHANGED = "changed"
    """The pool is new, or something of it changed."""
    DELETED = "deleted"
    """The pool is gone."""


class SandboxState(Word):
    """Where a sandbox is in its life."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


class SandboxStart(Word):
    """How a sandbox got its container."""

    UNKNOWN = "unknown"
    WARM = "warm"
    """A ready container was taken from a pool."""
    COLD = "cold"
    """A container was started for the sandbox."""


class SandboxEndReason(Word):
    """Why a sandbox ended."""

    UNKNOWN = "unknown"
    DELETED = "deleted"
    TIMED_OUT = "timed_out"
    EXITED = "exited"
    OOM_KILLED = "oom_killed"
    DISK_EXCEEDED = "disk_exceeded"
    LOST = "lost"
    FAILED = "failed"


class CommandEndReason(Word):
    """How a command ended."""

    UNKNOWN = "unknown"
    EXITED = "exited"
    """By itself, with an exit code."""
    SIGNALED = "signaled"
    """By a signal."""
    OOM_KILLED = "oom_killed"
    """By the kernel, because the sandbox ran out of memory."""
    TIMED_OUT = "timed_out"
    """Its timeout passed; it was killed with every process that it had started."""
    KILLED = "killed"
    """A caller killed it, with every process that it had started."""
    IDLE_TIMED_OUT = "idle_timed_out"
    """No client was attached for its idle timeout."""
    DISCONNECTED = "disconnected"
    """Its last client went away and it was to be killed then."""
    SHUT_DOWN = "shut_down"
    """The sandbox was being stopped."""


class OutputStream(Word):
    """Where something was printed."""

    UNKNOWN = "unknown"
    STDOUT = "stdout"
    """Standard output, and everything that is printed to a terminal."""
    STDERR = "stderr"


class ProcessState(Word):
    """Where a process is in its life."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    """A service that has ended and is started again in a moment."""
    ENDED = "ended"


class ProcessHealth(Word):
    """What a service's health check found."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    """Not tried often enough yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class RestartPolicy(Word):
    """When a service is started again."""

    UNKNOWN = "unknown"
    NEVER = "never"
    ON_FAILURE = "on_failure"
    """When it ended by a signal or with an exit code other than 0."""
    ALWAYS = "always"
    """Whenever it ended by itself."""


class OutputOverflow(Word):
    """What happens when a process prints more than is kept and some of it was not read yet. Given, never answered."""

    WAIT_ATTACHED = "wait_attached"
    """The process waits for the slowest client that is attached; with none, the oldest bytes go."""
    DROP_OLDEST = "drop_oldest"
    """The oldest bytes go, and the process never waits."""
    WAIT = "wait"
    """The process waits until a client has attached and read them."""


class StdinMode(Word):
    """Whether a process's standard input can be written to. Given, never answered."""

    CLOSED = "closed"
    """It is empty."""
    PIPE = "pipe"
    """It can be written to."""


class FileType(Word):
    """What a path names."""

    UNKNOWN = "unknown"
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    """A device, a socket or a named pipe."""


class FileChange(Word):
    """What happened to a path that is watched."""

    UNKNOWN = "unknown"
    CREATED = "created"
    """It came to be, or was moved here."""
    MODIFIED = "modified"
    """Its content changed."""
    REMOVED = "removed"
    """It is gone, or was moved away."""
    ATTRIBUTES = "attributes"
    """Its mode, owner or times changed."""
    OVERFLOW = "overflow"
    """More happened than could be followed: look at the folder again."""


class WriteMode(Word):
    """What a write does with a file that is there. Given, never answered."""

    REPLACE = "replace"
    """Replace it by the new one, at once."""
    CREATE = "create"
    """Refuse with ResourceAlreadyExistsError."""
    APPEND = "append"
    """Write at its end when all has arrived."""
