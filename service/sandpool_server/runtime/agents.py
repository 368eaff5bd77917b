"""Client of the agents in instances, over gRPC."""

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import grpc.aio

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandResult
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.gen.agent.v1 import agent_service_pb2 as agent_pb
from sandpool_server.interfaces import ImageConfig
from sandpool_server.runtime.activation import open_activation_connection
from sandpool_server.runtime.agent_channels import MAX_MESSAGE_BYTES, Channels, Connection
from sandpool_server.runtime.agent_messages import (
    activate_error,
    activate_request,
    check_configured,
    command_error,
    command_result,
    configure_request,
    configure_response,
    invalid_response,
    refusal,
    run_request,
    unless_cancelled,
)

PROTOCOL_VERSION = 5
"""Minimum protocol version of agents in new instances. Later versions are backward compatible."""
OLDEST_PROTOCOL_VERSION = 5
"""Minimum protocol version of agents in existing instances.

Version 5 changed the types of fields. The health check replaces instances with earlier versions.
"""

_POLL_SECS = 0.005
_MAX_POLL_SECS = 0.1
_CONNECT_SECS = 1.0
_READY_SECS = 1.0
_GRACE_SECS = 5.0
"""Time in addition to a command's timeout that the server waits for the agent's response."""
_MAX_CHANNELS = 1024


class GrpcAgents:
    """Implements `interfaces.Agents`. Create it on the event loop.

    The token of an instance is derived from `token_key` and the instance id, and is not stored. The channel that a
    launch opens stays open for the claim and for later commands. At most `max_channels` idle channels stay open.
    `configure_secs`, `activate_secs` and `probe_secs` limit the duration of the methods of the same names.
    """

    def __init__(
        self,
        token_key: bytes,
        max_channels: int = _MAX_CHANNELS,
        *,
        configure_secs: float = 10.0,
        activate_secs: float = 2.0,
        probe_secs: float = 2.0,
    ) -> None:
        self._key = token_key
        self._configure_secs = configure_secs
        self._activate_secs = activate_secs
        self._probe_secs = probe_secs
        self._channels = Channels(max_channels)

    def token_sha256(self, instance_id: str) -> str:
        """Return the digest of the token, which is passed to the container of the instance."""
        return hashlib.sha256(self._token(instance_id).encode()).hexdigest()

    async def wait_ready(self, instance_id: str, address: str, timeout_secs: float) -> None:
        """Wait until the agent listens on its port and responds. Raises `LaunchFailed` after `timeout_secs`."""
        last = "it does not listen on its port"
        try:
            async with asyncio.timeout(timeout_secs):
                await _wait_for_port(address)
                pause = _POLL_SECS
                while True:
                    last = await self._unready(instance_id, address)
                    if not last:
                        return
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _MAX_POLL_SECS)
        except TimeoutError:
            raise LaunchFailed(
                FailureReason.READINESS_TIMEOUT,
                f"the agent of the container was not ready within {timeout_secs:g} seconds: {last}",
            ) from None

    async def configure(self, instance_id: str, address: str, image: ImageConfig, spec: ContainerSpec) -> None:
        """Pass the configuration of image and spec to the agent, and start the entrypoint if it needs no secrets.

        An entrypoint that needs secrets is started at the activation. Raises `LaunchFailed`.
        """
        request = configure_request(image, spec)
        started = request.HasField("entrypoint")
        failure = "cannot start the entrypoint" if started else "cannot configure the container"
        try:
            async with self.connect(instance_id, address) as connection:
                response = await _configure(connection, request, self._configure_secs)
                check_configured(response, started=started)
                await self._prepare_activation(instance_id, connection)
        except grpc.aio.AioRpcError as error:
            raise LaunchFailed(FailureReason.START_FAILED, f"{failure}: {refusal(error)}") from error
        except Unavailable as error:
            raise LaunchFailed(FailureReason.START_FAILED, f"{failure}: {error.message}") from error
        except asyncio.CancelledError:
            raise unless_cancelled(LaunchFailed(FailureReason.START_FAILED, "the container was removed")) from None

    async def activate(
        self, instance_id: str, address: str, env: Mapping[str, str], entrypoint: tuple[str, ...] = ()
    ) -> None:
        """Pass the environment, including secrets, and the entrypoint to the agent.

        Raises `LaunchFailed` and `Unavailable`. The errors contain no values of `env` and no text of the agent.
        """
        request = activate_request(env, entrypoint)
        if (activation := self._channels.take_activation(instance_id, address)) is not None:
            try:
                content = await activation.exchange(request.SerializeToString(), self._activate_secs)
            except TimeoutError:
                raise Unavailable("SANDBOX_UNREACHABLE", "the agent of the sandbox does not respond") from None
            if content is not None:
                check_configured(configure_response(content), started=bool(entrypoint))
                return
        try:
            async with self.connect(instance_id, address) as connection:
                response = await _configure(connection, request, self._activate_secs)
        except grpc.aio.AioRpcError as error:
            raise activate_error(error, entrypoint) from None
        except asyncio.CancelledError:
            raise unless_cancelled(Unavailable("SANDBOX_TERMINATED", "the sandbox was removed")) from None
        check_configured(response, started=bool(entrypoint))

    async def probe(self, instance_id: str, address: str) -> None:
        """Check that the agent responds. Raises `Unavailable`."""
        try:
            async with self.connect(instance_id, address) as connection:
                info = await _info(connection, self._probe_secs)
                if info.protocol_version >= PROTOCOL_VERSION:
                    await self._prepare_activation(instance_id, connection)
        except grpc.aio.AioRpcError as error:
            raise Unavailable("SANDBOX_UNREACHABLE", f"cannot reach the sandbox's agent: {refusal(error)}") from error
        except asyncio.CancelledError:
            raise unless_cancelled(Unavailable("SANDBOX_TERMINATED", "the sandbox was removed")) from None
        if info.protocol_version < OLDEST_PROTOCOL_VERSION:
            raise invalid_response()

    async def run(self, instance_id: str, address: str, command: Command) -> CommandResult:
        """Run a command. The agent kills it at its timeout; this method returns or raises shortly after in any case."""
        request = run_request(command)
        if request.ByteSize() > MAX_MESSAGE_BYTES:
            raise Unavailable(
                "SANDBOX_UNREACHABLE",
                f"the command has {request.ByteSize()} bytes; the maximum is {MAX_MESSAGE_BYTES} bytes",
            )
        began = time.monotonic()
        try:
            async with self.connect(instance_id, address) as connection:
                response = await _run(connection, request, command.timeout_secs + _GRACE_SECS)
        except grpc.aio.AioRpcError as error:
            raise command_error(error, instance_id, command) from error
        except asyncio.CancelledError:
            raise unless_cancelled(
                Unavailable("SANDBOX_TERMINATED", "the sandbox was terminated while the command was running")
            ) from None
        if not isinstance(response, agent_pb.RunCommandResponse):
            raise invalid_response()
        return command_result(response, time.monotonic() - began)

    def connect(self, instance_id: str, address: str) -> AbstractAsyncContextManager[Connection]:
        """Return a context manager with the channel of the instance; opens the channel if necessary."""
        return self._channels.use(instance_id, address, self._token(instance_id))

    def forget(self, instance_id: str) -> None:
        """Close the channel of the instance."""
        self._channels.forget(instance_id)

    async def close(self) -> None:
        """Close all channels."""
        await self._channels.close()

    def _token(self, instance_id: str) -> str:
        return hmac.new(self._key, instance_id.encode(), hashlib.sha256).hexdigest()

    async def _unready(self, instance_id: str, address: str) -> str:
        """Check the agent. Returns the problem, or an empty string if the agent is ready."""
        try:
            async with self.connect(instance_id, address) as connection:
                info = await _info(connection, _READY_SECS)
        except grpc.aio.AioRpcError as error:
            return refusal(error)
        except asyncio.CancelledError:
            raise unless_cancelled(LaunchFailed(FailureReason.READINESS_TIMEOUT, "the container was removed")) from None
        if info.protocol_version < PROTOCOL_VERSION:
            return f"it has protocol version {info.protocol_version}; the minimum is {PROTOCOL_VERSION}"
        return ""

    async def _prepare_activation(self, instance_id: str, connection: Connection) -> None:
        """Open the connection for the activation, unless there is a usable one.

        After a restart of the server, existing instances have no such connection; a probe opens it.
        """
        if connection.activation is None or not connection.activation.usable:
            activation = await open_activation_connection(connection.address, self._token(instance_id))
            if activation is not None:
                self._channels.keep_activation(instance_id, connection, activation)


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
    """Return when `host:port` accepts connections. Polls often, because a refused connection fails immediately."""
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
