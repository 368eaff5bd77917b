# Code generated from _async/connection.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The connection that the parts of a sandbox handle share."""

from __future__ import annotations

from sandpool._transport.threads import Transport
from sandpool.errors import ClientClosedError


class Connection:
    """One sandbox, and the transport of its client."""

    def __init__(self, sandbox_id: str, transport: Transport) -> None:
        self.sandbox_id = sandbox_id
        self._transport = transport
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the handle is closed."""
        return self._closed

    @property
    def transport(self) -> Transport:
        """The transport. Raises ClientClosedError if the handle is closed."""
        if self._closed:
            raise ClientClosedError(
                f"the handle of sandbox {self.sandbox_id} is closed; create another one with get_sandbox"
            )
        return self._transport

    def close(self) -> None:
        """Close the handle."""
        self._closed = True
