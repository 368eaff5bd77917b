"""Conversion of engine errors into domain errors with helpful messages.

The engine reports errors as text. The patterns below match the messages of Docker Engine 20.10 to 28 and of its
registry client.
"""

import re
import ssl

import requests
import urllib3.exceptions
from docker.errors import APIError, DockerException

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable

_MAX_MESSAGE = 300
_LONG_HEX = re.compile(r"(sha256:)?\b[0-9a-f]{20,}\b")
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_LIMIT = re.compile(
    r"range of cpus|nanocpus|cpu cfs|memory limit|kernel does not support|storage-opt|storage opt|pids limit|pids-limit"
    r"|cgroup.*(cpu|memory|pids)",
    re.IGNORECASE,
)
_NO_IMAGE = re.compile(
    r"no such image|manifest unknown|manifest for .* not found|manifest .* not found|no matching manifest"
    r"|name unknown|pull access denied|repository .* not found|repository does not exist|invalid reference format"
    r"|invalid repository name|repository name must|failed to resolve reference .*: not found",
    re.IGNORECASE,
)
_NO_SHARED = re.compile(r"network \S+ not found|no such network|/\.sandpool/agent", re.IGNORECASE)
_TIMEOUTS = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)


class EngineDown(Exception):
    """The engine cannot be reached, did not respond in time, or sent an invalid response. `message` is for users."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EngineConflict(Exception):
    """An object or the configuration of the engine is in conflict with this server. `message` contains a solution."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PullRefused(Exception):
    """The engine reported an error during a pull. `message` is the engine's message."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def normalised(error: Exception) -> Exception:
    """Convert connection errors to `EngineDown`. Returns `APIError` and errors of other origins unchanged."""
    if isinstance(error, APIError | EngineDown):
        return error
    if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | DockerException | OSError):
        return error
    if _chain_has(error, (ssl.SSLError,)):
        return EngineDown(
            "cannot connect to the container engine with TLS; check its certificate and the files in DOCKER_CERT_PATH"
        )
    if _chain_has(error, _TIMEOUTS):
        return EngineDown("the container engine did not respond in time")
    return EngineDown(
        "the container engine cannot be reached; check that it is running and that its address is correct"
    )


def _chain_has(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Return whether the error or a wrapped error has one of these types.

    Libraries store wrapped errors in different attributes: `args`, `reason`, `__cause__` and `__context__`.
    """
    seen: set[int] = set()
    unseen: list[object] = [error]
    while unseen:
        one = unseen.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, kinds):
            return True
        unseen += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return False


def explanation(error: APIError | PullRefused) -> str:
    """Return the engine's message as one short line without long identifiers."""
    text = error.message if isinstance(error, PullRefused) else str(error.explanation or error.response or error)
    text = re.sub(r"^Error response from daemon: ", "", _LONG_HEX.sub("…", text))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def status(error: APIError) -> int:
    """Return the HTTP status of the engine's response; 0 if there was none."""
    return error.status_code or 0


def image_is_missing(error: Exception) -> bool:
    """Return whether a create request failed because the engine does not have the image."""
    return isinstance(error, APIError) and status(error) == 404 and "no such image" in explanation(error).lower()


def shared_is_missing(error: Exception) -> bool:
    """Return whether a start failed because the network or the agent is missing, for example after a prune."""
    return isinstance(error, APIError) and bool(_NO_SHARED.search(explanation(error)))


def launch_failed(error: Exception, image: str) -> LaunchFailed:
    """Convert an error of a container start or an image pull into `LaunchFailed`."""
    if isinstance(error, LaunchFailed):
        return error
    if isinstance(error, EngineDown):
        return LaunchFailed(FailureReason.ENGINE_UNREACHABLE, error.message)
    if isinstance(error, EngineConflict):
        return LaunchFailed(FailureReason.START_FAILED, error.message)
    if not isinstance(error, APIError | PullRefused):
        return LaunchFailed(FailureReason.START_FAILED, f"cannot start the container: {type(error).__name__}")
    text = explanation(error)
    pulling = isinstance(error, PullRefused)
    if _NO_SPACE.search(text):
        return LaunchFailed(FailureReason.DISK_FULL, "the engine's disk is full; remove unused images and containers")
    if _NO_IMAGE.search(text) or (pulling and status_of(error) == 404):
        return LaunchFailed(
            FailureReason.IMAGE_NOT_FOUND,
            f"the image {image!r} was not found: {text}; check its name and tag, and the engine's access to the "
            "registry",
        )
    if pulling:
        return LaunchFailed(
            FailureReason.PULL_FAILED,
            f"cannot pull the image {image!r}: {text}; check the engine's connection to the registry",
        )
    if _NO_LIMIT.search(text):
        return LaunchFailed(
            FailureReason.LIMIT_UNSUPPORTED,
            f"the engine does not support the resource limits of the container: {text}; change the limits",
        )
    return LaunchFailed(FailureReason.START_FAILED, f"cannot start the container: {text}")


def status_of(error: Exception | None) -> int:
    """Return the HTTP status of an error or of its causes; 0 if there is none."""
    while error is not None:
        if isinstance(error, APIError):
            return status(error)
        cause = error.__cause__
        error = cause if isinstance(cause, Exception) else None
    return 0


def unavailable(error: EngineDown | EngineConflict | APIError) -> Unavailable:
    """Convert an engine error of any other call than a launch into `Unavailable`."""
    if isinstance(error, EngineConflict):
        return Unavailable("ENGINE_CONFLICT", error.message)
    if isinstance(error, EngineDown):
        return Unavailable("ENGINE_UNREACHABLE", error.message)
    return Unavailable("ENGINE_ERROR", f"the container engine returned an error: {explanation(error)}")
