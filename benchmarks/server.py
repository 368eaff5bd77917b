"""A server for measuring, and the bare stubs to call it with."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandpool.v1.pool_service_pb2 import CreatePoolRequest, DeletePoolRequest, WatchPoolsRequest
from sandpool.v1.pool_service_pb2_grpc import PoolServiceStub
from sandpool.v1.sandbox_service_pb2 import CreateSandboxRequest, DeleteSandboxRequest, RunCommandRequest
from sandpool.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from tests.support.server_process import ServerProcess

FILL_SECS = 300.0
CALL_SECS = 60.0


@dataclass
class Bench:
    """The stubs of a running server."""

    health: HealthStub
    pools: PoolServiceStub
    sandboxes: SandboxServiceStub

    def no_op(self) -> None:
        """The cheapest call there is: the floor of every other."""
        self.health.Check(HealthCheckRequest(), timeout=CALL_SECS)

    def full_pool(self, image: str, size: int) -> str:
        """A pool of `size` ready members that does not refill what is claimed; returns its id when it is full."""
        request = CreatePoolRequest(image=image, warm_containers=size, max_containers=size)
        pool_id: str = self.pools.CreatePool(request, timeout=CALL_SECS).pool.pool_id
        for seen in self.pools.WatchPools(WatchPoolsRequest(pool_ids=[pool_id]), timeout=FILL_SECS):
            if seen.pool.status.HasField("last_error"):
                raise RuntimeError(f"the pool does not fill: {seen.pool.status.last_error.message}")
            if seen.pool.status.warm == size:
                break
        return pool_id

    def create(self, pool_id: str) -> str:
        """Claim one sandbox; returns its id."""
        answer = self.sandboxes.CreateSandbox(CreateSandboxRequest(pool_id=pool_id), timeout=CALL_SECS)
        return str(answer.sandbox.sandbox_id)

    def run(self, sandbox_id: str, argv: list[str]) -> bytes:
        """Run a command."""
        request = RunCommandRequest(sandbox_id=sandbox_id, argv=argv)
        return str(self.sandboxes.RunCommand(request, timeout=CALL_SECS).stdout).encode()

    def delete(self, sandbox_ids: list[str], pool_id: str) -> None:
        """End the sandboxes and delete the pool."""
        for sandbox_id in sandbox_ids:
            self.sandboxes.DeleteSandbox(DeleteSandboxRequest(sandbox_id=sandbox_id), timeout=CALL_SECS)
        self.pools.DeletePool(DeletePoolRequest(pool_id=pool_id), timeout=CALL_SECS)


@contextmanager
def serving() -> Iterator[Bench]:
    """A server of its own, removed with all that it made."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder, "data"), log_level="warning") as process,
        grpc.insecure_channel(process.address) as channel,
    ):
        yield Bench(HealthStub(channel), PoolServiceStub(channel), SandboxServiceStub(channel))
