"""The client's methods about sandboxes."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import overload

from sandpool._async.creation import CreationMethods
from sandpool._async.handle import AsyncSandbox
from sandpool._async.resuming import resumed
from sandpool._core import ports as port_calls
from sandpool._core import sandboxes
from sandpool._core.arguments import UNSET, Maybe, one_of, ref, ref_and_name
from sandpool._core.enums import SandboxState
from sandpool._core.inside import ExposedPort, SandboxLogs
from sandpool._core.model import SandboxInfo
from sandpool._core.sandboxes import Filter, Wanted
from sandpool._core.specs import Spec
from sandpool.errors import ResourceAlreadyExistsError, ResourceTimeoutError, SandboxNotFoundError, SandboxNotReadyError


class SandboxMethods(CreationMethods):
    """Sandboxes. `sandbox_id`, `pool_id` and `template_name` take the identifier or the name everywhere."""

    @overload
    async def get_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> AsyncSandbox: ...

    @overload
    async def get_sandbox(self, *, name: str, timeout: float | None = None) -> AsyncSandbox: ...

    async def get_sandbox(
        self, sandbox_id: str | None = None, *, name: str | None = None, timeout: float | None = None
    ) -> AsyncSandbox:
        """A handle of a sandbox, also of one that ended a while ago. Raises SandboxNotFoundError."""
        which = ref("sandbox_id", sandbox_id, name)
        info = await self._transport.call(sandboxes.get_sandbox(which, timeout))
        return AsyncSandbox(info, self._transport, created=False)

    async def get(self, sandbox_id: str, *, timeout: float | None = None) -> AsyncSandbox:
        """The same as `get_sandbox`."""
        return await self.get_sandbox(sandbox_id, timeout=timeout)

    async def connect(self, identifier: str, *, timeout: float | None = None) -> AsyncSandbox:
        """The same as `get_sandbox`."""
        return await self.get_sandbox(identifier, timeout=timeout)

    async def get_or_create(
        self,
        name: str,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncSandbox:
        """The living sandbox of this name, or a new one, from exactly one of a pool, a template and an image.

        As a context manager it is deleted at the end of the block only where this call created it. What is given beside
        the name counts for a new one alone. Errors as `create`.
        """
        spec = Spec(image)
        wanted = Wanted(pool_id, template_name, spec, name, metadata, timeout_secs, env)
        with suppress(SandboxNotFoundError):
            found = await self.get_sandbox(name, timeout=timeout)
            if found.state in {SandboxState.STARTING, SandboxState.RUNNING}:
                return await self.wait_for_sandbox(found.sandbox_id)
        try:
            return await self._create(wanted, timeout)
        except ResourceAlreadyExistsError:  # somebody else was faster
            return await self.wait_for_sandbox(name)

    async def expose_ports(
        self, sandbox_id: str, ports: int | Iterable[int], *, timeout: float | None = None
    ) -> builtins.list[ExposedPort]:
        """Serve ports of a sandbox by HTTP: see `Sandbox.expose_ports`."""
        numbers = port_calls.numbers(ports)
        return [await self._transport.call(port_calls.expose_port(sandbox_id, port, timeout)) for port in numbers]

    async def unexpose_ports(
        self, sandbox_id: str, ports: int | Iterable[int], *, timeout: float | None = None
    ) -> None:
        """Serve ports of a sandbox no longer: see `Sandbox.unexpose_ports`."""
        for port in port_calls.numbers(ports):
            await self._transport.call(port_calls.unexpose_port(sandbox_id, port, timeout))

    async def get_port_access(self, sandbox_id: str, *, timeout: float | None = None) -> builtins.list[ExposedPort]:
        """The ports of a sandbox that are exposed, by number."""
        return await self._transport.call(port_calls.list_exposed_ports(sandbox_id, timeout))

    async def get_logs(
        self,
        sandbox_id: str,
        *,
        process_ids: Iterable[str] | None = None,
        next_token: str | None = None,
        tail: int | None = None,
        timeout: float | None = None,
    ) -> SandboxLogs:
        """The lines of a sandbox's log: see `Sandbox.get_logs`."""
        box = await self.get_sandbox(sandbox_id, timeout=timeout)
        return await box.get_logs(process_ids=process_ids, next_token=next_token, tail=tail, timeout=timeout)

    @overload
    async def get_sandbox_status(self, sandbox_id: str, *, timeout: float | None = None) -> SandboxState: ...

    @overload
    async def get_sandbox_status(self, *, name: str, timeout: float | None = None) -> SandboxState: ...

    async def get_sandbox_status(
        self, sandbox_id: str | None = None, *, name: str | None = None, timeout: float | None = None
    ) -> SandboxState:
        """Where a sandbox is in its life. Raises SandboxNotFoundError."""
        which = ref("sandbox_id", sandbox_id, name)
        return (await self._transport.call(sandboxes.get_sandbox(which, timeout))).state

    @overload
    async def wait_for_sandbox(
        self, sandbox_id: str, *, timeout: float = 120.0, poll_interval: float = 1.0
    ) -> AsyncSandbox: ...

    @overload
    async def wait_for_sandbox(
        self, *, name: str, timeout: float = 120.0, poll_interval: float = 1.0
    ) -> AsyncSandbox: ...

    async def wait_for_sandbox(
        self,
        sandbox_id: str | None = None,
        *,
        name: str | None = None,
        timeout: float = 120.0,
        poll_interval: float = 1.0,
    ) -> AsyncSandbox:
        """A handle of a sandbox as soon as it runs commands, for those who did not create it: a creation waits itself.

        `timeout` is in seconds. `poll_interval` is taken and not needed: the server tells of the change at once.

        Raises:
            SandboxNotFoundError: There is none.
            SandboxNotReadyError: It has ended.
            ResourceTimeoutError: It still starts after `timeout`.
        """
        which, state = ref("sandbox_id", sandbox_id, name), ""
        try:
            async with aclosing(self.watch_sandbox(which, timeout=timeout)) as changes:
                async for info in changes:
                    state = str(info.state)
                    if info.state is SandboxState.RUNNING:
                        return AsyncSandbox(info, self._transport, created=False)
                    if info.state is not SandboxState.STARTING:
                        break
        except ResourceTimeoutError as failure:
            failure.last_status = state
            raise
        raise SandboxNotReadyError(
            f"sandbox {which!r} has ended; create another one",
            reason="SANDBOX_ENDED",
            resource_type="sandbox",
            resource_name=which,
        )

    async def list_sandboxes(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> builtins.list[AsyncSandbox]:
        """Handles of all sandboxes that meet all that is given, oldest first.

        Args:
            pool_id: Only those of this pool.
            template_name: Only those of this template, directly or through a pool.
            states: Only those in these states; all but TERMINATED by default.
            metadata: Only those with all of these pairs.
            page_size: How many are read at once, 100 by default.
            timeout: Seconds for each page; the client's by default.
        """
        first = Filter(pool_id, template_name, states, metadata).request(page_size)
        found = await self._transport.pages(lambda token: sandboxes.list_sandboxes(first, token, timeout))
        return [AsyncSandbox(info, self._transport, created=False) for info in found]

    async def list(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> builtins.list[AsyncSandbox]:
        """The same as `list_sandboxes`."""
        return await self.list_sandboxes(
            pool_id=pool_id,
            template_name=template_name,
            states=states,
            metadata=metadata,
            page_size=page_size,
            timeout=timeout,
        )

    async def update_sandbox(
        self,
        sandbox_id: str | None = None,
        name: Maybe[str | None] = UNSET,
        *,
        new_name: Maybe[str | None] = UNSET,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> AsyncSandbox:
        """Change what is given of a sandbox; None puts a field back to its default.

        `timeout_secs` is the lifetime counted from the claim; raise it at any time to extend the life. `metadata`
        replaces all of it. `new_name` means `name`, which without `sandbox_id` says which sandbox is meant.

        Raises:
            TypeError: Nothing to change, or one field under two names.
            ResourceStateError: The sandbox has ended.
            ResourceChangedError: `etag` is given and is not the sandbox's present one.
        """
        which, own_name = ref_and_name("sandbox_id", sandbox_id, name)
        fields = {
            "name": one_of(UNSET, name=own_name, new_name=new_name),
            "metadata": metadata,
            "timeout_secs": timeout_secs,
        }
        info = await self._transport.call(sandboxes.update_sandbox(which, fields, etag, timeout))
        return AsyncSandbox(info, self._transport, created=False)

    @overload
    async def delete_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> None: ...

    @overload
    async def delete_sandbox(self, *, name: str, timeout: float | None = None) -> None: ...

    async def delete_sandbox(
        self, sandbox_id: str | None = None, *, name: str | None = None, timeout: float | None = None
    ) -> None:
        """End a sandbox, also one that is still starting. Its container is removed and never used again."""
        await self._transport.call(sandboxes.delete_sandbox(ref("sandbox_id", sandbox_id, name), timeout))

    async def delete(self, sandbox_id: str, *, timeout: float | None = None) -> None:
        """The same as `delete_sandbox`."""
        await self.delete_sandbox(sandbox_id, timeout=timeout)

    def watch_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> AsyncGenerator[SandboxInfo, None]:
        """The sandbox as it is and then after each change, over broken connections too.

        It ends after the state TERMINATED, with a `timeout` in seconds with ResourceTimeoutError.
        """
        return resumed(self._transport, lambda left: sandboxes.watch_sandbox(sandbox_id, left), timeout)
