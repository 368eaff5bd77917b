# Made from _async/client.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The client."""

from __future__ import annotations

import os
from types import TracebackType

from sandpool._core import address as addresses
from sandpool._core.retry import RetryPolicy
from sandpool._io.blocking import Transport
from sandpool._sync.pools import PoolMethods
from sandpool._sync.sandboxes import SandboxMethods
from sandpool._sync.secrets import SecretMethods
from sandpool._sync.templates import TemplateMethods


class SandboxClient(PoolMethods, TemplateMethods, SandboxMethods, SecretMethods):
    """A client of one sandpool server, for any number of tasks or threads.

    It connects with the first call and keeps the connection; `close()`, or the end of an `with` block, lets go of
    it. Sandboxes keep running. A process that was forked off gets a connection of its own.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            address: Where the server is: `host:port`, or with a scheme, of which `https` means TLS. By default the
                environment variable SANDPOOL_ADDRESS, else 127.0.0.1:50051.
            api_key: The key to authenticate with. By default the environment variable SANDPOOL_API_KEY, else none.
            timeout: Seconds for a call that is given no timeout of its own, repetitions included. Calls that create
                sandboxes get at least 120, and the time that they may wait in line on top.
            retry: How calls are repeated while the server does not answer. Only reads are, and changes that the server
                recognises by their request id; never commands.

        Raises:
            ValueError: The address cannot be understood, or the timeout is not more than 0.
        """
        self._transport = Transport(
            addresses.find(address, os.environ),
            addresses.credentials(api_key, os.environ),
            timeout,
            retry or RetryPolicy(),
        )

    @classmethod
    def for_localhost(cls, api_url: str = addresses.DEFAULT_ADDRESS, *, timeout: float = 30.0) -> SandboxClient:
        """A client of a server on this machine, whatever the environment says; it sends no API key."""
        return cls(api_url, api_key="", timeout=timeout)

    @classmethod
    def for_cloud(cls, api_key: str, api_url: str | None = None, *, timeout: float = 30.0) -> SandboxClient:
        """A client of a server elsewhere, with an API key.

        Args:
            api_key: The key to authenticate with.
            api_url: Where the server is, such as `https://sandpool.example`; by default SANDPOOL_ADDRESS.
            timeout: As in the constructor.

        Raises:
            ValueError: Neither says where the server is.
        """
        address = api_url or os.environ.get(addresses.ADDRESS_VARIABLE)
        if not address:
            raise ValueError(f"say where the server is: api_url, or {addresses.ADDRESS_VARIABLE} in the environment")
        return cls(address, api_key=api_key, timeout=timeout)

    def __enter__(self) -> SandboxClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address}>"

    @property
    def address(self) -> str:
        """Where the calls go, as `host:port`."""
        return self._transport.target

    def close(self) -> None:
        """Let go of the connection; calls under way end with ClientClosedError. A second time does nothing."""
        self._transport.close()
