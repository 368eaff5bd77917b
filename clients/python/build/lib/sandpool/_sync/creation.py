# Made from _async/creation.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The client's methods that create sandboxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from sandpool._core import sandboxes
from sandpool._core.sandboxes import Wanted, WhenEmptyLike
from sandpool._core.specs import Spec
from sandpool._io.blocking import Transport, opening
from sandpool._sync.handle import Sandbox


class CreationMethods:
    """Sandboxes from a pool, from a template or from an image."""

    _transport: Transport

    @overload
    def create(
        self,
        *,
        pool_id: str,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
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
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
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
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
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
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
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
            entrypoint: With an image: a command that runs beside the sandbox's commands. When it ends, so does the
                sandbox.
            readiness_command: With an image: a program and its arguments that must succeed before the sandbox counts as
                ready; none by default.
            readiness_interval_secs: With an image: seconds between two tries of it; 0.5 by default.
            readiness_timeout_secs: With an image: seconds that one try may take; 5 by default.
            readiness_retries: With an image: how often it may fail before the start is given up; 20 by default.
            name: A name, unique among the living sandboxes; none by default.
            metadata: Labels of the caller's choice.
            timeout_secs: Its lifetime in seconds; the pool's or the template's by default, else none.
            env: Environment of this sandbox's processes, over the pool's, the template's or the image's; a ready
                container is taken all the same.
            when_empty: With a pool or a template, what to do when no container is ready: "start_cold" (the default),
                "wait" in line, first come, first served, or "fail".
            wait_secs: With when_empty="wait": how long to wait in line in seconds; 30 by default.
            timeout: Seconds for this call; by default at least 120, because an image may have to be pulled, and on top
                what the wait in line and the readiness command may take. A shorter one ends the wait too.

        Raises:
            TypeError: Not exactly one of pool_id, template_name and image, or what goes with an image without one.
            ResourceNotFoundError: There is no such pool, template or secret.
            QuotaExceededError: The pool is at `max_containers`; `retry_after` says when to try again.
            PoolEmptyError: No container is ready, with when_empty="fail".
            ResourceTimeoutError: None became ready within `wait_secs`, or the started one was not ready in time.
            PoolPausedError: The pool is paused or drained.
            SecretUnavailableError: A secret that the pool or the template names was deleted, or cannot be read.
            ResourceCreationError: The container could not be started.
        """
        spec = Spec(
            image,
            cpus,
            memory_mb,
            ephemeral_disk_mb,
            disk_mb,
            secret_names,
            entrypoint,
            readiness_command=readiness_command,
            readiness_interval_secs=readiness_interval_secs,
            readiness_timeout_secs=readiness_timeout_secs,
            readiness_retries=readiness_retries,
        )
        wanted = Wanted(pool_id, template_name, spec, name, metadata, timeout_secs, env, when_empty, wait_secs)
        return opening(self._create(wanted, timeout))

    create_and_connect = create
    """The same as `create`: what it gives is connected."""

    def claim(
        self,
        pool_id: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a pool: the same as `create(pool_id=…)`."""
        wanted = Wanted(pool_id, None, Spec(), name, metadata, timeout_secs, env, when_empty, wait_secs)
        return opening(self._create(wanted, timeout))

    def create_sandbox(
        self,
        template_name: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a template: the same as `create(template_name=…)`."""
        wanted = Wanted(None, template_name, Spec(), name, metadata, timeout_secs, env, when_empty, wait_secs)
        return opening(self._create(wanted, timeout))

    def sandbox(
        self,
        template_name: str,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> Sandbox:
        """Create a sandbox from a template for one block: `with client.sandbox("python") as sandbox: …`."""
        return self.create_sandbox(
            template_name,
            name=name,
            metadata=metadata,
            timeout_secs=timeout_secs,
            env=env,
            when_empty=when_empty,
            wait_secs=wait_secs,
            timeout=timeout,
        )

    @overload
    def create_batch(
        self,
        count: int,
        *,
        pool_id: str,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> list[Sandbox]: ...

    @overload
    def create_batch(
        self,
        count: int,
        *,
        template_name: str,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> list[Sandbox]: ...

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
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> list[Sandbox]: ...

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
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_secs: int | None = None,
        env: Mapping[str, str] | None = None,
        when_empty: WhenEmptyLike | None = None,
        wait_secs: float | None = None,
        timeout: float | None = None,
    ) -> list[Sandbox]:
        """Create `count` sandboxes alike, 1 to 1,000, all or none. Arguments and errors as `create`."""
        spec = Spec(
            image,
            cpus,
            memory_mb,
            ephemeral_disk_mb,
            disk_mb,
            secret_names,
            entrypoint,
            readiness_command=readiness_command,
            readiness_interval_secs=readiness_interval_secs,
            readiness_timeout_secs=readiness_timeout_secs,
            readiness_retries=readiness_retries,
        )
        wanted = Wanted(pool_id, template_name, spec, None, metadata, timeout_secs, env, when_empty, wait_secs)
        made = self._transport.call(sandboxes.create_batch(count, wanted, timeout))
        return [Sandbox(info, self._transport, created=True) for info in made]

    def _create(self, wanted: Wanted, timeout: float | None) -> Sandbox:
        info = self._transport.call(sandboxes.create_sandbox(wanted, timeout))
        return Sandbox(info, self._transport, created=True)
