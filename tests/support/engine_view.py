"""The engine seen by a client of its own, independent of the server under test."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker

TEST_LABEL = "sandpool.test"


class EngineView:
    """Looks at the containers of one server, and makes containers that tests plant."""

    def __init__(self, api: docker.APIClient) -> None:
        self.api = api
        self._planted: list[str] = []

    def server_id_of(self, sandbox_id: str) -> str:
        """The id of the server that made this sandbox, off its container's labels."""
        (found,) = self.api.containers(all=True, filters={"label": f"sandpool.member={sandbox_id}"})
        return str(found["Labels"]["sandpool.server"])

    def members(self, server_id: str) -> dict[str, str]:
        """Container ids by member id, of every container of that server, running or not."""
        found = self.api.containers(all=True, filters={"label": f"sandpool.server={server_id}"})
        return {container["Labels"]["sandpool.member"]: container["Id"] for container in found}

    def exists(self, container_id: str) -> bool:
        """Whether the engine still has the container."""
        try:
            self.api.inspect_container(container_id)
        except docker.errors.NotFound:
            return False
        return True

    def plant(self, image: str, labels: dict[str, str], name: str | None = None) -> str:
        """A running container that the server did not make; removed at the end."""
        labels = {TEST_LABEL: str(os.getpid()), **labels}
        made: dict[str, Any] = self.api.create_container(
            image, ["sleep", "3600"], labels=labels, name=name, network_disabled=True
        )
        self._planted.append(made["Id"])
        self.api.start(made["Id"])
        return str(made["Id"])

    def wait_until(self, seen: Callable[["EngineView"], bool], seconds: float = 60.0) -> None:
        """Look again after each event of the engine until it is as wanted; fails after that many seconds."""
        events = self.api.events(decode=True, since=int(time.time()) - 1, until=int(time.time() + seconds))
        try:
            if seen(self):
                return
            for _ in events:
                if seen(self):
                    return
            raise AssertionError("the engine never became as wanted")
        finally:
            events.close()

    def remove_planted(self) -> None:
        """Remove what `plant` made."""
        for container_id in self._planted:
            if self.exists(container_id):
                self.api.remove_container(container_id, force=True, v=True)


@contextmanager
def engine_view() -> Iterator[EngineView]:
    """A view of the engine that $DOCKER_HOST names."""
    api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=120)
    view = EngineView(api)
    try:
        yield view
    finally:
        view.remove_planted()
        api.close()
