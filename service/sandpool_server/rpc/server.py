"""The gRPC server: services, health, reflection and options.

drain = Drain()
health = HealthReporter({"database": store.ping, "engine": runtime.ping}, drain)
server = build_server(UseCases(pools, templates, sandboxes, secrets, data_plane, ports), clock, health, drain)
port = server.add_insecure_port(address)
await server.start()            # Run health.run() in a task.
...
drain.begin()                   # The health status is NOT_SERVING, and streams end.
await server.stop(grace_secs)   # The time limit for active calls.
"""

from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from sandpool.v1 import (
    file_service_pb2,
    monitor_service_pb2,
    pool_service_pb2,
    port_service_pb2,
    process_service_pb2,
    sandbox_service_pb2,
    secret_service_pb2,
    template_service_pb2,
)
from sandpool_server.interfaces import Clock
from sandpool_server.rpc.calls import Calls
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.health import HealthReporter, ReportedHealth
from sandpool_server.rpc.pools import PoolServicer
from sandpool_server.rpc.ports import PortServicer
from sandpool_server.rpc.proxied import proxied
from sandpool_server.rpc.reflection import Reflection
from sandpool_server.rpc.sandboxes import SandboxServicer
from sandpool_server.rpc.secrets import SecretServicer
from sandpool_server.rpc.templates import TemplateServicer
from sandpool_server.rpc.validation import RequestValidator
from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.templates import Templates

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""Maximum size of a request. A larger request fails with RESOURCE_EXHAUSTED. Responses are bounded by themselves."""


_PROXIED = (
    (process_service_pb2, "ProcessService"),
    (file_service_pb2, "FileService"),
    (monitor_service_pb2, "MonitorService"),
)
"""Services that the agents of sandboxes implement."""


@dataclass(frozen=True, slots=True)
class UseCases:
    """The use cases of the services."""

    pools: Pools
    templates: Templates
    sandboxes: Sandboxes
    secrets: Secrets
    data_plane: DataPlane
    ports: ExposedPorts


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """Limits of the server.

    `max_concurrent_rpcs` includes streams and running commands; further calls fail with RESOURCE_EXHAUSTED. The server
    sends a ping on a connection that is idle for `keepalive_secs`, and closes the connection if it gets no response
    within `keepalive_timeout_secs`. Clients may send one ping every `min_ping_interval_secs`.
    """

    max_concurrent_rpcs: int = 4096
    keepalive_secs: float = 60.0
    keepalive_timeout_secs: float = 20.0
    min_ping_interval_secs: float = 5.0


def build_server(
    usecases: UseCases,
    clock: Clock,
    health: HealthReporter,
    drain: Drain,
    options: RpcOptions | None = None,
    calls: Calls | None = None,
) -> grpc.aio.Server:
    """Return the server, without a listen address and not started.

    Takes about 100 ms, because the validation rules of all request types are compiled. Registers all methods with
    `calls`, so that the web port can serve them, too.
    """
    options = options or RpcOptions()
    calls = calls or Calls(RequestValidator(), drain)
    server = grpc.aio.server(options=_channel_options(options), maximum_concurrent_rpcs=options.max_concurrent_rpcs)
    services: dict[ServiceDescriptor, object] = {
        pool_service_pb2.DESCRIPTOR.services_by_name["PoolService"]: PoolServicer(usecases.pools),
        template_service_pb2.DESCRIPTOR.services_by_name["TemplateService"]: TemplateServicer(usecases.templates),
        sandbox_service_pb2.DESCRIPTOR.services_by_name["SandboxService"]: SandboxServicer(usecases.sandboxes, clock),
        secret_service_pb2.DESCRIPTOR.services_by_name["SecretService"]: SecretServicer(usecases.secrets),
    }
    ports = port_service_pb2.DESCRIPTOR.services_by_name["PortService"]
    services[ports] = PortServicer(usecases.ports, usecases.data_plane)
    for file, name in _PROXIED:
        service = file.DESCRIPTOR.services_by_name[name]
        services[service] = proxied(service, usecases.data_plane)
    for service, servicer in services.items():
        calls.register(server, service, servicer)
    names = [service.full_name for service in services]
    health.cover(names)
    add_HealthServicer_to_server(ReportedHealth(health, drain), server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    Reflection((*names, health_name), drain).register(server)
    return server


def _channel_options(options: RpcOptions) -> list[tuple[str, int]]:
    return [
        # With port reuse, a second server on the same port would receive a random part of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", int(options.keepalive_secs * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_secs * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(options.min_ping_interval_secs * 1000)),
    ]
