"""A call as a value: the method, the request, the time limit, and whether a retry is safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from sandpool._core.arguments import UNSET, Timeout
from sandpool.errors import SandpoolError

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class Repeat(Enum):
    """Whether a call may be sent again after its response was lost."""

    SAFE = "safe"
    """A read, or a change that the server recognizes as a retry: a retry returns the first response."""
    NEVER = "never"
    """A retry would take effect a second time."""


@dataclass(frozen=True)
class Method(Generic[ResponseT]):
    """One method of the API."""

    path: str
    """The path on the wire, `/package.Service/Method`."""
    response: type[ResponseT]
    """The type of the response message."""
    streams_requests: bool = False
    """Whether the client sends a stream of requests."""
    streams_responses: bool = False
    """Whether the server sends a stream of responses."""


@dataclass(frozen=True)
class Call(Generic[ResponseT, ResultT]):
    """One call with a single response or a stream of responses."""

    method: Method[ResponseT]
    """The method to call."""
    request: Message = field(repr=False)
    """The request. `repr` omits it, because it may contain secrets."""
    convert: Callable[[ResponseT], ResultT]
    """Converts a response to the value that the caller receives."""
    repeat: Repeat = Repeat.SAFE
    """Whether a retry is safe."""
    timeout: Timeout = UNSET
    """Time limit of the call in seconds, including retries. UNSET means the timeout of the client."""
    minimum_timeout: float = 0.0
    """The least time limit in seconds if `timeout` is UNSET."""
    command_timeout: float | None = None
    """The timeout of the command that the call runs, in seconds, or None."""
    recover: Callable[[SandpoolError], Call[Any, ResultT] | None] | None = None
    """Given the error of a retry, returns the call to make instead, if the error shows that an earlier attempt took
    effect, or None."""

    def __post_init__(self) -> None:
        if isinstance(self.timeout, (int, float)) and not self.timeout > 0:
            raise ValueError(f"a timeout must be greater than 0 seconds, not {self.timeout!r}; use None for no limit")

    def limit(self, default: float | None) -> float | None:
        """Return the time limit in seconds, or None for no limit. `default` is the timeout of the client."""
        if self.timeout is not UNSET:
            return self.timeout
        return None if default is None else max(default, self.minimum_timeout)

    def stream_limit(self) -> float | None:
        """Return the time limit of a stream in seconds. A stream has no limit by default."""
        return None if self.timeout is UNSET else self.timeout


@dataclass(frozen=True)
class Page(Generic[ItemT]):
    """One page of a list."""

    items: list[ItemT]
    """The items of the page."""
    next_page_token: str
    """The token of the next page. Empty on the last page."""
