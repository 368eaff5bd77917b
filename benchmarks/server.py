"""Servers for benchmarks, and gRPC stubs to call them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandpool.v1.container_pb2 import ContainerSpec
from sandpool.v1.pool_pb2 import PoolStatus
from sandpool.v1.pool_service_pb2 import CreatePoolRequest, DeletePoolRequest, UpdatePoolRequest, WatchPoolsRequest
from sandpool.v1.sandbox_pb2 import START_TYPE_WARM
from sandpool.v1.sandbox_service_pb2 import (
    CreateSandboxRequest,
    DeleteSandboxRequest,
    ListSandboxesRequest,
    RunCommandRequest,
)
from sandpool_server.gen.v1.pool_service_pb2_grpc import PoolServiceStub
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from tests.support.server_process import ServerProcess

FILL_SECS = 300.0
CALL_SECS = 60.0


@dataclass
class Bench:
    """A running server and its stubs."""

    address: str
    pid: int
    health: HealthStub
    pools: PoolServiceStub
    sandboxes: SandboxServiceStub

    def no_op(self) -> None:
        """Make the fastest possible call, which is the baseline of other calls."""
        self.health.Check(HealthCheckRequest(), timeout=CALL_SECS)

    def pool(self, image: str, size: int, *, refills: bool = False) -> str:
        """Create a pool and wait until it is full. Returns its id. By default, the pool is not refilled."""
        request = CreatePoolRequest(spec=ContainerSpec(image=image), warm_containers=size)
        if not refills:
            request.max_containers = size
        pool_id: str = self.pools.CreatePool(request, timeout=CALL_SECS).pool.pool_id
        self.wait_full(pool_id, size)
        return pool_id

    def resize(self, pool_id: str, size: int) -> None:
        """Change the number of warm instances of a pool, without waiting for them."""
        self.pools.UpdatePool(UpdatePoolRequest(pool_id=pool_id, warm_containers=size), timeout=CALL_SECS)

    def wait_full(self, pool_id: str, size: int) -> None:
        """Wait until the pool has `size` warm instances."""
        self._wait(pool_id, lambda status: status.warm == size)

    def _wait(self, pool_id: str, condition: Callable[[PoolStatus], bool]) -> None:
        stream = self.pools.WatchPools(WatchPoolsRequest(pool_ids=[pool_id]), timeout=FILL_SECS)
        for seen in stream:
            if seen.pool.status.HasField("last_error"):
                raise RuntimeError(f"the pool cannot be filled: {seen.pool.status.last_error.message}")
            if condition(seen.pool.status):
                break
        stream.cancel()

    def create(self, pool_id: str) -> str:
        """Claim a warm instance and return its id."""
        answer = self.sandboxes.CreateSandbox(CreateSandboxRequest(pool_id=pool_id), timeout=CALL_SECS)
        if answer.sandbox.start_type != START_TYPE_WARM:
            raise RuntimeError("the pool is empty; the result would be the time of a cold start")
        return str(answer.sandbox.sandbox_id)

    def run(self, sandbox_id: str, argv: list[str]) -> bytes:
        """Run a command and return its output."""
        request = RunCommandRequest(sandbox_id=sandbox_id, argv=argv)
        return str(self.sandboxes.RunCommand(request, timeout=CALL_SECS).stdout).encode()

    def dissolve(self, *pool_ids: str) -> None:
        """Terminate all sandboxes of the pools, wait until their containers are removed, and delete the pools."""
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
    """A server with a profile of its event loop's thread. The profile is written when the server stops."""

    profile: Path | None = None
    module = "sandpool_server"

    def _command(self, command: str, *flags: str) -> list[str]:
        argv = super()._command(command, *flags)
        if command != "serve":
            return argv
        at = argv.index("-m")
        profiling = ["-m", "cProfile", "-o", str(self.profile)] if self.profile else []
        return [*argv[:at], *profiling, "-m", self.module, *argv[at + 2 :]]


class _Fake(_Profiled):
    """A server with an in-memory engine, which needs no purge."""

    module = "benchmarks.fake_server"

    def purge(self) -> None:
        """Do nothing."""


@dataclass
class Servers:
    """Starts servers. With `profiles`, each server writes its profile to that directory."""

    profiles: Path | None = None
    started: int = 0

    @contextmanager
    def real(self) -> Iterator[Bench]:
        """Run a server on the engine at $DOCKER_HOST during the block, and remove all its objects at the end."""
        with self._serving(_Profiled) as bench:
            yield bench

    @contextmanager
    def fake(self) -> Iterator[Bench]:
        """Run a server with an in-memory engine during the block. It has no containers and no agents."""
        with self._serving(_Fake) as bench:
            yield bench

    @contextmanager
    def _serving(self, kind: type[_Profiled]) -> Iterator[Bench]:
        self.started += 1
        with tempfile.TemporaryDirectory() as directory:
            process = kind(Path(directory, "data"), log_level="warning")
            process.profile = self.profiles and self.profiles / f"{self.started}.{kind.__name__.strip('_')}.prof"
            with process, grpc.insecure_channel(process.address) as channel:
                stubs = HealthStub(channel), PoolServiceStub(channel), SandboxServiceStub(channel)
                yield Bench(process.address, process.pid, *stubs)
