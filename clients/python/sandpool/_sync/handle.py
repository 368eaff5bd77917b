# Made from _async/handle.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The handle of one sandbox."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from types import TracebackType

from sandpool._core import sandboxes
from sandpool._core.arguments import UNSET, Maybe, one_of
from sandpool._core.model import SandboxInfo
from sandpool._sync.file_methods import FileMethods
from sandpool._sync.monitor import MonitorMethods
from sandpool._sync.processes import ProcessMethods
from sandpool._sync.resuming import resumed
from sandpool._sync.running import RunMethods
from sandpool._sync.terminals import TerminalMethods
from sandpool._sync.tunnels import PortMethods
from sandpool.errors import ResourceNotFoundError, SandpoolError

_log = logging.getLogger("sandpool")


class Sandbox(RunMethods, ProcessMethods, FileMethods, TerminalMethods, PortMethods, MonitorMethods):
    """A sandbox: run commands in it, and end it.

    As a context manager it is deleted at the end of the block when this client created it; one that was looked up
    (`get_sandbox`, `list_sandboxes`) keeps running. The attributes say what the handle heard last; `refresh()` asks.
    """

    def __enter__(self) -> Sandbox:
        _ = self._transport  # refuses a closed handle
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._created or self._closed:
            self.close()
            return
        try:
            self.delete()
        except ResourceNotFoundError:
            self.close()  # it ended long ago: what was to be reached
        except SandpoolError as failure:
            if error is None:
                raise
            # The block's own error matters more than this one.
            _log.warning("sandbox %s was not deleted: %s", self.sandbox_id, failure)

    def refresh(self, *, timeout: float | None = None) -> SandboxInfo:
        """Ask the server how the sandbox is; the attributes say it from then on."""
        self._info = self._transport.call(sandboxes.get_sandbox(self.sandbox_id, timeout))
        return self._info

    def update(
        self,
        name: Maybe[str | None] = UNSET,
        *,
        new_name: Maybe[str | None] = UNSET,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> SandboxInfo:
        """Change name, metadata or lifetime: what is given, as in `SandboxClient.update_sandbox`."""
        fields = {
            "name": one_of(UNSET, name=name, new_name=new_name),
            "metadata": metadata,
            "timeout_secs": timeout_secs,
        }
        self._info = self._transport.call(sandboxes.update_sandbox(self.sandbox_id, fields, etag, timeout))
        return self._info

    def watch(self, *, timeout: float | None = None) -> Generator[SandboxInfo, None, None]:
        """The sandbox as it is and then after each change, over broken connections too, until it has terminated."""
        return resumed(self._transport, lambda left: sandboxes.watch_sandbox(self.sandbox_id, left), timeout)

    def delete(self, *, timeout: float | None = None) -> None:
        """End the sandbox. Its container is removed and never used again; a second time does nothing more."""
        self._info = self._transport.call(sandboxes.delete_sandbox(self.sandbox_id, timeout))

    def terminate(self, *, timeout: float | None = None) -> None:
        """The same as `delete`."""
        self.delete(timeout=timeout)

    def close(self) -> None:
        """Let go of the handle. The sandbox keeps running; `delete` ends it."""
        self._closed = True
