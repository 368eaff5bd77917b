"""A call as a value: which method, with what, until when, and whether it may be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from google.protobuf.message import Message

ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class Repeat(Enum):
    """Whether a call may be sent again when it is not known what became of it."""

    SAFE = "safe"
    """A read, or a change with a request id: the server answers a repetition as it did the first time."""
    NEVER = "never"
    """Its effect would happen twice."""


@dataclass(frozen=True)
class Method(Generic[ResponseT]):
    """One method of the contract."""

    path: str
    """As on the wire, `/package.Service/Method`."""
    response: type[ResponseT]
    streams_requests: bool = False
    streams_answers: bool = False


@dataclass(frozen=True)
class Call(Generic[ResponseT, ResultT]):
    """One call, of one answer or of a stream of them.

    `timeout` is the whole call's in seconds, repetitions included. Where the caller gave none it is the client's usual
    one, but at least `least_timeout`.
    """

    method: Method[ResponseT]
    request: Message = field(repr=False)
    """Not shown: it may hold a secret's value, or an environment's."""
    convert: Callable[[ResponseT], ResultT]
    """From an answer to what the caller gets."""
    repeat: Repeat = Repeat.SAFE
    timeout: float | None = None
    least_timeout: float = 0.0
    command_timeout: float | None = None
    """The timeout of the command that the call runs, where it runs one."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {self.timeout!r}")

    def budget(self, usual: float) -> float:
        """How long the call may take in all, in seconds."""
        return max(usual, self.least_timeout) if self.timeout is None else self.timeout


@dataclass(frozen=True)
class Page(Generic[ItemT]):
    """One page of a list, and the token of the one after: empty on the last."""

    items: list[ItemT]
    next_page_token: str
