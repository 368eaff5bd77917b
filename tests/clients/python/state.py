"""The state of the in-memory server: its resources, its received calls, and the failures that a test injects."""

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

_NO_DEADLINE = 1e12
"""gRPC reports more seconds than this for a call without a deadline."""


@dataclass
class Failure:
    """A failure of a method: the status code, the message and google.rpc details."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Message, ...] = ()
    after_work: bool = False
    """Whether the method takes effect before it fails, as with a lost response."""


def abort(context: grpc.ServicerContext, failure: Failure) -> None:
    """End a call with a failure."""
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
    """Return the failure for a resource that does not exist."""
    return Failure(
        grpc.StatusCode.NOT_FOUND,
        f"{kind} {name!r} does not exist",
        (
            rpc.ErrorInfo(reason=f"{kind.upper()}_NOT_FOUND", domain="sandpool"),
            rpc.ResourceInfo(resource_type=kind, resource_name=name),
        ),
    )


@dataclass
class State:
    """The state that the servicers share, and that a test inspects."""

    pools: dict[str, pool_pb2.Pool] = field(default_factory=dict)
    templates: dict[str, template_pb2.Template] = field(default_factory=dict)
    sandboxes: dict[str, sandbox_pb2.Sandbox] = field(default_factory=dict)
    secrets: dict[str, secret_pb2.Secret] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """The secrets' values."""
    next_states: list[sandbox_pb2.SandboxState] = field(default_factory=lambda: [sandbox_pb2.SANDBOX_STATE_TERMINATED])
    """The states that a watch of a sandbox reports after the current one."""
    pool_steps: list[pool_pb2.PoolStatus] = field(default_factory=list)
    """The states that a watch of pools reports of each pool after the current one."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    command: sandbox_service_pb2.RunCommandResponse = field(default_factory=sandbox_service_pb2.RunCommandResponse)
    hang: threading.Event = field(default_factory=threading.Event)
    hanging: set[str] = field(default_factory=set)
    called: threading.Event = field(default_factory=threading.Event)
    """Set when the first call hangs."""
    _responses: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _count: int = 0

    def sent(self, method: str) -> list[Any]:
        """Return the requests that a method received."""
        return [request for name, request in self.requests if name == method]

    def fail(self, method: str, *failures: Failure) -> None:
        """Make the next calls of a method fail, one after the other."""
        self.failures.setdefault(method, []).extend(failures)

    def next_id(self, kind: str) -> str:
        """Return a new identifier in the server's format."""
        self._count += 1
        return f"{kind}-{self._count:020d}"

    def respond(self, method: str, request: Any, context: grpc.ServicerContext, work: Callable[[], Any]) -> Any:
        """Record the request, then respond, fail or hang. A repeated request id gets the first response."""
        with self._lock:
            copy = type(request)()
            copy.CopyFrom(request)
            self.requests.append((method, copy))
            self.metadata.append({item.key: str(item.value) for item in context.invocation_metadata()})
            left = context.time_remaining()
            self.remaining.append(left if left is not None and left < _NO_DEADLINE else None)
            failure = self.failures[method].pop(0) if self.failures.get(method) else None
        if method in self.hanging:
            self.called.set()
            self.hang.wait(30)
        if failure is not None and not failure.after_work:
            abort(context, failure)
        with self._lock:
            request_id = getattr(request, "request_id", "")
            if not request_id or request_id not in self._responses:
                self._responses[request_id] = work()
        if failure is not None:
            abort(context, failure)
        return self._responses[request_id]

    def find(self, kind: str, things: dict[str, Any], ref: str, context: grpc.ServicerContext) -> Any:
        """Return a resource by identifier or name. End the call with NOT_FOUND if it does not exist."""
        for key, thing in things.items():
            if ref in {key, thing.name}:
                return thing
        return abort(context, not_found(kind, ref))


def page(things: dict[str, Any], request: Any) -> tuple[list[Any], str]:
    """Return one page of resources and the token of the next page."""
    everything = list(things.values())
    start, size = int(request.page_token or 0), request.page_size or 100
    end = start + size
    return everything[start:end], str(end) if end < len(everything) else ""


def assign(resource: Any, request: Any) -> None:
    """Apply an update request with a mask."""
    for path in request.update_mask.paths:
        source, target, *fields = request, resource, *path.split(".")
        for name in fields[:-1]:
            source, target = getattr(source, name), getattr(target, name)
        copy_field(source, target, fields[-1])


def copy_field(source: Any, target: Any, name: str) -> None:
    """Copy a field, or clear it if it is absent."""
    target.ClearField(name)
    descriptor = source.DESCRIPTOR.fields_by_name[name]
    if descriptor.is_repeated:
        values = getattr(target, name)
        (values.update if hasattr(values, "update") else values.extend)(getattr(source, name))
    elif not descriptor.has_presence or source.HasField(name):
        if descriptor.message_type is None:
            setattr(target, name, getattr(source, name))
        else:
            getattr(target, name).CopyFrom(getattr(source, name))
