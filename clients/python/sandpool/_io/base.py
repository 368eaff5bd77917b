"""What both transports share: settings, the state of being closed, and errors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from sandpool._core import status
from sandpool._core.address import Endpoint
from sandpool._core.call import Call, Method
from sandpool._core.retry import RetryPolicy
from sandpool.errors import ClientClosedError, SandpoolError

_AFTER_FORK = (
    "this process was forked off from the one that made the client, and gRPC does not work in it if another thread was "
    "in a call at that moment: fork first, or start the process anew (multiprocessing's spawn)"
)
_NOT_SENT = 'Failed "execute_batch"'
_HIDDEN = "the call ended while a message was on its way, and gRPC does not say how"


class TransportBase(ABC):
    """Where calls go and how; the subclasses send them."""

    client_name = "SandboxClient"

    def __init__(
        self, endpoint: Endpoint, metadata: tuple[tuple[str, str], ...], timeout: float, retry: RetryPolicy
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
        self._endpoint = endpoint
        self._metadata = metadata
        self._timeout = timeout
        self._made_in = os.getpid()
        self.retry = retry
        """How what may be repeated is repeated."""

    @property
    def target(self) -> str:
        """Where the calls go, as `host:port`."""
        return self._endpoint.target

    @abstractmethod
    def _is_closed(self) -> bool: ...

    def _pause_after(self, call: Call[Any, Any], found: SandpoolError, attempt: int, left: float) -> float | None:
        """How long to wait before the call is sent again, in seconds; None where it may not be, or not in time."""
        return self.retry.pause(attempt, left, found.retry_after) if status.may_repeat(call, found.code) else None

    def _error(self, call: Call[Any, Any], failure: grpc.RpcError) -> SandpoolError:
        """Our error for gRPC's: from a blocking call, which is a `grpc.Call` itself, or from one of asyncio."""
        if not isinstance(failure, (grpc.Call, grpc.aio.AioRpcError)):
            return status.error(call, self.target, "UNKNOWN", str(failure), None)
        code, message = failure.code().name, failure.details() or ""
        if _hides_the_end(failure):
            code, message = "UNAVAILABLE", _HIDDEN
        if code == "CANCELLED" and self._is_closed():
            return self._closed_error()
        try:
            details = rpc_status.from_call(cast(grpc.Call, failure))
        except ValueError:  # details that contradict the code; the code is what counts
            details = None
        found = status.error(call, self.target, code, message, details)
        if found.reason == status.NO_ANSWER and os.getpid() != self._made_in:
            found.message += f"; {_AFTER_FORK}"
            found.args = (found.message,)
        return found

    def _raise_if_closed(self, cause: Exception | None = None) -> None:
        if self._is_closed():
            raise self._closed_error() from cause

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError(f"the client of {self.target} is closed; make another {self.client_name}")


def _hides_the_end(failure: grpc.RpcError) -> bool:
    """Whether grpc.aio put an error of its own over the status that the call had ended with.

    It does so where a message of the caller cannot be sent any more (grpc/grpc#36066). What may be repeated is, and
    then the true status is told.
    """
    return isinstance(failure, grpc.aio.AioRpcError) and (failure.debug_error_string() or "").startswith(_NOT_SENT)


def multicallable(channel: Any, method: Method[Any], request: type[Any]) -> Any:
    """The channel's callable of a method, by whether it streams requests and answers."""
    requests = "stream" if method.streams_requests else "unary"
    answers = "stream" if method.streams_answers else "unary"
    make = getattr(channel, f"{requests}_{answers}")
    return make(
        method.path, request_serializer=request.SerializeToString, response_deserializer=method.response.FromString
    )
