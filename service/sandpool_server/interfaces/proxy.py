"""The interface to the data plane calls that the server proxies to agents."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol


class Proxy(Protocol):
    """Proxies calls of the public API to the agents in instances.

    `method` is the path of the RPC, such as `/sandpool.v1.ProcessService/StartProcess`. Requests and responses are the
    messages of that RPC; the use cases do not read them. The responses of agents are untrusted input: implementations
    check their sizes, types and values, and remove unknown fields. They do not read ahead in either direction, so a
    slow reader slows the sender down (backpressure).

    Cancelling the call, or closing the generator, cancels the call in the sandbox.

    Raises:
        SandpoolError: the agent refused the call; the class corresponds to the status of the agent.
        Unavailable: the agent does not respond, stops responding, or sends an invalid response.
    """

    async def call(
        self, instance_id: str, address: str, method: str, requests: AsyncIterator[object], timeout_secs: float
    ) -> object:
        """Make a call with one response and return it.

        The response must arrive within `timeout_secs` after the last request.
        """
        ...

    def stream(
        self, instance_id: str, address: str, method: str, requests: AsyncIterator[object]
    ) -> AsyncGenerator[object, None]:
        """Make a call with a stream of responses. The agent or the caller ends the stream; there is no time limit."""
        ...
