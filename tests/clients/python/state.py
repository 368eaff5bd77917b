"""What the server in memory keeps, what it was asked, and how a test makes it fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sandpool.v1 import pool_pb2, sandbox_pb2, sandbox_service_pb2, secret_pb2, template_pb2


@dataclass
class Failure:
    """What a method answers instead: a status code, a message, google.rpc details."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Message, ...] = ()
    after_work: bool = False
    """Do the work first, then lose the answer."""


def abort(context: grpc.ServicerContext, failure: Failure) -> None:
    """End the call with a failure."""
    packed = []
    for detail in failure.details:
        item = AnyMessage()
        item.Pack(detail)
        packed.append(item)
    if not packed:
        context.abort(failure.code, failure.message)
    status = Status(code=failure.code.value[0], message=failure.message, details=packed)
    context.abort_with_status(rpc_status.to_status(status))


def not_found(kind: str, name: str) -> Failure:
    """What the server says about a missing resource."""
    return Failure(
        grpc.StatusCode.NOT_FOUND,
        f"there is no {kind} {name!r}",
        (
            rpc.ErrorInfo(reason=f"{kind.upper()}_NOT_FOUND", domain="sandpool"),
            rpc.ResourceInfo(resource_type=kind, resource_name=name),
        ),
    )


@dataclass
class State:
    """What the servicers share, and what a test sees of it."""

    pools: dict[str, pool_pb2.Pool] = field(default_factory=dict)
    templates: dict[str, template_pb2.Template] = field(default_factory=dict)
    sandboxes: dict[str, sandbox_pb2.Sandbox] = field(default_factory=dict)
    secrets: dict[str, secret_pb2.Secret] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """The secrets' values."""
    next_states: list[sandbox_pb2.SandboxState] = field(default_factory=lambda: [sandbox_pb2.SANDBOX_STATE_TERMINATED])
    """The states that a watch of a sandbox sees after the present one."""
    pool_steps: list[pool_pb2.PoolStatus] = field(default_factory=list)
    """What a watch of pools tells of each pool after what it is now."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    command: sandbox_service_pb2.RunCommandResponse = field(default_factory=sandbox_service_pb2.RunCommandResponse)
    hang: threading.Event = field(default_factory=threading.Event)
    hanging: set[str] = field(default_factory=set)
    asked: threading.Event = field(default_factory=threading.Event)
    """Set by the first call that hangs."""
    _answers: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0

    def sent(self, method: str) -> list[Any]:
        """The requests that a method got."""
        return [request for name, request in self.requests if name == method]

    def fail(self, method: str, *failures: Failure) -> None:
        """Let the next calls of a method fail, one after the other."""
        self.failures.setdefault(method, []).extend(failures)

    def next_id(self, kind: str) -> str:
        """A new identifier in the server's form."""
        self._count += 1
        return f"{kind}-{self._count:020d}"

    def answer(self, method: str, request: Any, context: grpc.ServicerContext, work: Callable[[], Any]) -> Any:
        """Record the request; answer, fail, hang, or repeat what the same request id got before."""
        with self._lock:
            copy = type(request)()
            copy.CopyFrom(request)
            self.requests.append((method, copy))
            self.metadata.append({item.key: str(item.value) for item in context.invocation_metadata()})
            self.remaining.append(context.time_remaining())
            failure = self.failures[method].pop(0) if self.failures.get(method) else None
        if method in self.hanging:
            self.asked.set()
            self.hang.wait(30)
        if failure is not None and not failure.after_work:
            abort(context, failure)
        with self._lock:
            request_id = getattr(request, "request_id", "")
            if not request_id or request_id not in self._answers:
                self._answers[request_id] = work()
        if failure is not None:
            abort(context, failure)
        return self._answers[request_id]

    def find(self, kind: str, things: dict[str, Any], ref: str, context: grpc.ServicerContext) -> Any:
        """A resource by identifier or name; ends the call with NOT_FOUND where there is none."""
        for key, thing in things.items():
            if ref in {key, thing.name}:
                return thing
        return abort(context, not_found(kind, ref))


def page(things: dict[str, Any], request: Any) -> tuple[list[Any], str]:
    """One page of things, and the token of the next."""
    everything = list(things.values())
    start, size = int(request.page_token or 0), request.page_size or 100
    end = start + size
    return everything[start:end], str(end) if end < len(everything) else ""


def assign(thing: Any, request: Any) -> None:
    """What an update with a mask does."""
    for path in request.update_mask.paths:
        thing.ClearField(path)
        descriptor = request.DESCRIPTOR.fields_by_name[path]
        if descriptor.is_repeated:
            target = getattr(thing, path)
            (target.update if hasattr(target, "update") else target.extend)(getattr(request, path))
        elif request.HasField(path):
            setattr(thing, path, getattr(request, path))
