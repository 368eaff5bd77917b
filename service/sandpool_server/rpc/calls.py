"""Processing that is common to all calls: decoding, deadline, validation, errors and a log message.

Methods are wrapped when they are registered. Interceptors are not suitable: grpc.aio adds several awaits to each call
for them, and does not call them if a request cannot be decoded.
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
"""Fields of requests that are logged. Never log metadata, environment or commands, because they may contain secrets."""

_SLOW_SECS = 1.0
"""Successful calls of at least this duration are logged at level info."""

_log = structlog.stdlib.get_logger("sandpool.rpc")


class Calls:
    """Wraps the methods of servicers and registers them."""

    def __init__(self, validator: RequestValidator, drain: Drain) -> None:
        self._validator = validator
        self._drain = drain
        self.handlers: dict[MethodDescriptor, grpc.RpcMethodHandler[Any, Any]] = {}
        """All registered methods."""

    def register(self, server: grpc.aio.Server, service: ServiceDescriptor, servicer: object) -> None:
        """Register all methods of the service. The servicer's methods of the same names implement them."""
        self._validator.warm(GetMessageClass(method.input_type) for method in service.methods)
        handlers = {method.name: self._handler(method, getattr(servicer, method.name)) for method in service.methods}
        self.handlers |= {method: handlers[method.name] for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def _handler(self, method: MethodDescriptor, behaviour: Callable[..., Any]) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a method."""
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
        accept = self._accept_stream if method.client_streaming else self._accept

        async def call(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            try:
                response = await behaviour(accept(request, context), context)
            except asyncio.CancelledError:
                record.cancelled(started, request, context)
                raise
            except Exception as error:
                await _fail(error, context, record, started, request)
            record.succeeded(started, request)
            return response

        return call

    def _stream(self, method: MethodDescriptor, behaviour: Stream) -> Unary:
        record = _Record(method)
        accept = self._accept_stream if method.client_streaming else self._accept

        # This writes to the context instead of being a generator, so that a cancellation is raised here and closes the
        # source.
        async def call(request: Any, context: Context) -> None:
            started = time.perf_counter()
            try:
                async with aclosing(self._drain.until(behaviour(accept(request, context), context))) as responses:
                    async for response in responses:
                        await context.write(response)
            except asyncio.CancelledError:
                record.cancelled(started, request, context)
                raise
            except Exception as error:
                await _fail(error, context, record, started, request)
            record.succeeded(started, request)

        return call

    def _accept(self, request: Any, context: Context) -> Any:
        """Check the deadline of a call, and return its validated request."""
        self._check_deadline(context)
        return self._check(request)

    def _accept_stream(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """Check the deadline of a call, and return an iterator that validates each request."""
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
    """A rejected call with its status. The decoder returns it in place of a request that cannot be decoded."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class _Record:
    """Logs the calls of a method: method, code, duration, resource names and request id."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.method = method.full_name
        self._fields = tuple(name for name in _LOGGED_FIELDS if name in method.input_type.fields_by_name)

    def succeeded(self, started: float, request: Any) -> None:
        """Log a successful call: at level info if it was slow, otherwise at level debug.

        A log message takes as long as all other processing of a call in this module.
        """
        write = _log.debug if time.perf_counter() - started < _SLOW_SECS else _log.info
        write("call", **self._outcome(started, "OK"), **self._fields_of(request))

    def failed(self, started: float, code: str, request: Any, **more: str) -> None:
        """Log a failed call at level info. `request` is None if it is invalid, because it may contain anything."""
        _log.info("call", **self._outcome(started, code), **more, **self._fields_of(request))

    def cancelled(self, started: float, request: Any, context: Context) -> None:
        """Log a call that its caller cancelled or whose deadline was exceeded."""
        remaining = context.time_remaining()
        over = remaining is not None and remaining <= 0
        self.failed(started, "DEADLINE_EXCEEDED" if over else "CANCELLED", request)

    def _outcome(self, started: float, code: str) -> dict[str, Any]:
        return {"method": self.method, "code": code, "ms": round((time.perf_counter() - started) * 1000, 3)}

    def _fields_of(self, request: Any) -> dict[str, str]:
        return {name: value for name in self._fields if (value := getattr(request, name, ""))}


async def _fail(error: Exception, context: Context, record: _Record, started: float, request: Any) -> NoReturn:
    """End the call with the status of the error.

    An unexpected error is logged with an incident number; the caller receives only this number.
    """
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
    grpc_status = rpc_status.to_status(status)
    checked = None if isinstance(error, _Refused | InvalidArgument) else request
    record.failed(started, grpc_status.code.name, checked, **more)
    await context.abort(grpc_status.code, grpc_status.details, grpc_status.trailing_metadata)


def _decoder(request_type: type[Message]) -> Callable[[bytes], Any]:
    """Return a decoder of requests. If decoding fails, it returns `_Refused`; an exception would result in UNKNOWN."""
    decode = request_type.FromString
    name = request_type.DESCRIPTOR.name

    def decoder(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError:
            return _Refused(malformed_status(name))

    return decoder
