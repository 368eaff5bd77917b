"""Conversion of errors of the engine to errors for callers."""

import ssl

import pytest
import requests
from docker.errors import APIError, DockerException

from sandpool_server.domain.errors import FailureReason
from sandpool_server.runtime.failures import (
    EngineConflict,
    EngineDown,
    PullRefused,
    explanation,
    image_is_missing,
    launch_failed,
    normalised,
    shared_is_missing,
    unavailable,
)


def engine_error(status: int, message: str) -> APIError:
    """Return an error response of the engine as docker-py raises it."""
    response = requests.Response()
    response.status_code = status
    return APIError("failed", response=response, explanation=message)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (engine_error(404, "No such image: python:nope"), FailureReason.IMAGE_NOT_FOUND),
        (
            engine_error(400, "invalid reference format: repository name must be lowercase"),
            FailureReason.IMAGE_NOT_FOUND,
        ),
        (PullRefused("manifest for python:nope not found: manifest unknown: manifest unknown"), "image_not_found"),
        (
            PullRefused("pull access denied for x, repository does not exist or may require 'docker login'"),
            "image_not_found",
        ),
        (PullRefused("no matching manifest for linux/arm64/v8 in the manifest list entries"), "image_not_found"),
        (PullRefused('Get "https://registry/v2/": dial tcp 127.0.0.1:9: connect: connection refused'), "pull_failed"),
        (PullRefused("write /var/lib/docker/x: no space left on device"), FailureReason.DISK_FULL),
        (engine_error(500, "mkdir /var/lib/docker/overlay2/x: No space left on device"), FailureReason.DISK_FULL),
        (
            engine_error(400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
            "limit_unsupported",
        ),
        (engine_error(400, "Minimum memory limit allowed is 6MB"), FailureReason.LIMIT_UNSUPPORTED),
        (
            engine_error(500, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
            "limit_unsupported",
        ),
        (engine_error(400, "Unknown runtime specified runsc"), FailureReason.START_FAILED),
        (engine_error(500, "OCI runtime create failed: something"), FailureReason.START_FAILED),
        (EngineConflict("remove it"), FailureReason.START_FAILED),
        (EngineDown("away"), FailureReason.ENGINE_UNREACHABLE),
        (ZeroDivisionError(), FailureReason.START_FAILED),
    ],
)
def test_failure_reasons(error: Exception, reason: str) -> None:
    failed = launch_failed(error, "python:nope")
    assert failed.reason == reason
    assert failed.message


def test_distinguishes_missing_image_from_missing_network() -> None:
    assert image_is_missing(engine_error(404, "No such image: a:b"))
    assert not image_is_missing(engine_error(404, "network sandpool-x not found"))
    assert shared_is_missing(engine_error(404, "network sandpool-x not found"))
    assert shared_is_missing(
        engine_error(400, 'exec: "/.sandpool/agent": stat /.sandpool/agent: no such file or directory')
    )
    assert not shared_is_missing(engine_error(500, "OCI runtime create failed: something"))


def test_messages_are_short_and_contain_no_long_identifiers() -> None:
    text = explanation(engine_error(500, f"container {'a1' * 32}\n failed\x00 " + "x y " * 400))
    assert "a1a1" not in text
    assert len(text) <= 300
    assert text.isprintable()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (requests.exceptions.ReadTimeout("x"), "in time"),
        (requests.exceptions.ConnectionError(TimeoutError("x")), "in time"),
        (requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "unknown authority")), "DOCKER_CERT_PATH"),
        (DockerException("Error while fetching server API version: refused"), "cannot be reached"),
        (requests.exceptions.ConnectionError("refused"), "cannot be reached"),
        (FileNotFoundError(2, "no socket"), "cannot be reached"),
    ],
)
def test_connection_errors_become_engine_down(error: Exception, message: str) -> None:
    down = normalised(error)
    assert isinstance(down, EngineDown)
    assert message in down.message
    assert unavailable(down).reason == "ENGINE_UNREACHABLE"


def test_other_errors_are_unchanged() -> None:
    error = KeyError("x")
    assert normalised(error) is error
    error_response = engine_error(500, "no")
    assert normalised(error_response) is error_response
    assert unavailable(error_response).reason == "ENGINE_ERROR"
    assert unavailable(EngineConflict("remove it")).reason == "ENGINE_CONFLICT"
