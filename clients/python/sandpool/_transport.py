"""Executes calls over a blocking gRPC channel: deadlines, repetitions, errors. An asyncio twin replaces this module."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from sandpool._core import status
from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Page
from sandpool._core.retry import RetryPolicy
from sandpool.errors import ClientClosedError, SandpoolError

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class Transport:
    """One channel to one server, for any number of threads. It connects with the first call."""

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float, retry: RetryPolicy
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
        self._endpoint = endpoint
        self._metadata = metadata
        self._timeout = timeout
        self._retry = retry
        self._closed = threading.Event()
        options = endpoint.channel_options()
        self._channel = (
            grpc.secure_channel(endpoint.target, grpc.ssl_channel_credentials(), options=options)
            if endpoint.tls
            else grpc.insecure_channel(endpoint.target, options=options)
        )
        self._callables: dict[str, Any] = {}

    @property
    def target(self) -> str:
        """Where the calls go, as `host:port`."""
        return self._endpoint.target

    def close(self) -> None:
        """Close the channel; calls under way end with ClientClosedError. A second time does nothing."""
        self._closed.set()
        self._channel.close()

    def call(self, call: Call[ResponseT, ResultT]) -> ResultT:
        """Make a call of one answer, again where that is safe and the server does not answer."""
        end = time.monotonic() + call.budget(self._timeout)
        attempt = 0
        while True:
            attempt += 1
            left = end - time.monotonic()
            try:
                return call.convert(self._send(call, left))
            except grpc.RpcError as failure:
                found = self._error(call, failure)
                pause = None
                if status.may_repeat(call, found.code):
                    pause = self._retry.pause(attempt, end - time.monotonic(), found.retry_after)
                if pause is None:
                    raise found from failure
            if self._closed.wait(pause):
                raise self._closed_error()

    def pages(self, page: Callable[[str], Call[ResponseT, Page[ItemT]]]) -> list[ItemT]:
        """All items of all pages; `page` makes the call for the page with a token."""
        items: list[ItemT] = []
        token = ""
        while True:
            found = self.call(page(token))
            items.extend(found.items)
            token = found.next_page_token
            if not token:
                return items

    def stream(self, call: Call[ResponseT, ResultT]) -> Generator[ResultT, None, None]:
        """Make a call of many answers; it ends when the iterator is closed. Without a timeout it lasts."""
        answers = self._callable(call, stream=True)(call.request, timeout=call.timeout, metadata=self._metadata)
        try:
            for answer in answers:
                yield call.convert(answer)
        except grpc.RpcError as failure:
            raise self._error(call, failure) from failure
        finally:
            answers.cancel()

    def _send(self, call: Call[ResponseT, ResultT], timeout: float) -> ResponseT:
        send = self._callable(call, stream=False)
        try:
            response: ResponseT = send(call.request, timeout=max(timeout, 0.0), metadata=self._metadata)
        except ValueError as failure:  # what grpc raises on a channel that another thread has just closed
            self._raise_if_closed(failure)
            raise
        return response

    def _callable(self, call: Call[Any, Any], *, stream: bool) -> Any:
        self._raise_if_closed()
        found = self._callables.get(call.method.path)
        if found is None:
            make = self._channel.unary_stream if stream else self._channel.unary_unary
            found = make(
                call.method.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.method.response.FromString,
            )
            self._callables[call.method.path] = found
        return found

    def _error(self, call: Call[Any, Any], failure: grpc.RpcError) -> SandpoolError:
        if not isinstance(failure, grpc.Call):
            return status.error(call, self.target, "UNKNOWN", str(failure), None)
        code = failure.code().name
        if code == "CANCELLED" and self._closed.is_set():
            return self._closed_error()
        try:
            details = rpc_status.from_call(failure)
        except ValueError:  # details that contradict the code; the code is what counts
            details = None
        return status.error(call, self.target, code, failure.details() or "", details)

    def _raise_if_closed(self, cause: Exception | None = None) -> None:
        if self._closed.is_set():
            raise self._closed_error() from cause

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError(f"the client of {self.target} is closed; make another SandboxClient")
