"""The common parts of both transports: settings, the closed state, and errors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from sandpool._core import status
from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Method
from sandpool._core.retry import RetryPolicy
from sandpool.errors import ClientClosedError, SandpoolError

_AFTER_FORK = (
    "this process was forked from the process that created the client, and gRPC does not work after a fork during a "
    "call in another thread; fork before the first call, or start the process with the multiprocessing method spawn"
)
_NOT_SENT = 'Failed "execute_batch"'
_HIDDEN = "the call ended while a message was sent, and gRPC does not report the status"


class TransportBase(ABC):
    """The server that calls are sent to, and how. Subclasses send the calls."""

    client_name = "SandboxClient"

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float | None, retry: RetryPolicy
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise ValueError(f"request_timeout must be greater than 0 seconds, not {timeout!r}; use None for no limit")
        self._endpoint = endpoint
        self._metadata = metadata
        self._timeout = timeout
        self._created_in = os.getpid()
        self.retry = retry
        """How calls are retried."""
        self.error_classes: Mapping[type[SandpoolError], type[SandpoolError]] = {}
        """Subclasses that are raised in place of classes of `sandpool.errors`."""

    @property
    def target(self) -> str:
        """The address that calls are sent to, as `host:port`."""
        return self._endpoint.target

    @abstractmethod
    def _is_closed(self) -> bool: ...

    def _pause_after(
        self, call: Call[Any, Any], found: SandpoolError, attempt: int, left: float | None
    ) -> float | None:
        """Return the delay before the call is sent again in seconds, or None if it must not be sent again."""
        return self.retry.pause(attempt, left, found.retry_after) if status.may_repeat(call, found.code) else None

    def _error(self, call: Call[Any, Any], failure: grpc.RpcError) -> SandpoolError:
        """Return the error for an error of gRPC: of a blocking call, which is a `grpc.Call`, or of grpc.aio."""
        if not isinstance(failure, (grpc.Call, grpc.aio.AioRpcError)):
            return status.error(call, self.target, "UNKNOWN", str(failure), None)
        code, message = failure.code().name, failure.details() or ""
        if _hides_the_status(failure):
            code, message = "UNAVAILABLE", _HIDDEN
        if code == "CANCELLED" and self._is_closed():
            return self._closed_error()
        try:
            details = rpc_status.from_call(cast(grpc.Call, failure))
        except ValueError:  # The details contradict the code. The code is correct.
            details = None
        found = status.error(call, self.target, code, message, details, self.error_classes)
        if found.reason == status.NO_RESPONSE and os.getpid() != self._created_in:
            found.message += f"; {_AFTER_FORK}"
            found.args = (found.message,)
        return found

    def _raise_if_closed(self, cause: Exception | None = None) -> None:
        if self._is_closed():
            raise self._closed_error() from cause

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError(f"the client of {self.target} is closed; create another {self.client_name}")


def _hides_the_status(failure: grpc.RpcError) -> bool:
    """Return whether grpc.aio replaces the status of the call by a different error.

    This happens when it cannot send a message because the call has ended (grpc/grpc#36066). A retry, if it is safe,
    gets the real status.
    """
    return isinstance(failure, grpc.aio.AioRpcError) and (failure.debug_error_string() or "").startswith(_NOT_SENT)


def multicallable(channel: Any, method: Method[Any], request: type[Any]) -> Any:
    """Return the channel's callable for a method."""
    requests = "stream" if method.streams_requests else "unary"
    responses = "stream" if method.streams_responses else "unary"
    make = getattr(channel, f"{requests}_{responses}")
    return make(
        method.path, request_serializer=request.SerializeToString, response_deserializer=method.response.FromString
    )
