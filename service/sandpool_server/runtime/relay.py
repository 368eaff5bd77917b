"""Calls passed on to the agents inside members, over the channels that the server keeps to them."""

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
from sandpool_server.runtime.agent_messages import nonsense, unless_cancelled
from sandpool_server.runtime.relay_answers import check_answer, silence_limit
from sandpool_server.runtime.relay_errors import relay_error

Connect = Callable[[str, str], AbstractAsyncContextManager[Connection]]
"""Has the channel to a member, by its id and address."""

_SERVICES = (
    process_service_pb2.DESCRIPTOR.services_by_name["ProcessService"],
    file_service_pb2.DESCRIPTOR.services_by_name["FileService"],
    port_service_pb2.DESCRIPTOR.services_by_name["PortService"],
    monitor_service_pb2.DESCRIPTOR.services_by_name["MonitorService"],
)
_GONE = (asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.InternalError)
"""What writing to a call raises that has ended meanwhile; its answer says how."""


@dataclass(frozen=True, slots=True)
class _Method:
    """How a method is called."""

    path: str
    streams_requests: bool
    streams_answers: bool
    answer: Any
    kind: str
    """The name of the channel's factory: `unary_unary` and so on."""

    @staticmethod
    def of(method: MethodDescriptor) -> "_Method":
        words = ("unary", "stream")
        return _Method(
            path=f"/{method.containing_service.full_name}/{method.name}",
            streams_requests=method.client_streaming,
            streams_answers=method.server_streaming,
            answer=GetMessageClass(method.output_type),
            kind=f"{words[method.client_streaming]}_{words[method.server_streaming]}",
        )

    def decode(self, data: bytes) -> Any:
        """The answer, or None for what is none: gRPC would log the agent's garbage."""
        try:
            return self.answer.FromString(data)
        except DecodeError:
            return None

    def checked(self, answer: Any) -> Any:
        """The answer without what the contract does not know. Raises `Unavailable` for what no honest agent says."""
        if not isinstance(answer, self.answer):
            raise nonsense()
        answer.DiscardUnknownFields()
        check_answer(answer)
        return answer

    def callable(self, connection: Connection) -> Any:
        """What makes the call on a channel; made once for each."""
        found = connection.callables.get(self.path)
        if found is None:
            make = getattr(connection.channel, self.kind)
            found = make(self.path, request_serializer=_encode, response_deserializer=self.decode)
            connection.callables[self.path] = found
        return found


_METHODS = {made.path: made for service in _SERVICES for made in map(_Method.of, service.methods)}


class GrpcRelay:
    """Implements `ports.Relay`. Belongs to the event loop."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def call(
        self, member_id: str, address: str, method: str, requests: AsyncIterator[Any], timeout_secs: float
    ) -> Any:
        """A call of one answer."""
        how = _METHODS[method]
        try:
            async with self._connect(member_id, address) as connection:
                call, sending = await _begin(how, connection, requests)
                try:
                    if sending is not None:
                        await _all_sent(call, sending)
                    async with asyncio.timeout(timeout_secs):
                        return how.checked(await call)
                finally:
                    await _end(call, sending)
        except grpc.aio.AioRpcError as error:
            raise relay_error(error, member_id, method) from error
        except TimeoutError:
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox did not answer in time") from None
        except asyncio.CancelledError:
            raise unless_cancelled(_ended()) from None

    async def stream(
        self, member_id: str, address: str, method: str, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[Any, None]:
        """A call of many answers."""
        how = _METHODS[method]
        first = await anext(requests)
        patience = silence_limit(first)
        try:
            async with self._connect(member_id, address) as connection:
                call, sending = await _begin(how, connection, _chain(first, requests))
                try:
                    while True:
                        async with asyncio.timeout(patience):
                            answer = await call.read()
                        if answer is grpc.aio.EOF:
                            return
                        yield how.checked(answer)
                except (grpc.aio.AioRpcError, asyncio.CancelledError):
                    _raise_senders(sending)
                    raise
                finally:
                    await _end(call, sending)
        except grpc.aio.AioRpcError as error:
            raise relay_error(error, member_id, method) from error
        except TimeoutError:
            raise Unavailable("SANDBOX_UNREACHABLE", "the sandbox has fallen silent") from None
        except asyncio.CancelledError:
            raise unless_cancelled(_ended()) from None


def _encode(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _begin(
    how: _Method, connection: Connection, requests: AsyncIterator[Any]
) -> tuple[Any, asyncio.Task[None] | None]:
    """Start the call; many requests are sent by a task of their own."""
    start = how.callable(connection)
    if not how.streams_requests:
        return start(await anext(requests), metadata=connection.metadata), None
    call = start(metadata=connection.metadata)
    return call, asyncio.create_task(_send(call, requests), name=f"relay {how.path}")


async def _send(call: Any, requests: AsyncIterator[Any]) -> None:
    """Send all requests, each when the one before has gone. What the requests themselves raise ends the call."""
    try:
        async for request in requests:
            try:
                await _write(call, request)
            except _GONE:
                return
        try:
            await call.done_writing()
        except _GONE:
            return
    except BaseException:
        call.cancel()
        raise


async def _write(call: Any, request: Any) -> None:
    """`call.write` without its flaw: one that fails because the agent has answered puts INTERNAL over the answer."""
    await call.wait_for_connection()
    await call._cython_call.send_serialized_message(_encode(request))


async def _all_sent(call: Any, sending: asyncio.Task[None]) -> None:
    """Return when all requests have gone, or the agent has answered before. Raises what was wrong with the requests."""
    answered = asyncio.Event()
    call.add_done_callback(lambda _: answered.set())
    waiting = asyncio.create_task(answered.wait(), name="relay-answered")
    try:
        await asyncio.wait({sending, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    _raise_senders(sending)


def _raise_senders(sending: asyncio.Task[None] | None) -> None:
    """When the call was ended because of its requests: raise what was wrong with them."""
    if sending is not None and sending.done() and not sending.cancelled() and (error := sending.exception()):
        raise error


async def _end(call: Any, sending: asyncio.Task[None] | None) -> None:
    """Let go of a call, whatever became of it."""
    call.cancel()
    if sending is not None:
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.exception()  # seen: the call's own outcome is what the caller hears


async def _chain(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for other in others:
        yield other


def _ended() -> Unavailable:
    return Unavailable("SANDBOX_STOPPED", "the sandbox ended while the call was under way")
