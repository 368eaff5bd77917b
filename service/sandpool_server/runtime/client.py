"""Low-level docker-py client with a timeout for every request, over a local socket, TCP, TLS or ssh."""

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
"""Creates a client. The argument is the timeout of its requests in seconds."""


class EngineClient(docker.APIClient):
    """Connection of one thread to the engine. `timeout` limits each wait for data from the engine, in seconds.

    docker-py sends some requests (pulls, imports, events) without a timeout; this class adds it.
    """

    timeout: float  # type: ignore[assignment]  # requests accepts fractions; docker-py's stubs declare an int

    def __init__(self, base_url: str, timeout: float, tls: Any = False) -> None:
        if not base_url.startswith("ssh://"):
            super().__init__(base_url, timeout=timeout, tls=tls)  # type: ignore[arg-type]  # accepts fractions
            return
        # With an explicit version, docker-py does not request it before the ssh adapter is mounted.
        super().__init__(DEFAULT_URL, version=MINIMUM_DOCKER_API_VERSION, timeout=timeout)  # type: ignore[arg-type]
        self._custom_adapter = SshAdapter(base_url, timeout, DEFAULT_MAX_POOL_SIZE)
        self.mount("http+docker://", self._custom_adapter)
        self._version = self._retrieve_server_version()  # type: ignore[attr-defined]  # missing in the stubs

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request like `requests.Session.request`, always with a timeout."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        if kwargs.get("verify") is None:
            kwargs["verify"] = self.verify  # Otherwise REQUESTS_CA_BUNDLE overrides the engine's certificate authority.
        return super().request(method, url, *args, **kwargs)

    def create(self, config: dict[str, Any], name: str) -> str:
        """Create a container from the body of a create request and return its id."""
        made: dict[str, Any] = self.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
        return str(made["Id"])

    def image(self, reference: str) -> dict[str, Any]:
        """Return the engine's description of an image."""
        found: dict[str, Any] = self.inspect_image(reference)  # type: ignore[no-untyped-call]
        return found


def engine_url(base_url: str) -> str:
    """Return the address of the engine: `base_url`, DOCKER_HOST or the default socket, in this order."""
    return base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL


def connector(base_url: str) -> Connect:
    """Return a function that connects to `base_url`, or to the address in DOCKER_HOST if it is empty.

    DOCKER_TLS_VERIFY and DOCKER_CERT_PATH apply in both cases, as in the docker CLI. The function requests the engine's
    version, so it fails if the engine does not respond.
    """

    def connect(timeout: float) -> EngineClient:
        url = engine_url(base_url)
        # A local socket and ssh need no certificates. Configured ones may be for another engine, or not be readable.
        plain = url.startswith(("unix://", "ssh://"))
        tls = False if plain else kwargs_from_env({**os.environ, "DOCKER_HOST": url}).get("tls", False)
        return EngineClient(url, timeout, tls)

    return connect
