"""Open channels to agents: one for each member, the least recently used closed when there are too many."""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio

from sandpool.agent.v1 import agent_service_pb2_grpc as agent_grpc
from sandpool_server.runtime.hand_over import HandOverLine
from sandpool_server.runtime.tasks import TaskSet

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
_MAX_METADATA_BYTES = 16 * 1024
_MAX_STATUS_BYTES = 64 * 1024

_SERVICE = "sandpool.agent.v1.AgentService"
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            # Their honest answers are small; none of a hostile agent's shall cost the server more.
            "name": [{"service": _SERVICE, "method": method} for method in ("GetInfo", "Configure")],
            "maxResponseMessageBytes": _MAX_STATUS_BYTES,
        }
    ]
}
_NO_ANSWER = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A member may wait for its claim for days; its channel is to be open then.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ("grpc.enable_retries", 0),  # A command runs once.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Notices within half a minute that the other side has vanished; the agent allows a ping every ten seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(slots=True)
class Connection:
    """An open channel. `metadata` carries the member's token; `calls` counts the calls under way."""

    address: str
    channel: grpc.aio.Channel
    stub: "agent_grpc.AgentServiceAsyncStub"
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    calls: int = 0
    callables: dict[str, Any] = field(default_factory=dict, repr=False)
    """What makes calls on the channel, by the method's path."""
    line: HandOverLine | None = field(default=None, repr=False)
    """For the member's hand-over, until that."""


class Channels:
    """At most `limit` channels that nobody uses at the moment. All methods belong to the event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[str, Connection] = OrderedDict()
        self._closing = TaskSet()

    @asynccontextmanager
    async def use(self, member_id: str, address: str, token: str) -> AsyncIterator[Connection]:
        """Have the member's channel, opened now unless it is open; while in use it is not closed for being old.

        A channel on which a call got no answer is closed unless other calls are under way on it: the next one opens
        another, and waits neither for gRPC's next try to connect nor for TCP's to send again.
        """
        connection = self._open.get(member_id)
        if connection is None or connection.address != address:
            self.forget(member_id)
            channel = grpc.aio.insecure_channel(f"ipv4:{address}", options=_OPTIONS)
            stub = agent_grpc.AgentServiceStub(channel)
            connection = Connection(address, channel, stub, (("authorization", f"Bearer {token}"),))
            self._open[member_id] = connection
            self._make_room()
        self._open.move_to_end(member_id)
        connection.calls += 1
        try:
            yield connection
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO_ANSWER and connection.calls == 1 and self._open.get(member_id) is connection:
                self.forget(member_id)
            raise
        finally:
            connection.calls -= 1

    def keep_line(self, member_id: str, connection: Connection, line: HandOverLine) -> None:
        """Keep a line with the member's channel; it is closed with that, at once when that is closed already."""
        _end_line(connection)
        if self._open.get(member_id) is connection:
            connection.line = line
        else:
            line.close()

    def take_line(self, member_id: str, address: str) -> HandOverLine | None:
        """The member's line for its hand-over, if it has one that is good as far as is known; nobody else gets it."""
        connection = self._open.get(member_id)
        if connection is None or connection.address != address or connection.line is None:
            return None
        line, connection.line = connection.line, None
        return line if line.usable else None

    def __len__(self) -> int:
        """How many channels are open."""
        return len(self._open)

    def forget(self, member_id: str) -> None:
        """Close the member's channel, if it has one; calls under way on it end as cancelled by us."""
        connection = self._open.pop(member_id, None)
        if connection is not None:
            _end_line(connection)
            self._closing.spawn(connection.channel.close(), f"close channel {member_id}")

    async def close(self) -> None:
        """Close all channels."""
        connections = list(self._open.values())
        self._open.clear()
        for connection in connections:
            _end_line(connection)
            await connection.channel.close()
        await self._closing.close()

    def _make_room(self) -> None:
        surplus = len(self._open) - self._limit
        if surplus > 0:
            idle = [member_id for member_id, connection in self._open.items() if not connection.calls]
            for member_id in idle[:surplus]:
                self.forget(member_id)


def _end_line(connection: Connection) -> None:
    if connection.line is not None:
        connection.line.close()
        connection.line = None
