"""The bare engine as the baseline: docker-py performs the operations of a sandbox, with the same limits and network."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import docker

LABEL = "sandpool.benchmark"


class BareEngine:
    """Creates and starts containers of an image and runs commands in them. Removes all its objects at the end."""

    def __init__(self, api: docker.APIClient, image: str) -> None:
        self.api = api
        self._image = image
        self._created: list[str] = []
        labels = {LABEL: str(os.getpid())}
        # The same kind of network as for sandboxes, because it has a large effect on the time of a start.
        self._network: str = api.create_network(
            f"sandpool-benchmark-{os.getpid()}",
            driver="bridge",
            options={"com.docker.network.bridge.enable_icc": "false"},
            labels=labels,
        )["Id"]
        self._labels = labels

    def create_and_start(self) -> str:
        """Create and start a container that sleeps, with the default limits of a sandbox. Returns its id."""
        limits = self.api.create_host_config(
            mem_limit="512m",
            memswap_limit="512m",
            nano_cpus=10**9,
            pids_limit=1024,
            security_opt=["no-new-privileges"],
            network_mode=self._network,
        )
        created = self.api.create_container(self._image, ["sleep", "3600"], host_config=limits, labels=self._labels)
        self._created.append(created["Id"])
        self.api.start(created["Id"])
        return str(created["Id"])

    def create_and_start_many(self, count: int, threads: int) -> None:
        """Create and start `count` containers with `threads` threads."""
        with ThreadPoolExecutor(threads) as workers:
            for done in [workers.submit(self.create_and_start) for _ in range(count)]:
                done.result()

    def run(self, container: str, argv: list[str]) -> bytes:
        """Run a command with the engine's exec, including the request of its exit code. Returns its output."""
        exec_id = self.api.exec_create(container, argv)["Id"]
        output: bytes = self.api.exec_start(exec_id)
        self.api.exec_inspect(exec_id)
        return output

    def container_of(self, sandbox_id: str) -> str:
        """Return the container of a sandbox or a warm instance."""
        (found,) = self.api.containers(filters={"label": f"sandpool.instance={sandbox_id}"})
        return str(found["Id"])

    def containers_of_pool(self, pool_id: str) -> list[str]:
        """Return the containers of a pool."""
        return [str(found["Id"]) for found in self.api.containers(filters={"label": f"sandpool.pool={pool_id}"})]

    def memory_bytes(self, container: str) -> int:
        """Return the memory of the container's cgroup in bytes, without reclaimable page cache."""
        stats: dict[str, Any] = self.api.stats(container, stream=False, one_shot=True)["memory_stats"]
        cache = stats["stats"]
        return int(stats["usage"]) - int(cache.get("total_inactive_file", cache.get("inactive_file", 0)))

    def first_process(self, container: str) -> int:
        """Return the process ID of the container's first process on the engine's host."""
        return int(self.api.inspect_container(container)["State"]["Pid"])

    def remove_containers(self) -> None:
        """Remove the containers that this object created."""
        with ThreadPoolExecutor(2) as workers:
            for _ in workers.map(lambda each: self.api.remove_container(each, force=True, v=True), self._created):
                pass
        self._created.clear()

    def close(self) -> None:
        """Remove all containers and the network of this object."""
        try:
            self.remove_containers()
            self.api.remove_network(self._network)
        finally:
            self.api.close()


@contextmanager
def bare_engine(image: str) -> Iterator[BareEngine]:
    """Return a context manager with the engine at $DOCKER_HOST."""
    api = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto", timeout=120)
    engine = BareEngine(api, image)
    try:
        yield engine
    finally:
        engine.close()
