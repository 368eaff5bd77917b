"""The bare engine, as the floor: docker-py alone doing what a sandbox needs, with the same limits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import docker

LABEL = "sandpool.benchmark"


class BareEngine:
    """Creates, starts and execs containers of an image; everything it made is removed at the end."""

    def __init__(self, api: docker.APIClient, image: str) -> None:
        self._api = api
        self._image = image
        self._made: list[str] = []

    def create_and_start(self) -> str:
        """One container of the image that sleeps, with a sandbox's default limits, on the default bridge."""
        limits = self._api.create_host_config(
            mem_limit="512m", memswap_limit="512m", nano_cpus=10**9, pids_limit=1024, security_opt=["no-new-privileges"]
        )
        made = self._api.create_container(
            self._image, ["sleep", "3600"], host_config=limits, labels={LABEL: str(os.getpid())}
        )
        self._made.append(made["Id"])
        self._api.start(made["Id"])
        return str(made["Id"])

    def run(self, container: str, argv: list[str]) -> bytes:
        """Run a command by the engine's exec, as far as its exit code."""
        exec_id = self._api.exec_create(container, argv)["Id"]
        output: bytes = self._api.exec_start(exec_id)
        self._api.exec_inspect(exec_id)
        return output

    def remove_all(self) -> None:
        """Remove what this object made."""
        while self._made:
            self._api.remove_container(self._made.pop(), force=True, v=True)


@contextmanager
def bare_engine(image: str) -> Iterator[BareEngine]:
    """The engine that $DOCKER_HOST names."""
    api = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto", timeout=120)
    engine = BareEngine(api, image)
    try:
        yield engine
    finally:
        engine.remove_all()
        api.close()
