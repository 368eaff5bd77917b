"""Calls that agents answer themselves."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol


class Relay(Protocol):
    """Passes calls of the public contract on to the agents inside members.

    A method is named by its path, `/sandpool.v1.ProcessService/StartProcess`; requests and answers are that method's
    messages, which nobody between transport and agent looks into. What an agent answers is hostile input: sizes, kinds
    and values are checked, and what the contract does not know is dropped. Nothing is read ahead on either side, so
    whoever does not read makes the other side wait.

    Raises the agent's refusal as a domain error, and `Unavailable` when it does not answer, stops to answer, or answers
    nonsense. Cancelling, or closing the generator, cancels the call in the sandbox.
    """

    async def call(
        self, member_id: str, address: str, method: str, requests: AsyncIterator[object], timeout_secs: float
    ) -> object:
        """Make a call of one answer, which must come within `timeout_secs` of the end of the requests."""
        ...

    def stream(
        self, member_id: str, address: str, method: str, requests: AsyncIterator[object]
    ) -> AsyncGenerator[object, None]:
        """Make a call of many answers; it lasts until the agent or the caller ends it."""
        ...
