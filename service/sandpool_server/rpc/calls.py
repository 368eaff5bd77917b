"""What happens around every call: decoding, deadline, validation, errors, one line in the log.

Methods are wrapped once, when they are registered, and not by interceptors: grpc.aio runs those through several more
awaits a call, and a request that cannot be decoded never reaches them.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from sandpool_server.domain.errors import InvalidArgument, LaunchFailed, SandpoolError
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.statuses import deadline_status, internal_status, malformed_status, status_of
from sandpool_server.rpc.validation import RequestValidator

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]

_LOGGED_FIELDS = ("pool_id", "template_name", "sandbox_id", "name", "request_id")
"""The fields of requests that the log repeats. Never metadata, environment or commands: they may hold secrets."""

_SLOW_SECS = 1.0
"""From how long on a call that went well is worth a line at level info."""

_log = structlog.stdlib.get_logger("sandpool.rpc")


class Calls:
    """Wraps the methods of servicers and registers them."""

    def __init__(self, validator: RequestValidator, drain: Drain) -> None:
        self._validator = validator
        self._drain = drain
        self.handlers: dict[MethodDescriptor, grpc.RpcMethodHandler[Any, Any]] = {}
        """Every method that was registered."""

    def register(self, server: grpc.aio.Server, service: ServiceDescriptor, servicer: object) -> None:
        """Make the server answer all methods of the service by the servicer's methods of the same names."""
        self._validator.warm(GetMessageClass(method.input_type) for method in service.methods)
        handlers = {method.name: self._handler(method, getattr(servicer, method.name)) for method in service.methods}
        self.handlers |= {method: handlers[method.name] for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def _handler(self, method: MethodDescriptor, behaviour: Callable[..., Any]) -> "grpc.RpcMethodHandler[Any, Any]":
        """The handler of one method."""
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        wrap = self._stream if method.server_streaming else self._unary
        decoder = _decoder(GetMessageClass(method.input_type))
        return make(wrap(method, behaviour), decoder, GetMessageClass(method.output_type).SerializeToString)

    def _unary(self, method: MethodDescriptor, behaviour: Unary) -> Unary:
        record = _Record(method)
        admit = self._admit_stream if method.client_streaming else self._admit

        async def call(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            try:
                answer = await behaviour(admit(request, context), context)
            except asyncio.CancelledError:
                record.cancelled(started, request, context)
                raise
            except Exception as error:
                await _fail(error, context, record, started, request)
            record.succeeded(started, request)
            return answer

        return call

    def _stream(self, method: MethodDescriptor, behaviour: Stream) -> Unary:
        record = _Record(method)
        admit = self._admit_stream if method.client_streaming else self._admit

        # It writes to the context, and is no generator: so a cancellation always arrives inside, and ends the source.
        async def call(request: Any, context: Context) -> None:
            started = time.perf_counter()
            try:
                async with aclosing(self._drain.until(behaviour(admit(request, context), context))) as answers:
                    async for answer in answers:
                        await context.write(answer)
            except asyncio.CancelledError:
                record.cancelled(started, request, context)
                raise
            except Exception as error:
                await _fail(error, context, record, started, request)
            record.succeeded(started, request)

        return call

    def _admit(self, request: Any, context: Context) -> Any:
        """The request of a call that may begin."""
        self._check_deadline(context)
        return self._check(request)

    def _admit_stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """The requests of a call that may begin, each checked when it is asked for."""
        self._check_deadline(context)
        return self._checked(requests)

    async def _checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield self._check(request)

    def _check(self, request: Any) -> Any:
        if isinstance(request, _Refused):
            raise request
        self._validator.check(request)
        return request

    @staticmethod
    def _check_deadline(context: Context) -> None:
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:
            raise _Refused(deadline_status())


class _Refused(Exception):
    """A call that is not begun, and what its caller is told. Stands for the request where that could not be decoded."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class _Record:
    """Writes a method's lines in the log: method, code, duration, and which resources and request a call was about."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.method = method.full_name
        self._fields = tuple(name for name in _LOGGED_FIELDS if name in method.input_type.fields_by_name)

    def succeeded(self, started: float, request: Any) -> None:
        """At level debug, unless it took long: a line costs as much as the rest of this layer's part in a call."""
        write = _log.debug if time.perf_counter() - started < _SLOW_SECS else _log.info
        write("call", **self._told(started, "OK"), **self._about(request))

    def failed(self, started: float, code: str, request: Any, **more: str) -> None:
        """At level info. `request` is None for one that was not looked at, or found wrong: it may hold anything."""
        _log.info("call", **self._told(started, code), **more, **self._about(request))

    def cancelled(self, started: float, request: Any, context: Context) -> None:
        """The caller went away, or its deadline passed."""
        remaining = context.time_remaining()
        over = remaining is not None and remaining <= 0
        self.failed(started, "DEADLINE_EXCEEDED" if over else "CANCELLED", request)

    def _told(self, started: float, code: str) -> dict[str, Any]:
        return {"method": self.method, "code": code, "ms": round((time.perf_counter() - started) * 1000, 3)}

    def _about(self, request: Any) -> dict[str, str]:
        return {name: value for name in self._fields if (value := getattr(request, name, ""))}


async def _fail(error: Exception, context: Context, record: _Record, started: float, request: Any) -> NoReturn:
    """End the call with the error's status. What is not meant for callers is logged and told as an incident number."""
    more: dict[str, str] = {}
    if isinstance(error, _Refused):
        status = error.status
    elif isinstance(error, SandpoolError | LaunchFailed):
        status = status_of(error)
        more["reason"] = error.reason
    else:
        incident = secrets.token_hex(4)
        _log.error("call failed unexpectedly", method=record.method, incident=incident, exc_info=error)
        status = internal_status(incident)
        more["incident"] = incident
    told = rpc_status.to_status(status)
    checked = None if isinstance(error, _Refused | InvalidArgument) else request
    record.failed(started, told.code.name, checked, **more)
    await context.abort(told.code, told.details, told.trailing_metadata)


def _decoder(request_type: type[Message]) -> Callable[[bytes], Any]:
    """Decodes requests; what cannot be decoded becomes a refusal: grpc would tell the caller UNKNOWN."""
    decode = request_type.FromString
    name = request_type.DESCRIPTOR.name

    def decoder(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _Refused(malformed_status(name))

    return decoder
