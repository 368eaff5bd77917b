"""The client and the handles of the module `langsmith`."""

# The methods follow the other product where its arguments and results differ from those of the base class.
# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Literal, overload

from typing_extensions import Unpack

import sandpool
from sandpool import (
    UNSET,
    AsyncTunnel,
    CommandResult,
    OutputChunk,
    RetryPolicy,
    SandboxState,
    SandpoolError,
    Template,
    TerminalSize,
)
from sandpool._core.arguments import Maybe, Timeout
from sandpool._core.options import (
    AnyBatchOptions,
    AnySandboxOptions,
    ImagePoolOptions,
    PooledSandboxOptions,
    PoolSettings,
    TemplateOptions,
    TemplateSettings,
    UpdateOptions,
    expand_options,
)
from sandpool._transport.asyncio import OnOutput, Opening, opening
from sandpool.compat._async.sandbox_wait import wait_until_running
from sandpool.compat._core.arguments import copied_as, cpus, mebibytes, reference, rename
from sandpool.compat._core.langsmith import ERROR_CLASSES, Pool, new_name

_COMMAND_TIMEOUT = 60.0
_IDLE_TIMEOUT = 300.0
_TTL_SECONDS = 600.0
_KILL_TIMEOUT = 5.0


class AsyncCommandHandle:
    """A command that runs in a sandbox.

    Iteration yields the output as it arrives. The command does not depend on the connection: the client resumes the
    output at the last received byte after a broken connection. `process` is the same command as a handle of `sandpool`.
    """

    def __init__(self, sandbox: AsyncSandbox, process: sandpool.AsyncProcess) -> None:
        self._sandbox = sandbox
        self.process = process

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.command_id}>"

    async def __aiter__(self) -> AsyncGenerator[OutputChunk, None]:
        async with aclosing(aiter(self.process)) as chunks:
            async for chunk in chunks:
                yield chunk

    @property
    def command_id(self) -> str:
        """The identifier of the command. Pass it to `Sandbox.reconnect`."""
        return self.process.process_id

    @property
    def pid(self) -> int | None:
        """The process id (PID) inside the sandbox, or None while no run exists."""
        return self.process.pid

    @property
    def last_stdout_offset(self) -> int:
        """The offset of the next byte of standard output."""
        return self.process.stdout_offset

    @property
    def last_stderr_offset(self) -> int:
        """The offset of the next byte of standard error."""
        return self.process.stderr_offset

    @property
    async def result(self) -> CommandResult:
        """How the command exited, and its output since this handle is attached. This waits for the exit."""
        return await self.process.wait()

    async def kill(self) -> None:
        """Kill the command with all its descendants, and wait until they have exited."""
        await self.process.kill()

    async def send_input(self, data: str | bytes) -> None:
        """Write to the standard input of the command. Text is encoded as UTF-8."""
        await self.process.write_stdin(data)

    async def reconnect(self) -> AsyncCommandHandle:
        """Return another handle, which continues where this one is. A handle reconnects itself after a failure."""
        return await self._sandbox.reconnect(
            self.command_id, stdout_offset=self.process.stdout_offset, stderr_offset=self.process.stderr_offset
        )


class AsyncSandbox(sandpool.AsyncSandbox):
    """A handle of a sandbox, which runs commands in it and manages it."""

    @property
    def name(self) -> str:
        """The name. A sandbox that was created without a name by another client has its identifier as its name."""
        return super().name or self.sandbox_id

    @property
    def template_name(self) -> str | None:
        """The name of the template that the sandbox uses, or None."""
        return self.info.template_name

    @property
    def status(self) -> SandboxState:
        """The last known state."""
        return self.state

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = _COMMAND_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        shell: str | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        wait: Literal[True] = True,
        user: str | None = None,
    ) -> CommandResult: ...

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = _COMMAND_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        shell: str | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        wait: Literal[False],
        user: str | None = None,
    ) -> AsyncCommandHandle: ...

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = _COMMAND_TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        shell: str | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        idle_timeout: float | None = _IDLE_TIMEOUT,
        kill_on_disconnect: bool = False,
        ttl_seconds: float | None = _TTL_SECONDS,
        pty: bool = False,
        wait: bool = True,
        user: str | None = None,
    ) -> CommandResult | AsyncCommandHandle:
        """Run a command, and wait until it has exited or return a handle of it.

        Args:
            command: A shell command, or a list of the program and its arguments.
            timeout: Time limit of the command in seconds. It is then killed with all its descendants. None: no limit.
            env: Environment variables, which override those of the sandbox.
            cwd: The working directory, an absolute path. Default: that of the image.
            shell: The program that runs a shell command. Default: /bin/bash, or /bin/sh if the image has no bash.
            on_stdout: Receives standard output as text, as it arrives.
            on_stderr: Receives standard error as text, as it arrives.
            idle_timeout: Time limit without an attached client in seconds. None: no limit.
            kill_on_disconnect: Whether to kill the command when its last client detaches.
            ttl_seconds: How long the output is retained after the exit, in seconds.
            pty: Whether to run the command on a terminal. All output is standard output then.
            wait: With False, return a handle when the command runs. Its standard input accepts data.
            user: The user that runs the command. Default: that of the image.

        Returns:
            The output and how the command exited. An exit code other than 0 raises no error.

        Raises:
            TypeError: `on_stdout` or `on_stderr` is given with `wait=False`.
        """
        if not wait and (on_stdout is not None or on_stderr is not None):
            raise TypeError("on_stdout and on_stderr require wait=True; with wait=False, iterate over the handle")
        if shell is not None and isinstance(command, str):
            command = [shell, "-c", command]
        if wait and not pty and (idle_timeout, kill_on_disconnect, ttl_seconds) == _RUN_DEFAULTS:
            return await super().run(
                command, timeout=timeout, env=env, cwd=cwd, user=user, on_stdout=on_stdout, on_stderr=on_stderr
            )
        process = await self.processes.start(
            command,
            timeout=timeout,
            env=env,
            cwd=cwd,
            user=user,
            stdin=not wait and not pty,
            terminal=TerminalSize() if pty else None,
            idle_timeout=idle_timeout,
            kill_on_disconnect=kill_on_disconnect,
            retention=ttl_seconds,
        )
        if not wait:
            return AsyncCommandHandle(self, process)
        try:
            return await process.wait(on_stdout=on_stdout, on_stderr=on_stderr)
        except SandpoolError:
            raise
        except BaseException:  # The caller stopped waiting, or a callback failed.
            with suppress(SandpoolError):
                await process.kill(request_timeout=_KILL_TIMEOUT)
            raise

    async def reconnect(self, command_id: str, *, stdout_offset: int = 0, stderr_offset: int = 0) -> AsyncCommandHandle:
        """Return a handle of a command that was started by this client or another one.

        Args:
            command_id: The command.
            stdout_offset: The offset of the first byte of standard output to read.
            stderr_offset: The offset of the first byte of standard error to read.
        """
        process = await self.processes.attach(command_id, stdout_offset=stdout_offset, stderr_offset=stderr_offset)
        return AsyncCommandHandle(self, process)

    async def write(self, path: str, content: str | bytes, *, timeout: Timeout = UNSET) -> None:
        """Write a file. Missing parent directories are created. `timeout` is the time limit in seconds."""
        await self.files.write(path, content, request_timeout=timeout)

    async def read(self, path: str, *, timeout: Timeout = UNSET) -> bytes:
        """Return the content of a file. `timeout` is the time limit in seconds."""
        return await self.files.read(path, request_timeout=timeout)

    def tunnel(self, remote_port: int, *, local_port: int = 0, max_reconnects: int = 3) -> Opening[AsyncTunnel]:
        """Open a local port that forwards connections to a port inside the sandbox.

        Args:
            remote_port: The port inside the sandbox.
            local_port: The local port. Default: any free port; see `Tunnel.local_port`.
            max_reconnects: Ignored. The retry policy of the client applies.
        """
        return self.ports.tunnel(remote_port, local_port=local_port)


_RUN_DEFAULTS = (_IDLE_TIMEOUT, False, _TTL_SECONDS)
"""`idle_timeout`, `kill_on_disconnect` and `ttl_seconds` of each command of `sandpool.AsyncSandbox.run`."""


class AsyncSandboxClient(sandpool.AsyncSandboxClient):
    """A client of one sandpool server with the methods of the LangSmith client.

    A `timeout` is the time limit of the call in seconds: `request_timeout` of the client of `sandpool`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_endpoint: str | None = None,
        timeout: Timeout = UNSET,
        api_key: str | None = None,
        max_retries: int | None = None,
        request_timeout: float | None = 30.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Create a client. This does not connect.

        Args:
            address: The address of the server. Default: the environment variable SANDPOOL_ADDRESS, otherwise
                127.0.0.1:50051.
            api_endpoint: Another name of `address`.
            timeout: Another name of `request_timeout`.
            api_key: The API key. Default: the environment variable SANDPOOL_API_KEY, otherwise none.
            max_retries: The maximum number of retries of a call. Default: that of `retry`.
            request_timeout: The default time limit of a call with its retries, in seconds. None: no limit.
            retry: How calls are retried while the server does not respond.
        """
        if max_retries is not None:
            retry = replace(retry or RetryPolicy(), max_attempts=max_retries + 1)
        super().__init__(
            address or api_endpoint,
            api_key=api_key,
            request_timeout=request_timeout if timeout is UNSET else timeout,
            retry=retry,
        )
        self._transport.error_classes = ERROR_CLASSES

    # Templates

    @expand_options(TemplateOptions)
    async def create_template(
        self,
        name: str,
        image: str,
        *,
        cpu: Maybe[str | float | None] = UNSET,
        memory: Maybe[str | int | None] = UNSET,
        storage: Maybe[str | int | None] = UNSET,
        **options: Unpack[TemplateOptions],
    ) -> Template:
        """Create a template.

        Args:
            name: The name, unique among templates.
            image: The container image.
            cpu: The number of CPUs, for example "500m" or 2.
            memory: The memory, for example "512Mi".
            storage: The writable disk space, for example "1Gi".
            options: The other arguments of `sandpool.AsyncSandboxClient.create_template`.
        """
        arguments = rename(
            options,
            cpus={"cpu": cpus(cpu)},
            memory_mb={"memory": mebibytes("memory", memory)},
            ephemeral_disk_mb={"storage": mebibytes("storage", storage)},
        )
        return await super().create_template(name, image=image, **arguments)

    async def get_template(self, name: str, *, request_timeout: Timeout = UNSET) -> Template:
        """Return a template."""
        return await super().get_template(name, request_timeout=request_timeout)

    async def list_templates(self, *, page_size: int | None = None, request_timeout: Timeout = UNSET) -> list[Template]:
        """Return all templates, oldest first."""
        found = super().list_templates(page_size=page_size, request_timeout=request_timeout)
        return [template async for template in found]

    @expand_options(TemplateSettings)
    async def update_template(
        self,
        name: str,
        *,
        new_name: Maybe[str] = UNSET,
        image: Maybe[str] = UNSET,
        **changes: Unpack[TemplateSettings],
    ) -> Template:
        """Update a template and every pool that uses it. Arguments that are not given leave a field unchanged.

        Args:
            name: The template.
            new_name: The new name.
            image: The container image.
            changes: The other arguments of `sandpool.AsyncSandboxClient.update_template`.
        """
        return await super().update_template(name, name=new_name, image=image, **changes)

    async def delete_template(
        self,
        name: str,
        *,
        etag: str | None = None,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a template. The other arguments are those of `sandpool.AsyncSandboxClient.delete_template`."""
        await super().delete_template(name, etag=etag, request_id=request_id, request_timeout=request_timeout)

    # Pools

    @expand_options(ImagePoolOptions)
    async def create_pool(
        self,
        name: str | None = None,
        template_name: str | None = None,
        replicas: Maybe[int | None] = UNSET,
        *,
        size: Maybe[int | None] = UNSET,
        image: str | None = None,
        timeout: Timeout = UNSET,
        **options: Unpack[ImagePoolOptions],
    ) -> Pool:
        """Create a pool. The server starts to fill it; `wait_for_pool` waits until it is full.

        Args:
            name: The name, unique among pools.
            template_name: The template whose specification the pool uses.
            replicas: The number of warm containers to maintain.
            size: Another name of `replicas`.
            image: The container image, instead of a template.
            timeout: Time limit of the call in seconds.
            options: The other arguments of `sandpool.AsyncSandboxClient.create_pool`.
        """
        arguments = rename(
            options, warm_containers={"replicas": replicas, "size": size}, request_timeout={"timeout": timeout}
        )
        pool = await super().create_pool(name, image=image, template_name=template_name, **arguments)  # type: ignore[call-overload]
        return copied_as(Pool, pool)

    async def get_pool(
        self, name: str | None = None, *, pool_id: str | None = None, request_timeout: Timeout = UNSET
    ) -> Pool:
        """Return a pool with its current status."""
        which = reference(name=name, pool_id=pool_id)
        return copied_as(Pool, await super().get_pool(which, request_timeout=request_timeout))

    async def list_pools(self, *, page_size: int | None = None, request_timeout: Timeout = UNSET) -> list[Pool]:
        """Return all pools, oldest first."""
        found = super().list_pools(page_size=page_size, request_timeout=request_timeout)
        return [copied_as(Pool, pool) async for pool in found]

    @expand_options(PoolSettings)
    async def update_pool(
        self,
        name: str | None = None,
        *,
        pool_id: str | None = None,
        new_name: Maybe[str | None] = UNSET,
        replicas: Maybe[int | None] = UNSET,
        size: Maybe[int | None] = UNSET,
        image: Maybe[str] = UNSET,
        **changes: Unpack[PoolSettings],
    ) -> Pool:
        """Update a pool. Arguments that are not given leave a field unchanged; None resets a field to its default.

        Args:
            name: The pool.
            pool_id: The pool, instead of `name`.
            new_name: The new name. None removes the name.
            replicas: The number of warm containers to maintain.
            size: Another name of `replicas`.
            image: The container image.
            changes: The other arguments of `sandpool.AsyncSandboxClient.update_pool`.
        """
        which = reference(name=name, pool_id=pool_id)
        arguments = rename(changes, warm_containers={"replicas": replicas, "size": size})
        return copied_as(Pool, await super().update_pool(which, name=new_name, image=image, **arguments))

    async def delete_pool(
        self,
        name: str | None = None,
        *,
        pool_id: str | None = None,
        force: bool = False,
        etag: str | None = None,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a pool and its unclaimed containers.

        Args:
            name: The pool.
            pool_id: The pool, instead of `name`.
            force: Whether to terminate its active sandboxes too.
            etag: The expected etag. Default: delete unconditionally.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.
        """
        which = reference(name=name, pool_id=pool_id)
        await super().delete_pool(which, force=force, etag=etag, request_id=request_id, request_timeout=request_timeout)

    # Sandboxes

    @expand_options(AnySandboxOptions)
    def create(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        **options: Unpack[AnySandboxOptions],
    ) -> Opening[AsyncSandbox]:
        """Create a sandbox: see `sandpool.AsyncSandboxClient.create`. Default of `name`: a generated name."""
        return opening(
            self._create_sandbox({"pool_id": pool_id, "template_name": template_name, "image": image, **options})
        )

    @expand_options(PooledSandboxOptions)
    def create_sandbox(
        self, template_name: str, *, timeout: Timeout = UNSET, **options: Unpack[PooledSandboxOptions]
    ) -> Opening[AsyncSandbox]:
        """Create a sandbox from a template, and return its handle when it can run commands.

        Args:
            template_name: The template. The sandbox is claimed from any pool that uses it.
            timeout: Time limit of the call in seconds. Default: the client's, at least 120.
            options: `name` and the other arguments of `sandpool.AsyncSandboxClient.create`. Default of `name`: a
                generated name.
        """
        arguments = rename(options, request_timeout={"timeout": timeout})
        return opening(self._create_sandbox({"template_name": template_name, **arguments}))

    sandbox = create_sandbox
    """The same as `create_sandbox`, for a block: the sandbox is deleted at its end."""

    @expand_options(AnyBatchOptions)
    async def create_batch(
        self,
        count: int,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        **options: Unpack[AnyBatchOptions],
    ) -> list[AsyncSandbox]:
        """Create several identical sandboxes, all or none. The arguments are those of the same method of `sandpool`."""
        arguments: dict[str, Any] = {"pool_id": pool_id, "template_name": template_name, "image": image, **options}
        return [self._handle(found, created=True) for found in await super().create_batch(count, **arguments)]

    async def get_sandbox(
        self, name: str | None = None, *, sandbox_id: str | None = None, request_timeout: Timeout = UNSET
    ) -> AsyncSandbox:
        """Return a handle of a sandbox, including one that terminated within the retention time."""
        which = reference(name=name, sandbox_id=sandbox_id)
        return self._handle(await super().get_sandbox(which, request_timeout=request_timeout))

    async def list_sandboxes(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int | None = None,
        request_timeout: Timeout = UNSET,
    ) -> list[AsyncSandbox]:
        """Return handles of all sandboxes that match the filters, oldest first.

        The filters are those of `sandpool.AsyncSandboxClient.list_sandboxes`.
        """
        found = super().list_sandboxes(
            pool_id=pool_id,
            template_name=template_name,
            states=states,
            metadata=metadata,
            page_size=page_size,
            request_timeout=request_timeout,
        )
        return [self._handle(sandbox) async for sandbox in found]

    async def update_sandbox(
        self,
        name: str | None = None,
        *,
        sandbox_id: str | None = None,
        new_name: Maybe[str | None] = UNSET,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[float | None] = UNSET,
        **options: Unpack[UpdateOptions],
    ) -> AsyncSandbox:
        """Update a sandbox, and return a new handle. Arguments that are not given leave a field unchanged.

        Args:
            name: The sandbox.
            sandbox_id: The sandbox, instead of `name`.
            new_name: The new name. None removes the name.
            metadata: The new labels, which replace the previous ones. None removes all.
            timeout_secs: The new lifetime in seconds, counted from the claim. 0 or None: no limit.
            options: `etag`, `request_id` and `request_timeout` of the same method of `sandpool`.
        """
        which = reference(name=name, sandbox_id=sandbox_id)
        found = await super().update_sandbox(
            which, name=new_name, metadata=metadata, timeout_secs=timeout_secs, **options
        )
        return self._handle(found)

    async def delete_sandbox(
        self,
        name: str | None = None,
        *,
        sandbox_id: str | None = None,
        request_id: str | None = None,
        request_timeout: Timeout = UNSET,
    ) -> None:
        """Delete a sandbox.

        Args:
            name: The sandbox.
            sandbox_id: The sandbox, instead of `name`.
            request_id: Identifies the request. Default: a generated identifier.
            request_timeout: Time limit of the call in seconds.
        """
        which = reference(name=name, sandbox_id=sandbox_id)
        await super().delete_sandbox(which, request_id=request_id, request_timeout=request_timeout)

    async def get_sandbox_status(self, name: str | None = None, *, sandbox_id: str | None = None) -> SandboxState:
        """Return the state of a sandbox."""
        return (await self.get_sandbox(name, sandbox_id=sandbox_id)).state

    async def wait_for_sandbox(
        self,
        name: str | None = None,
        *,
        sandbox_id: str | None = None,
        timeout: float | None = 120.0,
        poll_interval: float = 1.0,
    ) -> AsyncSandbox:
        """Return a handle of a sandbox as soon as it is running. Methods that create a sandbox wait for this.

        Args:
            name: The sandbox.
            sandbox_id: The sandbox, instead of `name`.
            timeout: Time limit of the wait in seconds. Default: 120. None: no limit.
            poll_interval: Ignored. The server reports the change.

        Raises:
            SandboxNotReadyError: The sandbox is terminated.
            ResourceTimeoutError: The time limit passed. See `last_status`.
        """
        info = await wait_until_running(self, reference(name=name, sandbox_id=sandbox_id), timeout)
        return AsyncSandbox(info, self._transport, created=False)

    async def _create_sandbox(self, arguments: dict[str, Any]) -> AsyncSandbox:
        arguments["name"] = arguments.get("name") or new_name()
        return self._handle(await super().create(**arguments), created=True)

    def _handle(self, sandbox: sandpool.AsyncSandbox, *, created: bool = False) -> AsyncSandbox:
        return AsyncSandbox(sandbox.info, self._transport, created=created)
