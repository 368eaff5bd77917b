"""The API over HTTP/1.1, by Connect and gRPC-Web: the same methods as over gRPC, with the same checks and errors.

What answers is what `rpc` registered with gRPC. A browser has no trailers and no streams of requests, which is why gRPC
itself does not do; Connect's unary calls are plain POSTs of JSON besides.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from protobuf.wkt import Any as AnyDetail

Handler = Any
"""A `grpc.RpcMethodHandler`: how a method was registered with the server."""

Context = RequestContext[Any, Any]

_STATUS_DETAILS = "grpc-status-details-bin"

_CODES: dict[grpc.StatusCode, Code] = {
    code: Code["CANCELED" if code is grpc.StatusCode.CANCELLED else code.name]
    for code in grpc.StatusCode
    if code is not grpc.StatusCode.OK
}


class WebApi(ConnectASGIApplication[None]):
    """An ASGI application that answers `/<service>/<method>` by the handlers. Messages have at most `max_bytes`."""

    path = "/"

    def __init__(self, handlers: Mapping[MethodDescriptor, Handler], max_bytes: int) -> None:
        # Neither a proxy's nor a browser's cache, nor a link on a page, shall make calls: there is no GET.
        endpoints = {
            f"/{method.containing_service.full_name}/{method.name}": _endpoint(method, handler)
            for method, handler in handlers.items()
        }
        super().__init__(
            service=None,
            endpoints=lambda _: endpoints,
            read_max_bytes=max_bytes,
            codecs=(google_protobuf_binary_codec(), google_protobuf_json_codec(ignore_unknown_fields=False)),
        )


def _endpoint(method: MethodDescriptor, handler: Handler) -> Any:
    kinds: dict[tuple[bool, bool], tuple[StreamType, Any, Any]] = {
        (False, False): (StreamType.UNARY, Endpoint.unary, _unary(handler)),
        (False, True): (StreamType.SERVER_STREAM, Endpoint.server_stream, _answers(handler.unary_stream)),
        (True, False): (StreamType.CLIENT_STREAM, Endpoint.client_stream, _client_stream(handler)),
        (True, True): (StreamType.BIDI_STREAM, Endpoint.bidi_stream, _answers(handler.stream_stream)),
    }
    kind, make, function = kinds[method.client_streaming, method.server_streaming]
    info: MethodInfo[Any, Any] = MethodInfo(
        name=method.name,
        service_name=method.containing_service.full_name,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )
    return make(method=info, function=function)


def _unary(handler: Handler) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        return await handler.unary_unary(request, _Call(context))

    return call


def _client_stream(handler: Handler) -> Callable[[AsyncIterator[Any], Context], Awaitable[Any]]:
    async def call(requests: AsyncIterator[Any], context: Context) -> Any:
        return await handler.stream_unary(requests, _Call(context))

    return call


def _answers(behaviour: Callable[[Any, "_Call"], Awaitable[None]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    """What a method that writes its answers to the context comes to as an iterator over them."""

    async def call(requests: Any, context: Context) -> AsyncGenerator[Any, None]:
        call = _StreamingCall(context)
        running = asyncio.create_task(call.run(behaviour, requests), name="web-stream")
        try:
            async with aclosing(call.written()) as answers:
                async for answer in answers:
                    yield answer
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return call


class _Call:
    """What handlers use of a `grpc.aio.ServicerContext`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline, None without one."""
        left = self._context.timeout_ms
        return None if left is None else left / 1000

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The request's headers."""
        return tuple(self._context.request_headers.allitems())

    async def abort(self, code: grpc.StatusCode, details: str = "", metadata: Iterable[Any] = ()) -> NoReturn:
        """End the call with a status; its details travel in the metadata, as over gRPC."""
        told = Status()
        for key, value in metadata:
            if key == _STATUS_DETAILS:
                told.MergeFromString(value)
        packed = [ErrorDetail(AnyDetail(type_url=each.type_url, value=each.value)) for each in told.details]
        raise ConnectError(_CODES[code], details, packed)


class _StreamingCall(_Call):
    """A call whose handler writes: each answer is handed over before the next is asked for."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._answers: asyncio.Queue[Any] = asyncio.Queue(1)

    async def write(self, answer: Any) -> None:
        """Wait until the answer before was taken, and hand over this one."""
        await self._answers.put(answer)

    async def run(self, behaviour: Callable[[Any, Any], Awaitable[None]], requests: Any) -> None:
        """Run the handler to its end, which is handed over too."""
        try:
            await behaviour(requests, self)
        except ConnectError as error:
            await self._answers.put(error)
        else:
            await self._answers.put(None)

    async def written(self) -> AsyncGenerator[Any, None]:
        """The answers, until the handler ends; raises the status that it ended with."""
        while (answer := await self._answers.get()) is not None:
            if isinstance(answer, ConnectError):
                raise answer
            yield answer
