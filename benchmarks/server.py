"""Servers for measuring, and the bare stubs to call them with."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandpool.v1.pool_pb2 import PoolStatus
from sandpool.v1.pool_service_pb2 import CreatePoolRequest, DeletePoolRequest, UpdatePoolRequest, WatchPoolsRequest
from sandpool.v1.pool_service_pb2_grpc import PoolServiceStub
from sandpool.v1.sandbox_pb2 import SANDBOX_START_WARM
from sandpool.v1.sandbox_service_pb2 import (
    CreateSandboxRequest,
    DeleteSandboxRequest,
    ListSandboxesRequest,
    RunCommandRequest,
)
from sandpool.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from tests.support.server_process import ServerProcess

FILL_SECS = 300.0
CALL_SECS = 60.0


@dataclass
class Bench:
    """The stubs of a running server."""

    address: str
    pid: int
    health: HealthStub
    pools: PoolServiceStub
    sandboxes: SandboxServiceStub

    def no_op(self) -> None:
        """The cheapest call there is: the floor of every other."""
        self.health.Check(HealthCheckRequest(), timeout=CALL_SECS)

    def pool(self, image: str, size: int, *, refills: bool = False) -> str:
        """A pool of so many ready members; returns its id when it is full. By default it does not refill."""
        request = CreatePoolRequest(image=image, warm_containers=size)
        if not refills:
            request.max_containers = size
        pool_id: str = self.pools.CreatePool(request, timeout=CALL_SECS).pool.pool_id
        self.wait_full(pool_id, size)
        return pool_id

    def resize(self, pool_id: str, size: int) -> None:
        """Change how many members the pool keeps ready; does not wait for them."""
        self.pools.UpdatePool(UpdatePoolRequest(pool_id=pool_id, warm_containers=size), timeout=CALL_SECS)

    def wait_full(self, pool_id: str, size: int) -> None:
        """Return when so many members are ready."""
        self._wait(pool_id, lambda status: status.warm == size)

    def _wait(self, pool_id: str, wanted: Callable[[PoolStatus], bool]) -> None:
        stream = self.pools.WatchPools(WatchPoolsRequest(pool_ids=[pool_id]), timeout=FILL_SECS)
        for seen in stream:
            if seen.pool.status.HasField("last_error"):
                raise RuntimeError(f"the pool does not fill: {seen.pool.status.last_error.message}")
            if wanted(seen.pool.status):
                break
        stream.cancel()

    def create(self, pool_id: str) -> str:
        """Claim one ready member; returns its id."""
        answer = self.sandboxes.CreateSandbox(CreateSandboxRequest(pool_id=pool_id), timeout=CALL_SECS)
        if answer.sandbox.start != SANDBOX_START_WARM:
            raise RuntimeError("the pool was empty: that would measure a cold start")
        return str(answer.sandbox.sandbox_id)

    def run(self, sandbox_id: str, argv: list[str]) -> bytes:
        """Run a command."""
        request = RunCommandRequest(sandbox_id=sandbox_id, argv=argv)
        return str(self.sandboxes.RunCommand(request, timeout=CALL_SECS).stdout).encode()

    def dissolve(self, *pool_ids: str) -> None:
        """End all sandboxes of the pools and delete the pools; returns when their containers are gone."""
        for pool_id in pool_ids:
            self.resize(pool_id, 0)
            page = self.sandboxes.ListSandboxes(ListSandboxesRequest(pool_id=pool_id, page_size=1000))
            for sandbox in page.sandboxes:
                request = DeleteSandboxRequest(sandbox_id=sandbox.sandbox_id)
                self.sandboxes.DeleteSandbox(request, timeout=CALL_SECS)
        for pool_id in pool_ids:
            self._wait(pool_id, lambda status: not status.warm + status.active + status.creating + status.removing)
            self.pools.DeletePool(DeletePoolRequest(pool_id=pool_id), timeout=CALL_SECS)


class _Profiled(ServerProcess):
    """A server whose event loop's thread is profiled; the profile is written when it stops."""

    profile: Path | None = None
    module = "sandpool_server"

    def _command(self, command: str, *flags: str) -> list[str]:
        words = super()._command(command, *flags)
        if command != "serve":
            return words
        at = words.index("-m")
        profiling = ["-m", "cProfile", "-o", str(self.profile)] if self.profile else []
        return [*words[:at], *profiling, "-m", self.module, *words[at + 2 :]]


class _Fake(_Profiled):
    """A server on an engine in memory: nothing to remove at the end."""

    module = "benchmarks.fake_server"

    def purge(self) -> None:
        """Nothing."""


@dataclass
class Servers:
    """Starts servers; with `profiles` each leaves its profile there."""

    profiles: Path | None = None
    started: int = 0

    @contextmanager
    def real(self) -> Iterator[Bench]:
        """A server on the engine that $DOCKER_HOST names, removed with all that it made."""
        with self._serving(_Profiled) as bench:
            yield bench

    @contextmanager
    def fake(self) -> Iterator[Bench]:
        """A server on an engine in memory: all of it but containers and agents."""
        with self._serving(_Fake) as bench:
            yield bench

    @contextmanager
    def _serving(self, kind: type[_Profiled]) -> Iterator[Bench]:
        self.started += 1
        with tempfile.TemporaryDirectory() as folder:
            process = kind(Path(folder, "data"), log_level="warning")
            process.profile = self.profiles and self.profiles / f"{self.started}.{kind.__name__.strip('_')}.prof"
            with process, grpc.insecure_channel(process.address) as channel:
                stubs = HealthStub(channel), PoolServiceStub(channel), SandboxServiceStub(channel)
                yield Bench(process.address, process.pid, *stubs)
