"""The proxy of data plane calls: passes calls to the agents in instances, over the server's channels to them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from sandpool.v1 import file_service_pb2, monitor_service_pb2, port_service_pb2, process_service_pb2
from sandpool_server.domain.errors import Unavailable
from sandpool_server.runtime.agent_channels import Connection
from sandpool_server.runtime.agent_messages import invalid_response, unless_cancelled
from sandpool_server.runtime.proxy_errors import proxy_error
from sandpool_server.runtime.proxy_responses import check_response, silence_limit

Connect = Callable[[str, str], AbstractAsyncContextManager[Connection]]
"""Returns a context manager with the channel of an instance. The arguments are its id and address."""

_SERVICES = (
    process_service_pb2.DESCRIPTOR.services_by_name["ProcessService"],
    file_service_pb2.DESCRIPTOR.services_by_name["FileService"],
    port_service_pb2.DESCRIPTOR.services_by_name["PortService"],
    monitor_service_pb2.DESCRIPTOR.services_by_name["MonitorService"],
)
_CALL_ENDED = (asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.InternalError)
"""Errors of a write to a call that has already ended. The response or status of the call contains the cause."""


@dataclass(frozen=True, slots=True)
class _Method:
    """A method of the data plane."""

    path: str
    streams_requests: bool
    streams_responses: bool
    response: Any
    """The class of the responses."""
    kind: str
    """The name of the channel's method that creates the multicallable, for example `unary_unary`."""

    @staticmethod
    def of(method: MethodDescriptor) -> "_Method":
        kinds = ("unary", "stream")
        return _Method(
            path=f"/{method.containing_service.full_name}/{method.name}",
            streams_requests=method.client_streaming,
            streams_responses=method.server_streaming,
            response=GetMessageClass(method.output_type),
            kind=f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}",
        )

    def decode(self, data: bytes) -> Any:
        """Return the response, or None if it is invalid. An exception here would let gRPC log the agent's data."""
        try:
            return self.response.FromString(data)
        except DecodeError:
            return None

    def checked(self, response: Any) -> Any:
        """Return the response without unknown fields. Raises `Unavailable` if it violates the contract."""
        if not isinstance(response, self.response):
            raise invalid_response()
        response.DiscardUnknownFields()
        check_response(response)
        return response

    def callable(self, connection: Connection) -> Any:
        """Return the multicallable of the method, which is created once for each channel."""
        found = connection.callables.get(self.path)
        if found is None:
            create = getattr(connection.channel, self.kind)
            found = create(self.path, request_serializer=_encode, response_deserializer=self.decode)
            connection.callables[self.path] = found
        return found


_METHODS = {method.path: method for service in _SERVICES for method in map(_Method.of, service.methods)}


class GrpcProxy:
    """Implements `interfaces.Proxy`. Call it on the event loop."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def call(
        self, instance_id: str, address: str, method: str, requests: AsyncIterator[Any], timeout_secs: float
    ) -> Any:
        """Pass on a call with one response. See `interfaces.Proxy.call`."""
        target = _METHODS[method]
        try:
            async with self._connect(instance_id, address) as connection:
                call, sending = await _begin(target, connection, requests)
                try:
                    if sending is not None:
                        await _all_sent(call, sending)
                    async with asyncio.timeout(timeout_secs):
                        return target.checked(await call)
                finally:
                    await _end(call, sending)
        except grpc.aio.AioRpcError as error:
            raise proxy_error(error, instance_id, method) from error
        except TimeoutError:
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox did not respond in time") from None
        except asyncio.CancelledError:
            raise unless_cancelled(_terminated()) from None

    async def stream(
        self, instance_id: str, address: str, method: str, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        """Pass on a call with a stream of responses. See `interfaces.Proxy.stream`."""
        target = _METHODS[method]
        first = await anext(requests)
        limit = silence_limit(first)
        try:
            async with self._connect(instance_id, address) as connection:
                call, sending = await _begin(target, connection, _chain(first, requests))
                try:
                    while True:
                        async with asyncio.timeout(limit):
                            response = await call.read()
                        if response is grpc.aio.EOF:
                            return
                        yield target.checked(response)
                except (grpc.aio.AioRpcError, asyncio.CancelledError):
                    _raise_senders(sending)
                    raise
                finally:
                    await _end(call, sending)
        except grpc.aio.AioRpcError as error:
            raise proxy_error(error, instance_id, method) from error
        except TimeoutError:
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox stopped sending data") from None
        except asyncio.CancelledError:
            raise unless_cancelled(_terminated()) from None


def _encode(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _begin(
    method: _Method, connection: Connection, requests: AsyncIterator[Any]
) -> tuple[Any, asyncio.Task[None] | None]:
    """Start the call. Returns the call, and the task that sends the requests if the method streams them."""
    start = method.callable(connection)
    if not method.streams_requests:
        return start(await anext(requests), metadata=connection.metadata), None
    call = start(metadata=connection.metadata)
    return call, asyncio.create_task(_send(call, requests), name=f"proxy {method.path}")


async def _send(call: Any, requests: AsyncIterator[Any]) -> None:
    """Send all requests, each after the previous one was sent. An exception of `requests` cancels the call."""
    try:
        async for request in requests:
            try:
                await _write(call, request)
            except _CALL_ENDED:
                return
        try:
            await call.done_writing()
        except _CALL_ENDED:
            return
    except BaseException:
        call.cancel()
        raise


async def _write(call: Any, request: Any) -> None:
    """Send a request like `call.write`.

    `call.write` replaces the status of the call with INTERNAL if it fails because the agent has already responded.
    """
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(_encode(request))


async def _all_sent(call: Any, sending: asyncio.Task[None]) -> None:
    """Return when all requests are sent or the agent has responded. Raises the exception of the requests, if any."""
    responded = asyncio.Event()
    call.add_done_callback(lambda _: responded.set())
    waiting = asyncio.create_task(responded.wait(), name="proxy-responded")
    try:
        await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    _raise_senders(sending)


def _raise_senders(sending: asyncio.Task[None] | None) -> None:
    """Raise the exception of the requests, if it was the reason for the end of the call."""
    if sending is not None and sending.done() and not sending.cancelled() and (error := sending.exception()):
        raise error


async def _end(call: Any, sending: asyncio.Task[None] | None) -> None:
    """Cancel a call, in any state, and its sending task."""
    call.cancel()
    if sending is not None:
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.exception()  # Read the exception, because asyncio would log it; the caller gets the call's status.


async def _chain(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for other in others:
        yield other


def _terminated() -> Unavailable:
    return Unavailable("SANDBOX_TERMINATED", "the sandbox was terminated during the call")
