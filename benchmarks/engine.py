"""The bare engine, as the floor: docker-py alone doing what a sandbox needs, with the same limits and network."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import docker

LABEL = "sandpool.benchmark"


class BareEngine:
    """Creates, starts and execs containers of an image; everything it made is removed at the end."""

    def __init__(self, api: docker.APIClient, image: str) -> None:
        self.api = api
        self._image = image
        self._made: list[str] = []
        labels = {LABEL: str(os.getpid())}
        # Alike the sandboxes' network, for its kind is a good part of what a start costs.
        self._network: str = api.create_network(
            f"sandpool-benchmark-{os.getpid()}",
            driver="bridge",
            options={"com.docker.network.bridge.enable_icc": "false"},
            labels=labels,
        )["Id"]
        self._labels = labels

    def create_and_start(self) -> str:
        """One container of the image that sleeps, with a sandbox's default limits."""
        limits = self.api.create_host_config(
            mem_limit="512m",
            memswap_limit="512m",
            nano_cpus=10**9,
            pids_limit=1024,
            security_opt=["no-new-privileges"],
            network_mode=self._network,
        )
        made = self.api.create_container(self._image, ["sleep", "3600"], host_config=limits, labels=self._labels)
        self._made.append(made["Id"])
        self.api.start(made["Id"])
        return str(made["Id"])

    def create_and_start_many(self, count: int, threads: int) -> None:
        """So many containers by so many threads."""
        with ThreadPoolExecutor(threads) as workers:
            for done in [workers.submit(self.create_and_start) for _ in range(count)]:
                done.result()

    def run(self, container: str, argv: list[str]) -> bytes:
        """Run a command by the engine's exec, as far as its exit code."""
        exec_id = self.api.exec_create(container, argv)["Id"]
        output: bytes = self.api.exec_start(exec_id)
        self.api.exec_inspect(exec_id)
        return output

    def container_of(self, sandbox_id: str) -> str:
        """The container of a sandbox or a ready member."""
        (found,) = self.api.containers(filters={"label": f"sandpool.member={sandbox_id}"})
        return str(found["Id"])

    def containers_of_pool(self, pool_id: str) -> list[str]:
        """The containers of a pool."""
        return [str(found["Id"]) for found in self.api.containers(filters={"label": f"sandpool.pool={pool_id}"})]

    def memory_bytes(self, container: str) -> int:
        """What the kernel charges the container's control group, page cache that it could drop left out."""
        stats: dict[str, Any] = self.api.stats(container, stream=False, one_shot=True)["memory_stats"]
        cache = stats["stats"]
        return int(stats["usage"]) - int(cache.get("total_inactive_file", cache.get("inactive_file", 0)))

    def first_process(self, container: str) -> int:
        """The process id, on the engine's host, of the container's first process."""
        return int(self.api.inspect_container(container)["State"]["Pid"])

    def remove_made(self) -> None:
        """Remove the containers that this object made."""
        with ThreadPoolExecutor(2) as workers:
            for _ in workers.map(lambda made: self.api.remove_container(made, force=True, v=True), self._made):
                pass
        self._made.clear()

    def close(self) -> None:
        """Remove everything that this object made."""
        try:
            self.remove_made()
            self.api.remove_network(self._network)
        finally:
            self.api.close()


@contextmanager
def bare_engine(image: str) -> Iterator[BareEngine]:
    """The engine that $DOCKER_HOST names."""
    api = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto", timeout=120)
    engine = BareEngine(api, image)
    try:
        yield engine
    finally:
        engine.close()
