"""A gRPC server of the public API whose responses come from a script, for clients in any language."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sandpool._core import methods
from sandpool._core.call import Method

METHODS = {method.path: method for method in vars(methods).values() if isinstance(method, Method)}
_NO_DEADLINE = 1e12
"""gRPC reports more seconds than this for a call without a deadline."""


@dataclass(frozen=True)
class ReceivedCall:
    """A call that the server received."""

    method: str
    message: dict[str, Any]
    """The first request as JSON, with the field names of the proto files."""
    deadline: float | None
    """The remaining seconds when the call arrived, or None without a deadline."""


@dataclass
class ScriptedServer:
    """The responses to give, and the calls that were received.

    `script` maps the name of a method to its responses, in order; the last one repeats. A response is a mapping with
    `response` (JSON of the message) or `responses` (a list, for a stream), and `error` (`code`, `message`, `reason`,
    `resource_type`, `resource_name`, `retry_after`), which follows the responses.
    """

    script: Mapping[str, Sequence[Mapping[str, Any]]]
    address: str = ""
    calls: list[ReceivedCall] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_item(self, method: str, request: Message, context: grpc.ServicerContext) -> Mapping[str, Any]:
        """Record a call and return the item of the script for it."""
        left = context.time_remaining()
        deadline = left if left is not None and left < _NO_DEADLINE else None
        message = json_format.MessageToDict(request, preserving_proto_field_name=True)
        with self._lock:
            number = sum(call.method == method for call in self.calls)
            self.calls.append(ReceivedCall(method, message, deadline))
        items = self.script.get(method)
        if not items:
            return {"error": {"code": "UNIMPLEMENTED", "message": f"the script has no response for {method}"}}
        return items[min(number, len(items) - 1)]


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = METHODS.get(str(details.method))
        if method is None:
            return None
        name = method.path.rpartition("/")[2]
        service = method.response.DESCRIPTOR.file.services_by_name
        request_type = next(iter(service.values())).methods_by_name[name].input_type._concrete_class

        def responses(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            first = next(request) if method.streams_requests else request
            item = self._server.next_item(name, first, context)
            found = item.get("responses") or ([item["response"]] if "response" in item else [])
            for response in found:
                yield json_format.ParseDict(response, method.response())
            if "error" in item:
                abort(context, item["error"])

        def response(request: Any, context: grpc.ServicerContext) -> Message:
            return next(responses(request, context), method.response())

        kinds = ("stream" if method.streams_requests else "unary", "stream" if method.streams_responses else "unary")
        make = getattr(grpc, f"{kinds[0]}_{kinds[1]}_rpc_method_handler")
        handler: grpc.RpcMethodHandler = make(
            responses if method.streams_responses else response,
            request_deserializer=request_type.FromString,
            response_serializer=method.response.SerializeToString,
        )
        return handler


def abort(context: grpc.ServicerContext, error: Mapping[str, Any]) -> None:
    """End a call with an error."""
    code, message = grpc.StatusCode[error["code"]], error.get("message", "scripted error")
    details: list[Message] = []
    if "reason" in error:
        details.append(rpc.ErrorInfo(reason=error["reason"], domain="sandpool"))
    if "resource_type" in error:
        details.append(
            rpc.ResourceInfo(resource_type=error["resource_type"], resource_name=error.get("resource_name", ""))
        )
    if "retry_after" in error:
        delay = Duration()
        delay.FromMilliseconds(round(error["retry_after"] * 1000))
        details.append(rpc.RetryInfo(retry_delay=delay))
    if not details:
        context.abort(code, message)
    packed = []
    for detail in details:
        item = AnyMessage()
        item.Pack(detail)
        packed.append(item)
    context.abort_with_status(rpc_status.to_status(Status(code=code.value[0], message=message, details=packed)))


@contextmanager
def scripted(script: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[ScriptedServer]:
    """Run a scripted server on a free local port."""
    found = ScriptedServer(script)
    server = grpc.server(ThreadPoolExecutor(8), handlers=(_Handler(found),))
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(grace=None).wait()
