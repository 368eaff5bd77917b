"""What an engine's refusal or silence means for a caller, in words that help a person.

The engine says things in prose; the patterns below are those of Docker Engine 20.10 to 28 and of its registry client.
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
    """The engine did not answer: not reachable, not in time, or nothing that makes sense. `message` is for a person."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EngineConflict(Exception):
    """Something on the engine is in the way and is not ours to change. `message` says what a person can do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PullRefused(Exception):
    """The engine reported an error in the course of a pull; `message` is the engine's own."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def normalised(error: Exception) -> Exception:
    """Tell an answer of the engine (`APIError`, and what is not the engine's at all) from no answer (`EngineDown`)."""
    if isinstance(error, APIError | EngineDown):
        return error
    if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | DockerException | OSError):
        return error
    if _chain_has(error, (ssl.SSLError,)):
        return EngineDown(
            "the container engine cannot be reached by TLS; check its certificate and the files in DOCKER_CERT_PATH"
        )
    if _chain_has(error, _TIMEOUTS):
        return EngineDown("the container engine did not answer in time")
    return EngineDown("the container engine cannot be reached; check that it runs and that its address is right")


def _chain_has(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether the error, or what it wraps, is of one of these kinds; libraries wrap in args, reason and cause alike."""
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
    """What the engine said, on one short line without long identifiers."""
    text = error.message if isinstance(error, PullRefused) else str(error.explanation or error.response or error)
    text = re.sub(r"^Error response from daemon: ", "", _LONG_HEX.sub("…", text))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def status(error: APIError) -> int:
    """The HTTP status of the engine's answer; 0 when there was none."""
    return error.status_code or 0


def image_is_missing(error: Exception) -> bool:
    """Whether a create was refused because the engine does not have the image."""
    return isinstance(error, APIError) and status(error) == 404 and "no such image" in explanation(error).lower()


def shared_is_missing(error: Exception) -> bool:
    """Whether a start was refused because the network or the agent is not there, as after a prune of the engine."""
    return isinstance(error, APIError) and bool(_NO_SHARED.search(explanation(error)))


def launch_failed(error: Exception, image: str) -> LaunchFailed:
    """Say why a container could not be made, or an image not be had."""
    if isinstance(error, LaunchFailed):
        return error
    if isinstance(error, EngineDown):
        return LaunchFailed(FailureReason.ENGINE_UNREACHABLE, error.message)
    if isinstance(error, EngineConflict):
        return LaunchFailed(FailureReason.START_FAILED, error.message)
    if not isinstance(error, APIError | PullRefused):
        return LaunchFailed(FailureReason.START_FAILED, f"the container could not be started: {type(error).__name__}")
    said = explanation(error)
    pulling = isinstance(error, PullRefused)
    if _NO_SPACE.search(said):
        return LaunchFailed(
            FailureReason.DISK_FULL, "the engine's disk is full; free space there, or remove images and containers"
        )
    if _NO_IMAGE.search(said) or (pulling and status_of(error) == 404):
        return LaunchFailed(
            FailureReason.IMAGE_NOT_FOUND,
            f"the image {image!r} was not found; check its name and tag, and that the engine may pull it ({said})",
        )
    if pulling:
        return LaunchFailed(FailureReason.PULL_FAILED, f"the image {image!r} could not be pulled: {said}")
    if _NO_LIMIT.search(said):
        return LaunchFailed(
            FailureReason.LIMIT_UNSUPPORTED, f"the engine cannot hold the container to the limits asked for: {said}"
        )
    return LaunchFailed(FailureReason.START_FAILED, f"the container could not be started: {said}")


def status_of(error: Exception | None) -> int:
    """The HTTP status behind an error or its cause; 0 when there is none."""
    while error is not None:
        if isinstance(error, APIError):
            return status(error)
        cause = error.__cause__
        error = cause if isinstance(cause, Exception) else None
    return 0


def unavailable(error: EngineDown | EngineConflict | APIError) -> Unavailable:
    """Say that the engine does not do what it should, for calls that launch nothing."""
    if isinstance(error, EngineConflict):
        return Unavailable("ENGINE_CONFLICT", error.message)
    if isinstance(error, EngineDown):
        return Unavailable("ENGINE_UNREACHABLE", error.message)
    return Unavailable("ENGINE_ERROR", f"the container engine refused: {explanation(error)}")
