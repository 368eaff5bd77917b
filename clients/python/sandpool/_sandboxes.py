"""The client's methods about sandboxes."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

from sandpool._core import sandboxes
from sandpool._core.arguments import UNSET, Maybe, one_of
from sandpool._core.enums import SandboxState
from sandpool._core.model import SandboxInfo
from sandpool._core.sandboxes import Filter, Wanted
from sandpool._core.specs import Spec
from sandpool._handle import Sandbox
from sandpool._transport import Transport


class SandboxMethods:
    """Sandboxes. `sandbox_id`, `pool_id` and `template_name` take the identifier or the name everywhere."""

    _transport: Transport

    @overload
    def create(
        self,
        *,
        pool_id: str,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox: ...

    @overload
    def create(
        self,
        *,
        template_name: str,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox: ...

    @overload
    def create(
        self,
        image: str,
        *,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox: ...

    def create(
        self,
        image: str | None = None,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox, from exactly one of a pool, a template and an image; answers when it runs commands.

        From a pool or a template a ready container is taken where there is one; otherwise one is started. The result is
        a context manager that deletes the sandbox at the end of the block.

        Args:
            image: The image of a sandbox that belongs to no pool.
            pool_id: The pool to draw from.
            template_name: The template: drawn from any pool that follows it.
            cpus: With an image: CPUs; 1.0 by default.
            memory_mb: With an image: memory in MiB; 512 by default.
            ephemeral_disk_mb: With an image: disk in MiB; 1024 by default.
            disk_mb: Another name of `ephemeral_disk_mb`.
            secret_names: With an image: names of secrets to give to it.
            entrypoint: With an image: a command that runs beside the sandbox's commands.
            name: A name, unique among the living sandboxes; none by default.
            metadata: Labels of the caller's choice.
            timeout_secs: Its lifetime in seconds; the pool's or the template's by default, else none.
            timeout: Seconds for this call; at least 120 by default, because an image may have to be pulled.

        Raises:
            TypeError: Not exactly one of pool_id, template_name and image, or what goes with an image without one.
            ResourceNotFoundError: There is no such pool, template or secret.
            QuotaExceededError: The pool is at `max_containers`.
            ResourceCreationError: The container could not be started.
        """
        spec = Spec(image, cpus, memory_mb, ephemeral_disk_mb, disk_mb, secret_names, entrypoint)
        return self._create(Wanted(pool_id, template_name, spec, name, metadata, timeout_secs), timeout)

    def claim(
        self,
        pool_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a pool: the same as `create(pool_id=…)`."""
        return self._create(Wanted(pool_id, name=name, metadata=metadata, timeout_secs=timeout_secs), timeout)

    def create_sandbox(
        self,
        template_name: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a template: the same as `create(template_name=…)`."""
        wanted = Wanted(template_name=template_name, name=name, metadata=metadata, timeout_secs=timeout_secs)
        return self._create(wanted, timeout)

    def sandbox(
        self,
        template_name: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a template for one block: `with client.sandbox("python-sandbox") as sandbox: …`."""
        return self.create_sandbox(
            template_name, name=name, metadata=metadata, timeout_secs=timeout_secs, timeout=timeout
        )

    @overload
    def create_batch(
        self,
        count: int,
        *,
        pool_id: str,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]: ...

    @overload
    def create_batch(
        self,
        count: int,
        *,
        template_name: str,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]: ...

    @overload
    def create_batch(
        self,
        count: int,
        *,
        image: str,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]: ...

    def create_batch(
        self,
        count: int,
        *,
        image: str | None = None,
        pool_id: str | None = None,
        template_name: str | None = None,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]:
        """Create `count` sandboxes alike, 1 to 1,000, all or none. Arguments and errors as `create`."""
        spec = Spec(image, cpus, memory_mb, ephemeral_disk_mb, disk_mb, secret_names, entrypoint)
        wanted = Wanted(pool_id, template_name, spec, None, metadata, timeout_secs)
        made = self._transport.call(sandboxes.create_batch(count, wanted, timeout))
        return [Sandbox(info, self._transport, created=True) for info in made]

    def get_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> Sandbox:
        """A handle of a sandbox, also of one that ended a while ago. Raises SandboxNotFoundError."""
        info = self._transport.call(sandboxes.get_sandbox(sandbox_id, timeout))
        return Sandbox(info, self._transport, created=False)

    def get(self, sandbox_id: str, *, timeout: float | None = None) -> Sandbox:
        """The same as `get_sandbox`."""
        return self.get_sandbox(sandbox_id, timeout=timeout)

    def list_sandboxes(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]:
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
        found = self._transport.pages(lambda token: sandboxes.list_sandboxes(first, token, timeout))
        return [Sandbox(info, self._transport, created=False) for info in found]

    def list(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> builtins.list[Sandbox]:
        """The same as `list_sandboxes`."""
        return self.list_sandboxes(
            pool_id=pool_id,
            template_name=template_name,
            states=states,
            metadata=metadata,
            page_size=page_size,
            timeout=timeout,
        )

    def update_sandbox(
        self,
        sandbox_id: str,
        name: Maybe[str | None] = UNSET,
        *,
        new_name: Maybe[str | None] = UNSET,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> Sandbox:
        """Change what is given of a sandbox; None puts a field back to its default.

        `timeout_secs` is the lifetime counted from the claim; raise it at any time to extend the life. `metadata`
        replaces all of it. `new_name` means `name`.

        Raises:
            TypeError: Nothing to change, or one field under two names.
            ResourceStateError: The sandbox has ended.
            ResourceChangedError: `etag` is given and is not the sandbox's present one.
        """
        fields = {
            "name": one_of(UNSET, name=name, new_name=new_name),
            "metadata": metadata,
            "timeout_secs": timeout_secs,
        }
        info = self._transport.call(sandboxes.update_sandbox(sandbox_id, fields, etag, timeout))
        return Sandbox(info, self._transport, created=False)

    def delete_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> None:
        """End a sandbox, also one that is still starting. Its container is removed and never used again."""
        self._transport.call(sandboxes.delete_sandbox(sandbox_id, timeout))

    def delete(self, sandbox_id: str, *, timeout: float | None = None) -> None:
        """The same as `delete_sandbox`."""
        self.delete_sandbox(sandbox_id, timeout=timeout)

    def watch_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> Iterator[SandboxInfo]:
        """The sandbox as it is and then after each change; ends after the state TERMINATED.

        With a `timeout` in seconds it ends with ResourceTimeoutError.
        """
        return self._transport.stream(sandboxes.watch_sandbox(sandbox_id, timeout))

    def _create(self, wanted: Wanted, timeout: float | None) -> Sandbox:
        info = self._transport.call(sandboxes.create_sandbox(wanted, timeout))
        return Sandbox(info, self._transport, created=True)
