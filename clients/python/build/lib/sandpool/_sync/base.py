# Made from _async/base.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""What every part of a sandbox's handle needs."""

from __future__ import annotations

from sandpool._core.model import SandboxInfo
from sandpool._core.view import SandboxView
from sandpool._io.blocking import Transport
from sandpool.errors import ClientClosedError


class HandleBase(SandboxView):
    """A sandbox, and how to reach it."""

    def __init__(self, info: SandboxInfo, transport: Transport, *, created: bool) -> None:
        super().__init__(info)
        self._channel = transport
        self._created = created
        self._closed = False

    @property
    def _transport(self) -> Transport:
        """How to reach it. Raises ClientClosedError where the handle is closed."""
        if self._closed:
            raise ClientClosedError(f"the handle of sandbox {self.sandbox_id} is closed; get_sandbox makes another")
        return self._channel
