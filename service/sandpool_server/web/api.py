"""The API over HTTP/1.1 with Connect and gRPC-Web: the same methods, validation and errors as over gRPC.

The handlers are those that `rpc` registers with gRPC. Browsers cannot use gRPC, because they support neither trailers
nor streams of requests. A unary call with Connect is a simple POST request with JSON.
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
"""A `grpc.RpcMethodHandler` of a registered method."""

Context = RequestContext[Any, Any]

_STATUS_DETAILS = "grpc-status-details-bin"

_CODES: dict[grpc.StatusCode, Code] = {
    code: Code["CANCELED" if code is grpc.StatusCode.CANCELLED else code.name]
    for code in grpc.StatusCode
    if code is not grpc.StatusCode.OK
}


class WebApi(ConnectASGIApplication[None]):
    """An ASGI application that serves each method at `/<service>/<method>`. Messages have at most `max_bytes`."""

    path = "/"

    def __init__(self, handlers: Mapping[MethodDescriptor, Handler], max_bytes: int) -> None:
        # GET requests are not supported, so that caches and links on web pages cannot call methods.
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
        (False, True): (StreamType.SERVER_STREAM, Endpoint.server_stream, _responses(handler.unary_stream)),
        (True, False): (StreamType.CLIENT_STREAM, Endpoint.client_stream, _client_stream(handler)),
        (True, True): (StreamType.BIDI_STREAM, Endpoint.bidi_stream, _responses(handler.stream_stream)),
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


def _responses(behaviour: Callable[[Any, "_Call"], Awaitable[None]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    """Convert a handler that writes its responses to the context into an async generator of responses."""

    async def call(requests: Any, context: Context) -> AsyncGenerator[Any, None]:
        call = _StreamingCall(context)
        running = asyncio.create_task(call.run(behaviour, requests), name="web-stream")
        try:
            async with aclosing(call.written()) as responses:
                async for response in responses:
                    yield response
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return call


class _Call:
    """The part of `grpc.aio.ServicerContext` that handlers use."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def time_remaining(self) -> float | None:
        """Return the time until the caller's deadline in seconds; None without a deadline."""
        left = self._context.timeout_ms
        return None if left is None else left / 1000

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the headers of the request."""
        return tuple(self._context.request_headers.allitems())

    async def abort(self, code: grpc.StatusCode, details: str = "", metadata: Iterable[Any] = ()) -> NoReturn:
        """End the call with a status. Its details are in the metadata, as in gRPC."""
        status = Status()
        for key, value in metadata:
            if key == _STATUS_DETAILS:
                status.MergeFromString(value)
        packed = [ErrorDetail(AnyDetail(type_url=each.type_url, value=each.value)) for each in status.details]
        raise ConnectError(_CODES[code], details, packed)


class _StreamingCall(_Call):
    """A call whose handler writes responses. The handler waits until each response is sent."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._responses: asyncio.Queue[Any] = asyncio.Queue(1)

    async def write(self, response: Any) -> None:
        """Add a response. Waits until the previous response was read."""
        await self._responses.put(response)

    async def run(self, behaviour: Callable[[Any, Any], Awaitable[None]], requests: Any) -> None:
        """Run the handler, and add its status after the last response."""
        try:
            await behaviour(requests, self)
        except ConnectError as error:
            await self._responses.put(error)
        else:
            await self._responses.put(None)

    async def written(self) -> AsyncGenerator[Any, None]:
        """Yield the responses until the handler ends. Raises its status if it failed."""
        while (response := await self._responses.get()) is not None:
            if isinstance(response, ConnectError):
                raise response
            yield response
