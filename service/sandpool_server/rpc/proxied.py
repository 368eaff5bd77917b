"""Data plane services, which agents implement. The server proxies all their methods with the messages of the contract.

The server finds the sandbox of a call. It also adds an identifier to a process without one, so that a retry between the
server and the agent cannot start the process twice.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from sandpool.v1 import monitor_service_pb2, process_service_pb2
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.rpc.calls import Context
from sandpool_server.usecases.data_plane import DataPlane

_UNARY_SECS = 60.0
"""Time limit of a call with one response if the caller sets no deadline."""
_LONG_SECS = 3600.0
"""The same limit for methods whose duration depends on the amount of data or on a process."""
_LONG = frozenset(
    {"WriteProcessInput", "WriteFile", "UploadDirectory", "MoveFile", "CopyFile", "RemoveFile", "GlobFiles"}
)

_METRICS = (monitor_service_pb2.GetMetricsResponse, monitor_service_pb2.WatchMetricsResponse)

_OPENING = ("target", "start", "attach")
"""Fields of streamed requests that contain the sandbox id. The first request, and only the first, must have one."""


def proxied(service: ServiceDescriptor, data_plane: DataPlane) -> SimpleNamespace:
    """Return a servicer with one function for each method of the service."""
    return SimpleNamespace(**{method.name: _proxy(method, data_plane) for method in service.methods})


def _proxy(method: MethodDescriptor, data_plane: DataPlane) -> Callable[[Any, Context], Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    open_requests = _open_stream if method.client_streaming else _open_single
    if method.server_streaming:
        return _stream(path, data_plane, open_requests)
    return _unary(path, data_plane, open_requests, _LONG_SECS if method.name in _LONG else _UNARY_SECS)


OpenRequests = Callable[[Any], Awaitable[tuple[str, AsyncIterator[Any]]]]
"""Returns the sandbox id and the requests to pass on, for the request or the requests of a call."""


def _unary(
    path: str, data_plane: DataPlane, open_requests: OpenRequests, max_secs: float
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(given: Any, context: Context) -> Any:
        sandbox, requests = await open_requests(given)
        remaining = context.time_remaining()
        response = await data_plane.call(sandbox, path, requests, max_secs if remaining is None else remaining)
        return await _complete(response, sandbox, data_plane)

    return call


def _stream(
    path: str, data_plane: DataPlane, open_requests: OpenRequests
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(given: Any, context: Context) -> AsyncGenerator[Any, None]:
        sandbox, requests = await open_requests(given)
        responses = data_plane.stream(sandbox, path, requests)
        try:
            async for response in responses:
                yield await _complete(response, sandbox, data_plane)
        finally:
            await responses.aclose()

    return call


async def _complete(response: Any, sandbox: str, data_plane: DataPlane) -> Any:
    """Add the disk usage, which the agent cannot measure, to metrics."""
    if isinstance(response, _METRICS):
        used, limit = await data_plane.disk(sandbox)
        if used is not None:
            response.metrics.disk_bytes = used
        response.metrics.disk_limit_bytes = limit
    return response


async def _open_single(request: Any) -> tuple[str, AsyncIterator[Any]]:
    """Return the sandbox id and the request of a method that does not stream requests.

    The sandbox id of PutFile is in `target`, as in WriteFile.
    """
    target = getattr(request, "target", request)
    _name_process(request)
    return target.sandbox_id, _one(request)


async def _open_stream(requests: AsyncIterator[Any]) -> tuple[str, AsyncIterator[Any]]:
    """Return the sandbox id and the requests of a stream. Raises `InvalidArgument` if the first has no sandbox id."""
    first = await anext(requests, None)
    opening = next((name for name in _OPENING if first is not None and _has(first, name)), "")
    if not opening:
        fields = _openings(first)
        raise InvalidArgument(FieldViolation(fields[0], f"the first message must have {' or '.join(fields)}"))
    _name_process(getattr(first, opening))
    return getattr(first, opening).sandbox_id, _then(first, requests)


def _openings(first: Any) -> tuple[str, ...]:
    """Return the opening fields that this type of request has."""
    found = () if first is None else tuple(name for name in _OPENING if name in first.DESCRIPTOR.fields_by_name)
    return found or _OPENING[:1]


def _name_process(request: Any) -> None:
    if isinstance(request, process_service_pb2.StartProcessRequest) and not request.process_id:
        request.process_id = f"p-{token_hex(8)}"


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


async def _then(first: Any, others: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield first
    async for other in others:
        for name in _OPENING:
            if _has(other, name):
                raise InvalidArgument(FieldViolation(name, "is allowed in the first message only"))
        yield other


def _has(message: Any, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name and message.HasField(name)
