"""gRPC channels to agents: one for each instance. Above a limit, the least recently used channels are closed."""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from sandpool_server.gen.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool_server.runtime.activation import ActivationConnection
from sandpool_server.runtime.tasks import TaskSet

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
_MAX_METADATA_BYTES = 16 * 1024
_MAX_STATUS_BYTES = 64 * 1024

_SERVICE = "sandpool.agent.v1.AgentService"
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            # Valid responses of these methods are small. The limit bounds the memory that a hostile agent can use.
            "name": [{"service": _SERVICE, "method": method} for method in ("GetInfo", "Configure")],
            "maxResponseMessageBytes": _MAX_STATUS_BYTES,
        }
    ]
}
_NO_RESPONSE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # An instance may stay in the pool for days; its channel must still be open at the claim.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ("grpc.enable_retries", 0),  # A retry could run a command twice.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Detects a lost peer within 30 seconds. The agent allows one ping every 10 seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(slots=True)
class Connection:
    """An open channel. `metadata` contains the token of the instance; `calls` is the number of active calls."""

    address: str
    channel: grpc.aio.Channel
    stub: "agent_grpc.AgentServiceAsyncStub"
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    calls: int = 0
    callables: dict[str, Any] = field(default_factory=dict, repr=False)
    """Multicallables of the channel, by method path."""
    activation: ActivationConnection | None = field(default=None, repr=False)
    """Connection for the activation of the instance; None after the activation."""


class Channels:
    """A set of channels, of which at most `limit` are idle. Call all methods on the event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[str, Connection] = OrderedDict()
        self._closing = TaskSet()

    @asynccontextmanager
    async def use(self, instance_id: str, address: str, token: str) -> AsyncIterator[Connection]:
        """Return a context manager with the channel of an instance; opens the channel if necessary.

        A channel is not closed to make room while it is in use. A channel on which a call got no response is closed,
        unless other calls are active on it. The next call then opens a new channel and waits neither for gRPC's
        reconnect backoff nor for a TCP retransmission.
        """
        connection = self._open.get(instance_id)
        if connection is None or connection.address != address:
            self.forget(instance_id)
            channel = grpc.aio.insecure_channel(f"ipv4:{address}", options=_OPTIONS)
            stub = agent_grpc.AgentServiceStub(channel)
            connection = Connection(address, channel, stub, (("authorization", f"Bearer {token}"),))
            self._open[instance_id] = connection
            self._make_room()
        self._open.move_to_end(instance_id)
        connection.calls += 1
        try:
            yield connection
        except grpc.aio.AioRpcError as error:
            only_call = connection.calls == 1 and self._open.get(instance_id) is connection
            if error.code() in _NO_RESPONSE and only_call:
                self.forget(instance_id)
            raise
        finally:
            connection.calls -= 1

    def keep_activation(self, instance_id: str, connection: Connection, activation: ActivationConnection) -> None:
        """Store a connection for the activation; it is closed together with the channel.

        If the channel is already closed, the connection is closed immediately.
        """
        _close_activation(connection)
        if self._open.get(instance_id) is connection:
            connection.activation = activation
        else:
            activation.close()

    def take_activation(self, instance_id: str, address: str) -> ActivationConnection | None:
        """Remove and return the connection for the activation; None if the instance has no usable one."""
        connection = self._open.get(instance_id)
        if connection is None or connection.address != address or connection.activation is None:
            return None
        activation, connection.activation = connection.activation, None
        return activation if activation.usable else None

    def __len__(self) -> int:
        """Return the number of open channels."""
        return len(self._open)

    def forget(self, instance_id: str) -> None:
        """Close the channel of an instance, if it is open. Active calls on it raise `CancelledError`."""
        connection = self._open.pop(instance_id, None)
        if connection is not None:
            _close_activation(connection)
            self._closing.spawn(connection.channel.close(), f"close channel {instance_id}")

    async def close(self) -> None:
        """Close all channels."""
        connections = list(self._open.values())
        self._open.clear()
        for connection in connections:
            _close_activation(connection)
            await connection.channel.close()
        await self._closing.close()

    def _make_room(self) -> None:
        surplus = len(self._open) - self._limit
        if surplus > 0:
            idle = [instance_id for instance_id, connection in self._open.items() if not connection.calls]
            for instance_id in idle[:surplus]:
                self.forget(instance_id)


def _close_activation(connection: Connection) -> None:
    if connection.activation is not None:
        connection.activation.close()
        connection.activation = None
