"""docker-py's low-level client, with a timeout on every request: over a local socket, TCP, TLS or ssh."""

import os
from collections.abc import Callable
from typing import Any

import docker
import requests
from docker.constants import DEFAULT_MAX_POOL_SIZE, MINIMUM_DOCKER_API_VERSION
from docker.utils import kwargs_from_env

from sandpool_server.runtime.ssh import SshAdapter

DEFAULT_URL = "unix:///var/run/docker.sock"

Connect = Callable[[float], "EngineClient"]
"""Makes a client whose requests time out after so many seconds."""


class EngineClient(docker.APIClient):
    """One thread's connection to the engine; `timeout` (seconds) bounds each wait for the engine's next bytes.

    docker-py itself sends some requests (pulls, imports, events) without any timeout; those get it here.
    """

    timeout: float  # type: ignore[assignment]  # requests takes fractions of a second, docker-py's stubs do not know

    def __init__(self, base_url: str, timeout: float, tls: Any = False) -> None:
        if not base_url.startswith("ssh://"):
            super().__init__(base_url, timeout=timeout, tls=tls)  # type: ignore[arg-type]  # fractions too
            return
        # Naming a version keeps docker-py from asking for it before the transport is ours.
        super().__init__(DEFAULT_URL, version=MINIMUM_DOCKER_API_VERSION, timeout=timeout)  # type: ignore[arg-type]
        self._custom_adapter = SshAdapter(base_url, timeout, DEFAULT_MAX_POOL_SIZE)
        self.mount("http+docker://", self._custom_adapter)
        self._version = self._retrieve_server_version()  # type: ignore[attr-defined]  # the stubs leave it out

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request as `requests.Session` does, never without a timeout."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        if kwargs.get("verify") is None:
            kwargs["verify"] = self.verify  # Else requests prefers REQUESTS_CA_BUNDLE to the engine's own authority.
        return super().request(method, url, *args, **kwargs)

    def create(self, config: dict[str, Any], name: str) -> str:
        """Create a container from the engine's own create request; returns its id."""
        made: dict[str, Any] = self.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
        return str(made["Id"])

    def image(self, reference: str) -> dict[str, Any]:
        """What the engine says of an image."""
        found: dict[str, Any] = self.inspect_image(reference)  # type: ignore[no-untyped-call]
        return found


def engine_url(base_url: str) -> str:
    """The engine's address: what is set, else DOCKER_HOST, else the default socket."""
    return base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL


def connector(base_url: str) -> Connect:
    """Say how to connect to `base_url`, or to what DOCKER_HOST names when it is empty.

    DOCKER_TLS_VERIFY and DOCKER_CERT_PATH count in both cases, as docker's own client has them. Connecting asks the
    engine for its version and so fails when the engine does not answer.
    """

    def connect(timeout: float) -> EngineClient:
        url = engine_url(base_url)
        # A local socket and ssh have no use for certificates, which may be set for another engine, or be unreadable.
        plain = url.startswith(("unix://", "ssh://"))
        tls = False if plain else kwargs_from_env({**os.environ, "DOCKER_HOST": url}).get("tls", False)
        return EngineClient(url, timeout, tls)

    return connect
