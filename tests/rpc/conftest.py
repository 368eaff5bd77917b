"""A real gRPC server on the loopback interface with use cases in memory."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2_grpc import HealthStub

from sandpool_server.gen.v1.pool_service_pb2_grpc import PoolServiceStub
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from sandpool_server.gen.v1.secret_service_pb2_grpc import SecretServiceStub
from sandpool_server.gen.v1.template_service_pb2_grpc import TemplateServiceStub
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.health import HealthReporter
from sandpool_server.rpc.server import RpcOptions, UseCases, build_server
from tests.support.fake_usecases import FakeUseCases


class TestClock:
    """The clock of the machine."""

    __test__ = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def random_bits(self) -> int:
        return 4


class Probes:
    """Two probes that raise configurable errors."""

    def __init__(self) -> None:
        self.errors: dict[str, BaseException | None] = {"database": None, "engine": None}

    async def database(self) -> None:
        if self.errors["database"]:
            raise self.errors["database"]

    async def engine(self) -> None:
        if self.errors["engine"]:
            raise self.errors["engine"]


@dataclass
class Rig:
    """A running server and its clients."""

    fakes: FakeUseCases
    server: grpc.aio.Server
    channel: grpc.aio.Channel
    drain: Drain
    health: HealthReporter
    probes: Probes
    details: dict[str, str]
    port: int

    def __post_init__(self) -> None:
        self.pools: Any = PoolServiceStub(self.channel)
        self.templates: Any = TemplateServiceStub(self.channel)
        self.sandboxes: Any = SandboxServiceStub(self.channel)
        self.secrets: Any = SecretServiceStub(self.channel)
        self.health_stub: Any = HealthStub(self.channel)

    async def raw(self, method: str, data: bytes) -> bytes:
        """Call a method, such as `PoolService/GetPool`, with a serialized request."""
        return await self.channel.unary_unary(f"/sandpool.v1.{method}")(data)


@dataclass
class ReportedError:
    """The error of a failed call."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    details: dict[type, Any]

    @property
    def violations(self) -> list[tuple[str, str]]:
        """The paths and descriptions of the invalid fields."""
        bad = self.details.get(error_details_pb2.BadRequest)
        return [(v.field, v.description) for v in bad.field_violations] if bad else []

    @property
    def fields(self) -> list[str]:
        return [path for path, _ in self.violations]


_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.PreconditionFailure,
)


def reported_error(error: grpc.aio.AioRpcError) -> ReportedError:
    """Return the error with its details. Every error of the server has an ErrorInfo of the domain `sandpool`."""
    status = Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.MergeFromString(value)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    details: dict[type, Any] = {}
    for packed in status.details:
        kind = next(kind for kind in _DETAILS if packed.Is(kind.DESCRIPTOR))
        details[kind] = kind()
        packed.Unpack(details[kind])
    info = details[error_details_pb2.ErrorInfo]
    assert info.domain == "sandpool"
    return ReportedError(error.code(), status.message, info.reason, dict(info.metadata), details)


async def refused(call: Any) -> ReportedError:
    """Await a call that must fail, and return its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reported_error(caught.value)


@pytest.fixture
def options() -> RpcOptions:
    """Return the options of the server. A test module can override them."""
    return RpcOptions()


@pytest.fixture
async def rig(options: RpcOptions) -> AsyncIterator[Rig]:
    fakes, drain, probes = FakeUseCases(), Drain(), Probes()
    details: dict[str, str] = {}
    health = HealthReporter(
        {"database": probes.database, "engine": probes.engine}, drain, timeout_secs=0.05, details=lambda: details
    )
    usecases = UseCases(fakes.pools, fakes.templates, fakes.sandboxes, fakes.secrets, fakes.data_plane, fakes.ports)
    server = build_server(usecases, TestClock(), health, drain, options)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Rig(fakes, server, channel, drain, health, probes, details, port)
    drain.begin()
    await server.stop(1)
