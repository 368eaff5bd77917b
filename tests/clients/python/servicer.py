"""A small server of the public contract that keeps everything in memory, for tests of the client alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sandpool.v1 import (
    pool_pb2,
    pool_service_pb2,
    pool_service_pb2_grpc,
    sandbox_pb2,
    sandbox_service_pb2,
    sandbox_service_pb2_grpc,
    template_pb2,
    template_service_pb2,
    template_service_pb2_grpc,
)


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
    requests: list[tuple[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    failures: dict[str, list[Failure]] = field(default_factory=dict)
    command: sandbox_service_pb2.RunCommandResponse = field(default_factory=sandbox_service_pb2.RunCommandResponse)
    hang: threading.Event = field(default_factory=threading.Event)
    hanging: set[str] = field(default_factory=set)
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


class Pools(pool_service_pb2_grpc.PoolServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreatePool(self, request, context):
        def work():
            pool = pool_pb2.Pool(
                pool_id=self.state.next_id("pool"),
                name=request.name,
                template_name=request.template_name,
                image=request.image or "template-image",
                cpus=request.cpus if request.HasField("cpus") else 1.0,
                memory_mb=request.memory_mb or 512,
                ephemeral_disk_mb=request.ephemeral_disk_mb or 1024,
                warm_containers=request.warm_containers,
                timeout_secs=request.timeout_secs,
                secret_names=request.secret_names,
                entrypoint=request.entrypoint,
                paused=request.paused,
                etag="e1",
                status=pool_pb2.PoolStatus(
                    state=pool_pb2.POOL_STATE_FILLING,
                    wanted=request.warm_containers,
                    hits=2**40,
                ),
            )
            pool.create_time.FromJsonString("2026-11-22T10:00:00.123456Z")
            if request.HasField("max_containers"):
                pool.max_containers = request.max_containers
            self.state.pools[pool.pool_id] = pool
            return pool_service_pb2.CreatePoolResponse(pool=pool)

        return self.state.answer("CreatePool", request, context, work)

    def GetPool(self, request, context):
        def work():
            return pool_service_pb2.GetPoolResponse(
                pool=self.state.find("pool", self.state.pools, request.pool_id, context)
            )

        return self.state.answer("GetPool", request, context, work)

    def ListPools(self, request, context):
        def work():
            items, token = page(self.state.pools, request)
            return pool_service_pb2.ListPoolsResponse(pools=items, next_page_token=token)

        return self.state.answer("ListPools", request, context, work)

    def UpdatePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            assign(pool, request)
            return pool_service_pb2.UpdatePoolResponse(pool=pool)

        return self.state.answer("UpdatePool", request, context, work)

    def DeletePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            del self.state.pools[pool.pool_id]
            return pool_service_pb2.DeletePoolResponse()

        return self.state.answer("DeletePool", request, context, work)

    def WatchPools(self, request, context):
        self.state.answer("WatchPools", request, context, lambda: None)
        event = pool_service_pb2.WatchPoolsResponse
        for pool in self.state.pools.values():
            yield event(pool=pool, type=pool_service_pb2.WATCH_EVENT_TYPE_PRESENT)
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(30)


class Templates(template_service_pb2_grpc.TemplateServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreateTemplate(self, request, context):
        def work():
            template = template_pb2.Template(
                template_id=self.state.next_id("tpl"),
                name=request.name,
                image=request.image,
                cpus=request.cpus if request.HasField("cpus") else 1.0,
                memory_mb=request.memory_mb or 512,
                ephemeral_disk_mb=request.ephemeral_disk_mb or 1024,
                etag="t1",
            )
            self.state.templates[template.template_id] = template
            return template_service_pb2.CreateTemplateResponse(template=template)

        return self.state.answer("CreateTemplate", request, context, work)

    def GetTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            return template_service_pb2.GetTemplateResponse(template=found)

        return self.state.answer("GetTemplate", request, context, work)

    def ListTemplates(self, request, context):
        def work():
            items, token = page(self.state.templates, request)
            return template_service_pb2.ListTemplatesResponse(templates=items, next_page_token=token)

        return self.state.answer("ListTemplates", request, context, work)

    def UpdateTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            assign(found, request)
            return template_service_pb2.UpdateTemplateResponse(template=found)

        return self.state.answer("UpdateTemplate", request, context, work)

    def DeleteTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            del self.state.templates[found.template_id]
            return template_service_pb2.DeleteTemplateResponse()

        return self.state.answer("DeleteTemplate", request, context, work)


class Sandboxes(sandbox_service_pb2_grpc.SandboxServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def _make(self, request):
        sandbox = sandbox_pb2.Sandbox(
            sandbox_id=self.state.next_id("sbx"),
            name=request.name,
            state=sandbox_pb2.SANDBOX_STATE_RUNNING,
            pool_id=request.pool_id,
            template_name=request.template_name,
            image=request.image or "inherited",
            metadata=request.metadata,
            timeout_secs=request.timeout_secs,
            start=sandbox_pb2.SANDBOX_START_COLD if request.image else sandbox_pb2.SANDBOX_START_WARM,
            start_duration=Duration(nanos=2_500_000),
            etag="s1",
        )
        self.state.sandboxes[sandbox.sandbox_id] = sandbox
        return sandbox

    def CreateSandbox(self, request, context):
        def work():
            return sandbox_service_pb2.CreateSandboxResponse(sandbox=self._make(request))

        return self.state.answer("CreateSandbox", request, context, work)

    def BatchCreateSandboxes(self, request, context):
        def work():
            made = [self._make(request.sandbox) for _ in range(request.count)]
            return sandbox_service_pb2.BatchCreateSandboxesResponse(sandboxes=made)

        return self.state.answer("BatchCreateSandboxes", request, context, work)

    def GetSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            return sandbox_service_pb2.GetSandboxResponse(sandbox=found)

        return self.state.answer("GetSandbox", request, context, work)

    def ListSandboxes(self, request, context):
        def work():
            items, token = page(self.state.sandboxes, request)
            return sandbox_service_pb2.ListSandboxesResponse(sandboxes=items, next_page_token=token)

        return self.state.answer("ListSandboxes", request, context, work)

    def UpdateSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            assign(found, request)
            return sandbox_service_pb2.UpdateSandboxResponse(sandbox=found)

        return self.state.answer("UpdateSandbox", request, context, work)

    def DeleteSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            found.state = sandbox_pb2.SANDBOX_STATE_TERMINATED
            found.end_reason = sandbox_pb2.SANDBOX_END_REASON_DELETED
            return sandbox_service_pb2.DeleteSandboxResponse(sandbox=found)

        return self.state.answer("DeleteSandbox", request, context, work)

    def WatchSandbox(self, request, context):
        found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
        yield sandbox_service_pb2.WatchSandboxResponse(sandbox=found)
        last = sandbox_pb2.Sandbox()
        last.CopyFrom(found)
        last.state = sandbox_pb2.SANDBOX_STATE_TERMINATED
        yield sandbox_service_pb2.WatchSandboxResponse(sandbox=last)

    def RunCommand(self, request, context):
        return self.state.answer("RunCommand", request, context, lambda: self.state.command)


@contextmanager
def serving(state: State, address: str = "127.0.0.1:0") -> Iterator[str]:
    """A server on loopback; gives its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    pool_service_pb2_grpc.add_PoolServiceServicer_to_server(Pools(state), server)
    template_service_pb2_grpc.add_TemplateServiceServicer_to_server(Templates(state), server)
    sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(Sandboxes(state), server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        state.hang.set()
        server.stop(grace=None).wait()
