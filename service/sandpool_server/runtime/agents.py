"""The agents inside members, over gRPC on the containers' own addresses."""

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import grpc.aio

from sandpool.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandResult, ContainerSpec
from sandpool_server.ports import ImageConfig
from sandpool_server.runtime.agent_channels import MAX_MESSAGE_BYTES, Channels, Connection
from sandpool_server.runtime.agent_messages import (
    admit_error,
    admit_request,
    check_configured,
    command_error,
    command_result,
    configure_request,
    configure_response,
    nonsense,
    refusal,
    run_request,
    unless_cancelled,
)
from sandpool_server.runtime.hand_over import open_line

PROTOCOL_VERSION = 4
"""The agent's behaviour that this server needs of new members; newer agents only add to it."""
OLDEST_PROTOCOL_VERSION = 1
"""What members may speak that an older server has left."""

_POLL_SECS = 0.005
_MAX_POLL_SECS = 0.1
_CONNECT_SECS = 1.0
_READY_SECS = 1.0
_GRACE_SECS = 5.0
"""How much longer than the command's own time-out the server waits for the agent's answer."""
_MAX_CHANNELS = 1024


class GrpcAgents:
    """Implements `ports.Agents`. A member's token is derived from `token_key` and its id, and stored nowhere.

    To be made on the event loop. The channel that a launch opens stays open for the claim and the commands to come; at
    most `max_channels` idle ones are kept. `configure`, `admit` and `probe` answer within the seconds given for them.
    """

    def __init__(
        self,
        token_key: bytes,
        max_channels: int = _MAX_CHANNELS,
        *,
        configure_secs: float = 10.0,
        admit_secs: float = 2.0,
        probe_secs: float = 2.0,
    ) -> None:
        self._key = token_key
        self._configure_secs = configure_secs
        self._admit_secs = admit_secs
        self._probe_secs = probe_secs
        self._channels = Channels(max_channels)

    def token_sha256(self, member_id: str) -> str:
        """The digest that the member's container is given."""
        return hashlib.sha256(self._token(member_id).encode()).hexdigest()

    async def wait_ready(self, member_id: str, address: str, timeout_secs: float) -> None:
        """Wait for the agent's port, then for its answer."""
        last = "it does not listen"
        try:
            async with asyncio.timeout(timeout_secs):
                await _wait_for_port(address)
                pause = _POLL_SECS
                while True:
                    last = await self._unready(member_id, address)
                    if not last:
                        return
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _MAX_POLL_SECS)
        except TimeoutError:
            raise LaunchFailed(
                FailureReason.NOT_READY,
                f"the container's agent was not ready within {timeout_secs:g} seconds: {last}",
            ) from None

    async def configure(self, member_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        """Tell the agent what image and spec say, and start the entrypoint unless it is to see secrets first."""
        request = configure_request(image, spec)
        started = request.HasField("entrypoint")
        what = "entrypoint could not be started" if started else "container could not be set up"
        try:
            async with self.connect(member_id, address) as connection:
                response = await _configure(connection, request, self._configure_secs)
                check_configured(response, started=started)
                await self._prepare_hand_over(member_id, connection)
        except grpc.aio.AioRpcError as error:
            raise LaunchFailed(FailureReason.START_FAILED, f"the {what}: {refusal(error)}") from error
        except Unavailable as error:
            raise LaunchFailed(FailureReason.START_FAILED, f"the {what}: {error.message}") from error
        except asyncio.CancelledError:
            raise unless_cancelled(LaunchFailed(FailureReason.START_FAILED, "the container was removed")) from None

    async def admit(
        self, member_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        """Hand the member over by one exchange. What it raises holds no value of `env`, whatever the agent says."""
        request = admit_request(env, entrypoint)
        if (line := self._channels.take_line(member_id, address)) is not None:
            try:
                answer = await line.exchange(request.SerializeToString(), self._admit_secs)
            except TimeoutError:
                raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox's agent: it does not answer") from None
            if answer is not None:
                check_configured(configure_response(answer), started=bool(entrypoint))
                return
        try:
            async with self.connect(member_id, address) as connection:
                response = await _configure(connection, request, self._admit_secs)
        except grpc.aio.AioRpcError as error:
            raise admit_error(error, entrypoint) from None
        except asyncio.CancelledError:
            raise unless_cancelled(Unavailable("SANDBOX_STOPPED", "the sandbox was removed")) from None
        check_configured(response, started=bool(entrypoint))

    async def probe(self, member_id: str, address: str) -> None:
        """Ask the agent who it is."""
        try:
            async with self.connect(member_id, address) as connection:
                info = await _info(connection, self._probe_secs)
                if info.protocol_version >= PROTOCOL_VERSION:
                    await self._prepare_hand_over(member_id, connection)
        except grpc.aio.AioRpcError as error:
            raise Unavailable("SANDBOX_UNREACHABLE", f"the sandbox's agent: {refusal(error)}") from error
        except asyncio.CancelledError:
            raise unless_cancelled(Unavailable("SANDBOX_STOPPED", "the sandbox was removed")) from None
        if info.protocol_version < OLDEST_PROTOCOL_VERSION:
            raise nonsense()

    async def run(self, member_id: str, address: str, command: Command) -> CommandResult:
        """Run a command; the agent ends it at its time-out, and this call ends soon after whatever the agent does."""
        request = run_request(command)
        if request.ByteSize() > MAX_MESSAGE_BYTES:
            raise Unavailable("SANDBOX_UNREACHABLE", "the command is larger than a sandbox takes")
        began = time.monotonic()
        try:
            async with self.connect(member_id, address) as connection:
                response = await _run(connection, request, command.timeout_secs + _GRACE_SECS)
        except grpc.aio.AioRpcError as error:
            raise command_error(error, member_id, command) from error
        except asyncio.CancelledError:
            raise unless_cancelled(Unavailable("SANDBOX_STOPPED", "the sandbox ended while the command ran")) from None
        if not isinstance(response, agent_pb.RunCommandResponse):
            raise nonsense()
        return command_result(response, time.monotonic() - began)

    def connect(self, member_id: str, address: str) -> AbstractAsyncContextManager[Connection]:
        """The member's channel for the length of the block, opened now unless it is open."""
        return self._channels.use(member_id, address, self._token(member_id))

    def forget(self, member_id: str) -> None:
        """Close the member's channel."""
        self._channels.forget(member_id)

    async def close(self) -> None:
        """Close all channels."""
        await self._channels.close()

    def _token(self, member_id: str) -> str:
        return hmac.new(self._key, member_id.encode(), hashlib.sha256).hexdigest()

    async def _unready(self, member_id: str, address: str) -> str:
        """Ask the agent who it is; returns what is wrong, empty when nothing is."""
        try:
            async with self.connect(member_id, address) as connection:
                info = await _info(connection, _READY_SECS)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        except asyncio.CancelledError:
            raise unless_cancelled(LaunchFailed(FailureReason.NOT_READY, "the container was removed")) from None
        if info.protocol_version < PROTOCOL_VERSION:
            return f"it speaks version {info.protocol_version} of the protocol, {PROTOCOL_VERSION} is needed"
        return ""

    async def _prepare_hand_over(self, member_id: str, connection: Connection) -> None:
        """Open the member's line unless it has a good one; a server that was started anew has none to older members."""
        if connection.line is None or not connection.line.usable:
            line = await open_line(connection.address, self._token(member_id))
            if line is not None:
                self._channels.keep_line(member_id, connection, line)


async def _info(connection: Connection, deadline: float) -> agent_pb.GetInfoResponse:
    return await connection.stub.GetInfo(agent_pb.GetInfoRequest(), timeout=deadline, metadata=connection.metadata)


async def _configure(
    connection: Connection, request: agent_pb.ConfigureRequest, deadline: float
) -> agent_pb.ConfigureResponse:
    return await connection.stub.Configure(request, timeout=deadline, metadata=connection.metadata)


async def _run(
    connection: Connection, request: agent_pb.RunCommandRequest, deadline: float
) -> agent_pb.RunCommandResponse:
    return await connection.stub.RunCommand(request, timeout=deadline, metadata=connection.metadata)


async def _wait_for_port(address: str) -> None:
    """Return when something listens at `host:port`. A refusal comes at once, so asking often costs little."""
    host, _, port = address.rpartition(":")
    while True:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_CONNECT_SECS):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
        await asyncio.sleep(_POLL_SECS)
