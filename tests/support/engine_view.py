"""A separate client of the engine, independent of the server under test."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker

TEST_LABEL = "sandpool.test"


class EngineView:
    """Inspects the containers of one server, and starts containers that the server did not create."""

    def __init__(self, api: docker.APIClient) -> None:
        self.api = api
        self._started: list[str] = []

    def server_id_of(self, sandbox_id: str) -> str:
        """Return the id of the server that created this sandbox, from the labels of its container."""
        (found,) = self.api.containers(all=True, filters={"label": f"sandpool.instance={sandbox_id}"})
        return str(found["Labels"]["sandpool.server"])

    def instances(self, server_id: str) -> dict[str, str]:
        """Return the container ids by instance id of all containers of a server, running or not."""
        found = self.api.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
        return {container["Labels"]["sandpool.instance"]: container["Id"] for container in found}

    def exists(self, container_id: str) -> bool:
        """Return whether the container exists."""
        try:
            self.api.inspect_container(container_id)
        except docker.errors.NotFound:
            return False
        return True

    def start_container(self, image: str, labels: dict[str, str], name: str | None = None) -> str:
        """Start a container that the server did not create, and return its id. The view removes it at the end."""
        labels = {TEST_LABEL: str(os.getpid()), **labels}
        created: dict[str, Any] = self.api.create_container(
            image, ["sleep", "3600"], labels=labels, name=name, network_disabled=True
        )
        self._started.append(created["Id"])
        self.api.start(created["Id"])
        return str(created["Id"])

    def wait_until(self, condition: Callable[["EngineView"], bool], seconds: float = 60.0) -> None:
        """Return when the condition holds; check it after each event of the engine. Fail after `seconds`."""
        events = self.api.events(decode=True, since=int(time.time()) - 1, until=int(time.time() + seconds))
        try:
            if condition(self):
                return
            for _ in events:
                if condition(self):
                    return
            raise AssertionError("the engine did not reach the expected state")
        finally:
            events.close()

    def remove_started(self) -> None:
        """Remove the containers that `start_container` created."""
        for container_id in self._started:
            if self.exists(container_id):
                self.api.remove_container(container_id, force=True, v=True)


@contextmanager
def engine_view() -> Iterator[EngineView]:
    """Yield a view of the engine at $DOCKER_HOST."""
    api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=120)
    view = EngineView(api)
    try:
        yield view
    finally:
        view.remove_started()
        api.close()
