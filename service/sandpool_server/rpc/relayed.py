"""The services that sandboxes' agents answer: every method alike is passed on, in the contract's own messages.

What the server adds is which sandbox is meant, and a name for a process that its caller gave none, so that nothing on
the way can run it twice.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from sandpool.v1 import monitor_service_pb2, process_service_pb2
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.rpc.calls import Context
from sandpool_server.usecases.inside import Inside

_ANSWER_SECS = 60.0
"""How long a call of one answer may take when its caller sets no deadline."""
_LONG_SECS = 3600.0
"""The same for what takes as long as its data are large, or as a process likes."""
_LONG = frozenset({"WriteProcessInput", "WriteFile", "UploadFolder", "MoveFile", "CopyFile", "RemoveFile", "GlobFiles"})

_STATS = (monitor_service_pb2.GetStatsResponse, monitor_service_pb2.WatchStatsResponse)

_OPENING = ("target", "start", "attach")
"""The parts of streamed requests that name the sandbox; one of them comes first, and only then."""


def relayed(service: ServiceDescriptor, inside: Inside) -> SimpleNamespace:
    """A servicer of the service: one function for each method, under its name."""
    return SimpleNamespace(**{method.name: _relay(method, inside) for method in service.methods})


def _relay(method: MethodDescriptor, inside: Inside) -> Callable[[Any, Context], Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    opened = _opened if method.client_streaming else _alone
    if method.server_streaming:
        return _streamed(path, inside, opened)
    return _answered(path, inside, opened, _LONG_SECS if method.name in _LONG else _ANSWER_SECS)


Opened = Callable[[Any], Awaitable[tuple[str, AsyncIterator[Any]]]]
"""From what a method was given: which sandbox is meant, and the requests to pass on."""


def _answered(path: str, inside: Inside, opened: Opened, most_secs: float) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(given: Any, context: Context) -> Any:
        sandbox, requests = await opened(given)
        remaining = context.time_remaining()
        answer = await inside.call(sandbox, path, requests, most_secs if remaining is None else remaining)
        return await _complete(answer, sandbox, inside)

    return call


def _streamed(path: str, inside: Inside, opened: Opened) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(given: Any, context: Context) -> AsyncGenerator[Any, None]:
        sandbox, requests = await opened(given)
        answers = inside.stream(sandbox, path, requests)
        try:
            async for answer in answers:
                yield await _complete(answer, sandbox, inside)
        finally:
            await answers.aclose()

    return call


async def _complete(answer: Any, sandbox: str, inside: Inside) -> Any:
    """The answer with what the agent cannot know: it does not see where its files are kept."""
    if isinstance(answer, _STATS):
        used, limit = await inside.disk(sandbox)
        if used is not None:
            answer.stats.disk_bytes = used
        answer.stats.disk_limit_bytes = limit
    return answer


async def _alone(request: Any) -> tuple[str, AsyncIterator[Any]]:
    """A request that is not streamed. PutFile names its sandbox where WriteFile does."""
    target = getattr(request, "target", request)
    _name_process(request)
    return target.sandbox_id, _one(request)


async def _opened(requests: AsyncIterator[Any]) -> tuple[str, AsyncIterator[Any]]:
    """Streamed requests. Raises `InvalidArgument` unless the first says where to."""
    first = await anext(requests, None)
    opening = next((name for name in _OPENING if first is not None and _has(first, name)), "")
    if not opening:
        fields = _openings(first)
        raise InvalidArgument(FieldViolation(fields[0], f"the first message must have {' or '.join(fields)}"))
    _name_process(getattr(first, opening))
    return getattr(first, opening).sandbox_id, _then(first, requests)


def _openings(first: Any) -> tuple[str, ...]:
    """The parts by which a stream of such requests may begin."""
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
                raise InvalidArgument(FieldViolation(name, "comes in the first message only"))
        yield other


def _has(message: Any, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name and message.HasField(name)
