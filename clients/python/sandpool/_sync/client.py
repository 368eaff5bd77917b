# Code generated from _async/client.py by tools/codegen/blocking_client.py. DO NOT EDIT.
"""The client."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from types import TracebackType
from typing import overload

from typing_extensions import Self, Unpack

from sandpool._core import address as addresses
from sandpool._core import pools, sandboxes, secrets, templates
from sandpool._core.arguments import UNSET, Timeout
from sandpool._core.options import (
    AnyBatchOptions,
    AnyPoolOptions,
    AnySandboxOptions,
    ImageBatchOptions,
    ImagePoolOptions,
    ImageSandboxOptions,
    PoolChanges,
    PooledBatchOptions,
    PooledSandboxOptions,
    SandboxChanges,
    TemplateChanges,
    TemplateOptions,
    TemplatePoolOptions,
    expand_options,
)
from sandpool._core.resumption import NamedPools
from sandpool._core.retry import RetryPolicy
from sandpool._core.sandboxes import SandboxDraft
from sandpool._models.enums import SandboxState
from sandpool._models.pool import Pool, PoolEvent, Secret, Template
from sandpool._models.sandbox import SandboxInfo
from sandpool._sync.pool_watch import wait_for_pool, watch_all_pools, watch_named_pools
from sandpool._sync.resumption import resumed
from sandpool._sync.sandbox import Sandbox
from sandpool._transport.threads import Transport, opening

REQUEST_TIMEOUT = 30.0
"""The default time limit of a call, in seconds."""


class SandboxClient:
    """A client of one sandpool server.

    The first call connects. `close`, or the end of a block, closes the connection; sandboxes keep running. Any number
    of tasks and threads can use the client at the same time. A forked process opens its own connection.

    `pool_id`, `template_name` and `sandbox_id` accept the identifier or the name. `request_timeout` is the time limit
    of the call with its retries in seconds; the default is the one of the client, and None means no limit. `request_id`
    identifies a change, so that a retry with the same value has no further effect; by default the client generates one
    for each call.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Create a client. This does not connect.

        Args:
            address: The address of the server: `host:port`, or a URL whose scheme `https` means TLS. Default: the
                environment variable SANDPOOL_ADDRESS, otherwise 127.0.0.1:50051.
            api_key: The API key. Default: the environment variable SANDPOOL_API_KEY, otherwise none.
            request_timeout: The default time limit of a call with its retries, in seconds. Calls that create sandboxes
                have at least 120 s, plus the time limits of the wait queue and of the readiness probe. None: no limit.
            retry: How calls are retried while the server does not respond. Default: `RetryPolicy()`.

        Raises:
            ValueError: The address is not valid, or `request_timeout` is not greater than 0.
        """
        self._transport = Transport(
            addresses.find(address, os.environ),
            addresses.credentials(api_key, os.environ),
            request_timeout,
            retry or RetryPolicy(),
        )

    def __enter__(self) -> Self:
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
        """The address of the server, as `host:port`."""
        return self._transport.target

    def close(self) -> None:
        """Close the connection. Calls in progress fail with ClientClosedError. A second call does nothing."""
        self._transport.close()

    # Pools

    @overload
    def create_pool(self, name: str | None = None, *, image: str, **options: Unpack[ImagePoolOptions]) -> Pool: ...

    @overload
    def create_pool(
        self, name: str | None = None, *, template_name: str, **options: Unpack[TemplatePoolOptions]
    ) -> Pool: ...

    @expand_options(AnyPoolOptions)
    def create_pool(
        self,
        name: str | None = None,
        *,
        image: str | None = None,
        template_name: str | None = None,
        **options: Unpack[AnyPoolOptions],
    ) -> Pool:
        """Create a pool. The server starts to fill it; `wait_for_pool` waits until it is full.

        Exactly one of `image` and `template_name` defines the containers. The arguments `cpus` to `readiness_probe`
        require `image`.

        Args:
            name: The name, unique among pools. Default: none.
            image: The container image.
            template_name: The template whose specification the pool uses.
            cpus: The number of CPUs of each container. Default: 1.0.
            memory_mb: The memory of each container in MiB. Default: 512.
            ephemeral_disk_mb: The writable disk space of each container in MiB. Default: 1024.
            env: Environment variables of the sandbox's processes and of the entrypoint. They override those of the
                image.
            entrypoint: A program and its arguments that run next to the sandbox's commands. It starts with the
                container, or when the sandbox is claimed if the pool has secrets. When it exits, the sandbox
                terminates.
            secret_names: The names of secrets that each sandbox receives as environment variables.
            pull_policy: When the image is pulled: "missing" (default), "always" or "never".
            readiness_probe: A command that must succeed before a container counts as ready. Default: a container is
                ready when it can run commands.
            warm_containers: The number of warm containers to maintain. Default: none.
            size: With a template, another name of `warm_containers`.
            max_containers: The maximum number of containers in any state. Default: no limit.
            timeout_secs: The lifetime of a sandbox in seconds, counted from its claim. 0: no limit. Default: that of
                the template, otherwise no limit.
            paused: Whether to create the pool paused. Default: False.
            drained: Whether to create the pool drained, which implies paused. Default: False.
            image_refresh_interval: Seconds between two checks of whether the image's tag refers to another image. If it
                does, unclaimed containers are replaced. Default: never.
            warm_ttl: The age in seconds at which a warm container is replaced. Default: never.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: Not exactly one of `image` and `template_name` is given, an argument does not apply to a
                template, or both `warm_containers` and `size` are given.
            ResourceAlreadyExistsError: The name is in use.
            ResourceNotFoundError: The template or a secret does not exist.
            ValidationError: A value is out of range.
        """
        return self._transport.call(pools.create_pool(name, image, template_name, options))

    def get_pool(self, pool_id: str, *, request_timeout: Timeout = UNSET) -> Pool:
        """Return a pool with its current status.

        Raises:
            PoolNotFoundError: The pool does not exist.
        """
        return self._transport.call(pools.get_pool(pool_id, request_timeout))

    def list_pools(
        self, *, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> Generator[Pool, None, None]:
        """Iterate over the pools, oldest first. Pages are read as they are needed.

        Args:
            page_size: The number of pools per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        return self._transport.pages(lambda token: pools.list_pools(page_size, token, request_timeout))

    @expand_options(PoolChanges)
    def update_pool(self, pool_id: str, **changes: Unpack[PoolChanges]) -> Pool:
        """Update a pool. Arguments that are not given leave a field unchanged; None resets a field to its default.

        Warm containers of the earlier specification are replaced and never assigned. Active sandboxes keep the
        specification that they started with. The fields of the specification cannot be updated if the pool has a
        template.

        Args:
            pool_id: The pool.
            name: The new name. None removes the name.
            image: The container image.
            cpus: The number of CPUs of each container.
            memory_mb: The memory of each container in MiB.
            ephemeral_disk_mb: The writable disk space of each container in MiB.
            env: Environment variables, which replace the previous ones.
            entrypoint: A program and its arguments that run next to the sandbox's commands.
            secret_names: The names of secrets, which replace the previous ones.
            pull_policy: When the image is pulled: "missing", "always" or "never".
            readiness_probe: A command that must succeed before a container counts as ready.
            warm_containers: The number of warm containers to maintain.
            max_containers: The maximum number of containers in any state. None: no limit.
            timeout_secs: The lifetime of sandboxes that are claimed later, in seconds. 0: no limit. None: that of the
                template, otherwise no limit.
            paused: Whether the pool is paused: it creates no containers, and no sandboxes are claimed from it.
            drained: Whether the pool is drained: paused, with its unclaimed containers removed.
            image_refresh_interval: Seconds between two checks of the image's tag. None: never.
            warm_ttl: The age in seconds at which a warm container is replaced. None: never.
            etag: The expected etag. Default: update unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: No field is given.
            ResourceNotFoundError: The pool or a secret does not exist.
            ConflictError: The etag is not current.
            ValidationError: A value is out of range, or the pool has a template that defines the field.
        """
        return self._transport.call(pools.update_pool(pool_id, changes))

    def delete_pool(
        self,
        pool_id: str,
        *,
        force: bool = False,
        etag: str | None = None,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a pool and its unclaimed containers.

        Args:
            pool_id: The pool.
            force: Whether to terminate its active sandboxes too.
            etag: The expected etag. Default: delete unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            PoolInUseError: Sandboxes of the pool are active. The message lists them.
            PoolNotFoundError: The pool does not exist.
            ConflictError: The etag is not current.
        """
        self._transport.call(pools.delete_pool(pool_id, force, etag, request_id, request_timeout))

    def watch_pools(self, *pool_ids: str, timeout: float | None = None) -> Generator[PoolEvent, None, None]:
        """Iterate over the current state of pools and each change.

        Changes in quick succession may be merged into one event; the last state is always reported. The iterator
        continues after a broken connection with the current state, and reports pools that were deleted in the meantime.
        A watch of named pools ends when all of them are deleted.

        Args:
            pool_ids: The pools. Default: all pools, including pools that are created later.
            timeout: Time limit of the watch in seconds. It then raises ResourceTimeoutError. Default: no limit.

        Raises:
            PoolNotFoundError: A pool does not exist at the start of the watch.
        """
        named = NamedPools(pool_ids)
        if named.refs:
            return watch_named_pools(self._transport, named, timeout)
        return watch_all_pools(self._transport, timeout)

    def wait_for_pool(
        self,
        pool_id: str,
        *,
        warm: int | None = None,
        timeout: float | None = 300.0,
        on_progress: Callable[[Pool], object] | None = None,
        progress: bool = False,
    ) -> Pool:
        """Wait until a pool has its warm containers, and return it.

        Args:
            pool_id: The pool.
            warm: The number of warm containers to wait for. Default: the number that the pool aims at.
            timeout: Time limit of the wait in seconds. Default: 300. None: no limit.
            on_progress: Receives the pool in its current state and after each change, including its image pull.
            progress: Whether to show a progress bar. It requires tqdm, which `sandpool[progress]` installs.

        Raises:
            ModuleNotFoundError: With `progress`: tqdm is not installed.
            PoolNotFoundError: The pool does not exist, or it was deleted during the wait.
            PoolPausedError: The pool is paused or drained.
            ResourceTimeoutError: The time limit passed. The message contains the last error of the pool.
        """
        return wait_for_pool(self._transport, pool_id, warm, timeout, on_progress, progress)

    # Templates

    @expand_options(TemplateOptions)
    def create_template(self, name: str, *, image: str, **options: Unpack[TemplateOptions]) -> Template:
        """Create a template.

        Args:
            name: The name, unique among templates.
            image: The container image.
            cpus: The number of CPUs of each container. Default: 1.0.
            memory_mb: The memory of each container in MiB. Default: 512.
            ephemeral_disk_mb: The writable disk space of each container in MiB. Default: 1024.
            env: Environment variables of the sandbox's processes and of the entrypoint. They override those of the
                image.
            entrypoint: A program and its arguments that run next to the sandbox's commands. When it exits, the sandbox
                terminates.
            secret_names: The names of secrets that each sandbox receives as environment variables.
            pull_policy: When the image is pulled: "missing" (default), "always" or "never".
            readiness_probe: A command that must succeed before a container counts as ready. Default: a container is
                ready when it can run commands.
            timeout_secs: The lifetime of a sandbox in seconds, counted from its claim. 0: no limit. Default: no limit.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            ResourceAlreadyExistsError: The name is in use.
            SecretNotFoundError: A secret does not exist.
            ValidationError: A value is out of range.
        """
        return self._transport.call(templates.create_template(name, image, options))

    def get_template(self, template_name: str, *, request_timeout: Timeout = UNSET) -> Template:
        """Return a template.

        Raises:
            TemplateNotFoundError: The template does not exist.
        """
        return self._transport.call(templates.get_template(template_name, request_timeout))

    def list_templates(
        self, *, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> Generator[Template, None, None]:
        """Iterate over the templates, oldest first. Pages are read as they are needed.

        Args:
            page_size: The number of templates per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        return self._transport.pages(lambda token: templates.list_templates(page_size, token, request_timeout))

    @expand_options(TemplateChanges)
    def update_template(self, template_name: str, **changes: Unpack[TemplateChanges]) -> Template:
        """Update a template and every pool that uses it.

        Arguments that are not given leave a field unchanged; None resets a field to its default.

        Args:
            template_name: The template.
            name: The new name.
            image: The container image.
            cpus: The number of CPUs of each container.
            memory_mb: The memory of each container in MiB.
            ephemeral_disk_mb: The writable disk space of each container in MiB.
            env: Environment variables, which replace the previous ones.
            entrypoint: A program and its arguments that run next to the sandbox's commands.
            secret_names: The names of secrets, which replace the previous ones.
            pull_policy: When the image is pulled: "missing", "always" or "never".
            readiness_probe: A command that must succeed before a container counts as ready.
            timeout_secs: The lifetime of sandboxes that are claimed later, in seconds. 0 or None: no limit.
            etag: The expected etag. Default: update unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: No field is given.
            ResourceNotFoundError: The template or a secret does not exist.
            ResourceAlreadyExistsError: The name is in use.
            ConflictError: The etag is not current.
        """
        return self._transport.call(templates.update_template(template_name, changes))

    def delete_template(
        self,
        template_name: str,
        *,
        etag: str | None = None,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a template.

        Args:
            template_name: The template.
            etag: The expected etag. Default: delete unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TemplateInUseError: Pools use the template. The message lists them.
            TemplateNotFoundError: The template does not exist.
            ConflictError: The etag is not current.
        """
        self._transport.call(templates.delete_template(template_name, etag, request_id, request_timeout))

    # Secrets

    def create_secret(
        self, name: str, value: str, *, request_id: str | None = None, request_timeout: Timeout = UNSET
    ) -> Secret:
        """Create a secret. The server stores it encrypted, and no method returns the value.

        Args:
            name: The name of the secret and of the environment variable: a letter or an underscore, then at most 127
                letters, digits and underscores.
            value: The value, 1 to 65,536 characters.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            ResourceAlreadyExistsError: The name is in use.
            ValidationError: The name or the value is not valid.
        """
        return self._transport.call(secrets.create_secret(name, value, request_id, request_timeout))

    def get_secret(self, name: str, *, request_timeout: Timeout = UNSET) -> Secret:
        """Return a secret without its value.

        Raises:
            SecretNotFoundError: The secret does not exist.
        """
        return self._transport.call(secrets.get_secret(name, request_timeout))

    def list_secrets(
        self, *, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> Generator[Secret, None, None]:
        """Iterate over the secrets by name, without their values. Pages are read as they are needed.

        Args:
            page_size: The number of secrets per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        return self._transport.pages(lambda token: secrets.list_secrets(page_size, token, request_timeout))

    def update_secret(
        self, name: str, value: str, *, request_id: str | None = None, request_timeout: Timeout = UNSET
    ) -> Secret:
        """Update the value of a secret. Sandboxes that are claimed later receive the new value.

        Args:
            name: The secret.
            value: The new value, 1 to 65,536 characters.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            SecretNotFoundError: The secret does not exist.
        """
        return self._transport.call(secrets.update_secret(name, value, request_id, request_timeout))

    def delete_secret(
        self,
        name: str,
        *,
        force: bool = False,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a secret.

        Args:
            name: The secret.
            force: Whether to delete it while pools or templates reference it. Their sandboxes cannot start until a
                secret with this name exists again, or they no longer reference it.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            SecretInUseError: Pools or templates reference the secret. The message lists them.
            SecretNotFoundError: The secret does not exist.
        """
        self._transport.call(secrets.delete_secret(name, force, request_id, request_timeout))

    # Sandboxes

    @overload
    def create(self, *, pool_id: str, **options: Unpack[PooledSandboxOptions]) -> Sandbox: ...

    @overload
    def create(self, *, template_name: str, **options: Unpack[PooledSandboxOptions]) -> Sandbox: ...

    @overload
    def create(self, *, image: str, **options: Unpack[ImageSandboxOptions]) -> Sandbox: ...

    @expand_options(AnySandboxOptions)
    def create(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        **options: Unpack[AnySandboxOptions],
    ) -> Sandbox:
        """Create a sandbox, and return its handle when it can run commands.

        Exactly one of `pool_id`, `template_name` and `image` is the source. A sandbox from a pool or a template is
        assigned a warm container if there is one. The arguments `cpus` to `readiness_probe` require `image`. As a
        context manager, the result deletes the sandbox at the end of the block.

        Args:
            pool_id: The pool to claim from.
            template_name: The template. The sandbox is claimed from any pool that uses it.
            image: The image of a sandbox that belongs to no pool.
            name: The name, unique among sandboxes that are not terminated. Default: none.
            metadata: Labels. Default: none.
            timeout_secs: The lifetime in seconds, counted from the claim. 0: no limit. Default: that of the pool or the
                template, otherwise no limit.
            env: Environment variables of this sandbox. They override those of the pool, the template and the image. A
                warm container can still be assigned. With an image, its entrypoint receives them as well.
            when_empty: What to do when no warm container is available: "start_cold" (default), "wait" in the queue, or
                "fail". It requires a pool or a template.
            queue_timeout: Time limit in the wait queue in seconds. Default: 30. It requires `when_empty="wait"`.
            cpus: The number of CPUs. Default: 1.0.
            memory_mb: The memory in MiB. Default: 512.
            ephemeral_disk_mb: The writable disk space in MiB. Default: 1024.
            entrypoint: A program and its arguments that run next to the sandbox's commands. When it exits, the sandbox
                terminates.
            secret_names: The names of secrets that the sandbox receives as environment variables.
            pull_policy: When the image is pulled: "missing" (default), "always" or "never".
            readiness_probe: A command that must succeed before the sandbox counts as ready.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds. Default: the client's, at least 120 plus the time limits
                of the wait queue and of the readiness probe.

        Raises:
            TypeError: Not exactly one source is given, or an argument does not apply to the source.
            ResourceNotFoundError: The pool, the template or a secret does not exist.
            QuotaExceededError: The pool is at `max_containers`. See `retry_after`.
            PoolEmptyError: With `when_empty="fail"`: no warm container is available.
            ResourceTimeoutError: No container became available within `queue_timeout`, or the container was not ready
                in time.
            PoolPausedError: The pool is paused or drained.
            SecretUnavailableError: A referenced secret was deleted or cannot be decrypted.
            ResourceCreationError: The container could not be started.
        """
        return opening(self._create(SandboxDraft(pool_id, template_name, image, options)))

    @overload
    def create_batch(self, count: int, *, pool_id: str, **options: Unpack[PooledBatchOptions]) -> list[Sandbox]: ...

    @overload
    def create_batch(
        self, count: int, *, template_name: str, **options: Unpack[PooledBatchOptions]
    ) -> list[Sandbox]: ...

    @overload
    def create_batch(self, count: int, *, image: str, **options: Unpack[ImageBatchOptions]) -> list[Sandbox]: ...

    @expand_options(AnyBatchOptions)
    def create_batch(
        self,
        count: int,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        **options: Unpack[AnyBatchOptions],
    ) -> list[Sandbox]:
        """Create several identical sandboxes, all or none.

        The other arguments and the errors are those of `create`; there is no `name`.

        Args:
            count: The number of sandboxes, 1 to 1,000.
            pool_id: The pool to claim from.
            template_name: The template.
            image: The image of sandboxes that belong to no pool.
        """
        draft = SandboxDraft(pool_id, template_name, image, options)
        created = self._transport.call(sandboxes.create_batch(count, draft))
        return [Sandbox(info, self._transport, created=True) for info in created]

    def get_sandbox(self, sandbox_id: str, *, request_timeout: Timeout = UNSET) -> Sandbox:
        """Return a handle of a sandbox, including one that terminated within the retention time.

        Raises:
            SandboxNotFoundError: The sandbox does not exist.
        """
        info = self._transport.call(sandboxes.get_sandbox(sandbox_id, request_timeout))
        return Sandbox(info, self._transport, created=False)

    def list_sandboxes(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int | None = None,
        request_timeout: Timeout = UNSET,
    ) -> Generator[Sandbox, None, None]:
        """Iterate over handles of the sandboxes that match all filters, oldest first.

        Pages are read as they are needed.

        Args:
            pool_id: Only sandboxes of this pool.
            template_name: Only sandboxes of this template, directly or through a pool.
            states: Only sandboxes in these states. Default: all except terminated.
            metadata: Only sandboxes whose metadata contains all these entries.
            page_size: The number of sandboxes per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.

        Raises:
            ValueError: A state does not exist.
        """
        first = sandboxes.list_request(pool_id, template_name, states, metadata, page_size)
        found = self._transport.pages(lambda token: sandboxes.list_sandboxes(first, token, request_timeout))
        return self._handles(found)

    @expand_options(SandboxChanges)
    def update_sandbox(self, sandbox_id: str, **changes: Unpack[SandboxChanges]) -> Sandbox:
        """Update a sandbox, and return a new handle. Arguments that are not given leave a field unchanged.

        Args:
            sandbox_id: The sandbox.
            name: The new name. None removes the name.
            metadata: The new labels, which replace the previous ones. None removes all.
            timeout_secs: The new lifetime in seconds, counted from the claim. 0 or None: no limit.
            etag: The expected etag. Default: update unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            TypeError: No field is given.
            SandboxNotFoundError: The sandbox does not exist.
            ResourceStateError: The sandbox is terminated.
            ConflictError: The etag is not current.
        """
        info = self._transport.call(sandboxes.update_sandbox("update_sandbox", sandbox_id, changes))
        return Sandbox(info, self._transport, created=False)

    def delete_sandbox(
        self, sandbox_id: str, *, request_id: str | None = None, request_timeout: Timeout = UNSET
    ) -> None:
        """Delete a sandbox, including one that is starting. Its container is removed and never reused.

        Args:
            sandbox_id: The sandbox.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.

        Raises:
            SandboxNotFoundError: The sandbox does not exist.
        """
        self._transport.call(sandboxes.delete_sandbox(sandbox_id, request_id, request_timeout))

    def watch_sandbox(self, sandbox_id: str, *, timeout: float | None = None) -> Generator[SandboxInfo, None, None]:
        """Iterate over the current state of a sandbox and each change, until the sandbox is terminated.

        The iterator continues after a broken connection.

        Args:
            sandbox_id: The sandbox.
            timeout: Time limit of the watch in seconds. It then raises ResourceTimeoutError. Default: no limit.

        Raises:
            SandboxNotFoundError: The sandbox does not exist.
        """
        return resumed(self._transport, lambda left: sandboxes.watch_sandbox(sandbox_id, left), timeout)

    def _create(self, draft: SandboxDraft) -> Sandbox:
        info = self._transport.call(sandboxes.create_sandbox(draft))
        return Sandbox(info, self._transport, created=True)

    def _handles(self, found: Generator[SandboxInfo, None, None]) -> Generator[Sandbox, None, None]:
        with closing(found):
            for info in found:
                yield Sandbox(info, self._transport, created=False)
