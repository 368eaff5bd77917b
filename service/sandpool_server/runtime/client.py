"""docker-py's low-level client, with a timeout on every request."""

from collections.abc import Callable
from typing import Any

import docker
import requests
from docker.utils import kwargs_from_env

Connect = Callable[[float], "EngineClient"]
"""Makes a client whose requests time out after so many seconds."""


class EngineClient(docker.APIClient):
    """One thread's connection to the engine; `timeout` (seconds) bounds each wait for the engine's next bytes.

    docker-py itself sends some requests (pulls, imports, events) without any timeout; those get it here.
    """

    timeout: float  # type: ignore[assignment]  # requests takes fractions of a second, docker-py's stubs do not know

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request as `requests.Session` does, never without a timeout."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().request(method, url, *args, **kwargs)

    def create(self, config: dict[str, Any], name: str) -> str:
        """Create a container from the engine's own create request; returns its id."""
        made: dict[str, Any] = self.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
        return str(made["Id"])

    def image(self, reference: str) -> dict[str, Any]:
        """What the engine says of an image."""
        found: dict[str, Any] = self.inspect_image(reference)  # type: ignore[no-untyped-call]
        return found


def connector(base_url: str) -> Connect:
    """Say how to connect to `base_url`, or to what the environment (DOCKER_HOST and so on) names when it is empty.

    Connecting asks the engine for its version and so fails when the engine does not answer.
    """

    def connect(timeout: float) -> EngineClient:
        options = {"base_url": base_url} if base_url else kwargs_from_env()
        return EngineClient(timeout=timeout, **options)  # type: ignore[arg-type]  # docker-py takes fractions too

    return connect
