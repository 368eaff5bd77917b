"""The client and the handles of the module `tensorlake`."""

# The methods follow the other product where its arguments and results differ from those of the base class.
# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

from typing_extensions import Unpack

import sandpool
from sandpool import (
    UNSET,
    AsyncTunnel,
    ClientClosedError,
    CommandResult,
    ExposedPort,
    HealthCheck,
    OutputChunk,
    OutputStream,
    Pool,
    ProcessNotFoundError,
    ProcessState,
    ResourceAlreadyExistsError,
    RetryPolicy,
    SandboxNotFoundError,
    SandboxState,
)
from sandpool._core.arguments import Maybe, Timeout
from sandpool._core.options import (
    AnyBatchOptions,
    AnyPoolOptions,
    AnySandboxOptions,
    PooledSandboxOptions,
    PoolSettings,
    UpdateOptions,
    expand_options,
)
from sandpool._core.processes import RestartPolicyValue
from sandpool._transport.asyncio import Background, OnData, OnOutput, Opening, notify, opening
from sandpool.compat._async.sandbox_wait import wait_until_running
from sandpool.compat._core.arguments import command_of, copied_as, rename
from sandpool.compat._core.tensorlake import (
    ERROR_CLASSES,
    ListDirectoryResponse,
    OutputResponse,
    ProcessInfo,
    SandboxInfo,
    SandboxLogsResponse,
    StdinMode,
)

OnExit = Callable[[int], object]
"""A callback for an exit code."""
_LOCAL = "127.0.0.1"
_LOCAL_ADDRESS = "127.0.0.1:50051"
_CONNECT_TIMEOUT = 10.0
_START_TIMEOUT = 120.0
"""Time limit for the start of a sandbox that another caller created, in seconds."""


class AsyncPty:
    """A program on a terminal in a sandbox.

    The output is passed to `on_data` as it arrives. Without `on_data` and `on_exit`, iterate over the terminal. As a
    context manager, it kills the program at the end of the block.
    """

    def __init__(self, terminal: sandpool.AsyncTerminal, on_exit: OnExit | None) -> None:
        self._terminal = terminal
        self._on_exit = on_exit
        self._watcher: Background | None = None
        if on_exit is not None:
            self._watcher = Background(self._watch, f"sandpool terminal {terminal.process_id} exit")

    async def __aenter__(self) -> AsyncPty:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        await self.disconnect()

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        if self._watcher is not None:
            raise TypeError("to iterate over the terminal, do not give on_exit")
        async with aclosing(aiter(self._terminal)) as parts:
            async for part in parts:
                yield part

    @property
    def session_id(self) -> str:
        """The identifier of the process. Pass it to `connect_pty`."""
        return self._terminal.process_id

    @property
    def pid(self) -> int | None:
        """The process id (PID) inside the sandbox, or None while no run exists."""
        return self._terminal.pid

    async def send_input(self, data: str | bytes) -> None:
        """Write to the terminal, as a keyboard does. Text is encoded as UTF-8."""
        await self._terminal.write(data)

    async def resize(self, cols: int, rows: int) -> None:
        """Change the size of the terminal."""
        await self._terminal.resize(rows, cols)

    async def kill(self) -> None:
        """Kill the program with all its descendants, and wait until they have exited."""
        await self._terminal.kill()

    async def wait(self) -> int:
        """Wait until the program has exited, and return its exit code.

        If a signal terminated the program, the exit code is 128 plus the number of the signal.
        """
        if self._watcher is not None:
            await self._watcher.wait()
        return await self._terminal.wait()

    async def disconnect(self) -> None:
        """Detach from the program, which keeps running. `connect_pty` attaches again."""
        await self._terminal.detach()
        if self._watcher is not None:
            await self._watcher.stop()

    async def _watch(self) -> None:
        with suppress(ClientClosedError):  # The terminal was detached before the exit.
            exit_code = await self._terminal.wait()
            if self._on_exit is not None:
                await notify(self._on_exit, exit_code)


class AsyncSandbox(sandpool.AsyncSandbox):
    """A handle of a sandbox, which runs commands in it and manages it.

    `process` is the identifier or the name of a process, or the process id (PID) of a running process; `pid` is the
    process id only.
    """

    @property
    def status(self) -> SandboxState:
        """The last known state."""
        return self.state

    @property
    def info(self) -> SandboxInfo:
        """The last known description."""
        return copied_as(SandboxInfo, super().info)

    async def terminate(self) -> None:
        """Delete the sandbox: the same as `delete`."""
        await self.delete()

    async def update(
        self,
        name: Maybe[str | None] = UNSET,
        *,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[float | None] = UNSET,
        **options: Unpack[UpdateOptions],
    ) -> SandboxInfo:
        """Update the sandbox, and the attributes of this handle. Arguments that are not given leave a field unchanged.

        Args:
            name: The new name. None removes the name.
            metadata: The new labels, which replace the previous ones. None removes all.
            timeout_secs: The new lifetime in seconds, counted from the claim. 0 or None: no limit.
            options: `etag`, `request_id` and `request_timeout` of `sandpool.AsyncSandbox.update`.
        """
        await super().update(name=name, metadata=metadata, timeout_secs=timeout_secs, **options)
        return self.info

    async def run(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        timeout: float | None = None,
        user: str | None = None,
        *,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        on_stdout: OnOutput | None = None,
        on_stderr: OnOutput | None = None,
        resumable: bool = True,
    ) -> CommandResult:
        """Run a command and wait until it has exited.

        Args:
            command: The program if `args` is given. Otherwise a shell command, or a list of the program and its
                arguments.
            args: The arguments of the program.
            env: Environment variables, which override those of the sandbox.
            working_dir: The working directory, an absolute path. Default: that of the image.
            timeout: Time limit of the command in seconds. It is then killed with all its descendants. Default: no
                limit.
            user: The user that runs the command. Default: that of the image.
            cwd: Another name of `working_dir`.
            stdin: As in `sandpool.AsyncSandbox.run`.
            on_stdout: As in `sandpool.AsyncSandbox.run`.
            on_stderr: As in `sandpool.AsyncSandbox.run`.
            resumable: As in `sandpool.AsyncSandbox.run`.

        Returns:
            The output and how the command exited. An exit code other than 0 raises no error.
        """
        return await super().run(
            command_of(command, args),
            timeout=timeout,
            env=env,
            user=user,
            stdin=stdin,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            resumable=resumable,
            **rename({"cwd": cwd}, cwd={"working_dir": working_dir or UNSET}),
        )

    async def start_process(
        self,
        command: str | Sequence[str],
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        stdin_mode: StdinMode | str = StdinMode.CLOSED,
        *,
        user: str | None = None,
        name: str | None = None,
        restart: RestartPolicyValue | None = None,
        health_check: HealthCheck | None = None,
    ) -> ProcessInfo:
        """Start a process and return its description when it runs. `processes.start` has more options.

        Args:
            command: The program if `args` is given. Otherwise a shell command, or a list of the program and its
                arguments.
            args: The arguments of the program.
            env: Environment variables, which override those of the sandbox.
            working_dir: The working directory, an absolute path. Default: that of the image.
            stdin_mode: With "pipe", standard input accepts data. With "closed" (default), it is empty.
            user: The user that runs the process. Default: that of the image.
            name: Makes the process a service with this name. Its output is part of the sandbox's log.
            restart: When the service is restarted: "never" (default), "on_failure" or "always".
            health_check: The health check of the service.
        """
        process = await self.processes.start(
            command_of(command, args),
            env=env,
            cwd=working_dir,
            stdin=StdinMode(stdin_mode) is StdinMode.PIPE,
            user=user,
            name=name,
            restart_policy=restart,
            health_check=health_check,
        )
        return await self.get_process(process.process_id)

    async def list_processes(self) -> list[ProcessInfo]:
        """Return the processes of the sandbox, oldest first, including exited ones."""
        return [copied_as(ProcessInfo, found) async for found in self.processes.list()]

    async def get_process(self, process: str | int | None = None, *, pid: int | None = None) -> ProcessInfo:
        """Return a process."""
        return copied_as(ProcessInfo, await self.processes.get(await self._process_id(process, pid)))

    async def kill_process(self, process: str | int | None = None, *, pid: int | None = None) -> None:
        """Kill a process with all its descendants, and wait until they have exited."""
        await self.processes.kill(await self._process_id(process, pid))

    async def restart_process(self, process: str | int | None = None, *, pid: int | None = None) -> ProcessInfo:
        """Kill the current run of a service, if one exists, and start the next one."""
        return copied_as(ProcessInfo, await self.processes.restart(await self._process_id(process, pid)))

    async def send_signal(self, process: str | int | None = None, signal: int = 15, *, pid: int | None = None) -> None:
        """Send a signal to a process. Default: SIGTERM."""
        await self.processes.signal(await self._process_id(process, pid), signal)

    async def write_stdin(
        self, process: str | int | None = None, data: str | bytes = b"", *, pid: int | None = None
    ) -> None:
        """Write to the standard input of a process, and wait until the process has accepted all bytes."""
        await self.processes.write_stdin(await self._process_id(process, pid), data)

    async def close_stdin(self, process: str | int | None = None, *, pid: int | None = None) -> None:
        """Close the standard input of a process."""
        await self.processes.close_stdin(await self._process_id(process, pid))

    async def get_output(self, process: str | int | None = None, *, pid: int | None = None) -> OutputResponse:
        """Return the output of a process that is buffered now."""
        return copied_as(OutputResponse, await self.processes.output(await self._process_id(process, pid)))

    async def get_stdout(self, process: str | int | None = None, *, pid: int | None = None) -> OutputResponse:
        """Return the standard output of a process that is buffered now."""
        return replace(await self.get_output(process, pid=pid), stderr="", stderr_bytes=b"")

    async def get_stderr(self, process: str | int | None = None, *, pid: int | None = None) -> OutputResponse:
        """Return the standard error of a process that is buffered now."""
        return replace(await self.get_output(process, pid=pid), stdout="", stdout_bytes=b"")

    async def follow_output(
        self, process: str | int | None = None, *, pid: int | None = None
    ) -> AsyncGenerator[OutputChunk, None]:
        """Iterate over the output of a process as it arrives, until the process exits."""
        async with aclosing(self.processes.follow(await self._process_id(process, pid))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def follow_stdout(
        self, process: str | int | None = None, *, pid: int | None = None
    ) -> AsyncGenerator[OutputChunk, None]:
        """Iterate over the standard output of a process as it arrives, until the process exits."""
        async with aclosing(self.follow_output(process, pid=pid)) as chunks:
            async for chunk in chunks:
                if chunk.stream is OutputStream.STDOUT:
                    yield chunk

    async def follow_stderr(
        self, process: str | int | None = None, *, pid: int | None = None
    ) -> AsyncGenerator[OutputChunk, None]:
        """Iterate over the standard error of a process as it arrives, until the process exits."""
        async with aclosing(self.follow_output(process, pid=pid)) as chunks:
            async for chunk in chunks:
                if chunk.stream is OutputStream.STDERR:
                    yield chunk

    async def read_file(self, path: str) -> bytes:
        """Return the content of a file."""
        return await self.files.read(path)

    async def write_file(self, path: str, content: str | bytes) -> None:
        """Write a file. Missing parent directories are created."""
        await self.files.write(path, content)

    async def upload_file(self, local_path: str | os.PathLike[str], path: str) -> None:
        """Copy a local file into the sandbox."""
        await self.files.upload(local_path, path)

    async def delete_file(self, path: str) -> None:
        """Remove a file or an empty directory."""
        await self.files.remove(path)

    async def list_directory(self, path: str) -> ListDirectoryResponse:
        """Return the contents of a directory."""
        return ListDirectoryResponse(path, tuple([entry async for entry in self.files.list(path)]))

    async def create_pty(
        self,
        command: str | Sequence[str] | None = None,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        rows: int = 24,
        cols: int = 80,
        *,
        user: str | None = None,
        on_data: OnData | None = None,
        on_exit: OnExit | None = None,
    ) -> AsyncPty:
        """Start a program on a terminal.

        Args:
            command: The program if `args` is given. Otherwise a shell command, or a list of the program and its
                arguments. Default: an interactive shell.
            args: The arguments of the program.
            env: Environment variables, which override those of the sandbox.
            working_dir: The working directory, an absolute path. Default: that of the image.
            rows: The number of rows of the terminal.
            cols: The number of columns of the terminal.
            user: The user that runs the program. Default: that of the image.
            on_data: Receives the output as bytes, in a background task or thread.
            on_exit: Receives the exit code, in a background task or thread.
        """
        terminal = await self.terminals.create(
            None if command is None else command_of(command, args),
            rows=rows,
            cols=cols,
            env=env,
            cwd=working_dir,
            user=user,
            on_data=on_data,
        )
        return AsyncPty(terminal, on_exit)

    async def connect_pty(
        self,
        session_id: str,
        token: str | None = None,
        *,
        on_data: OnData | None = None,
        on_exit: OnExit | None = None,
    ) -> AsyncPty:
        """Attach to a program on a terminal.

        Args:
            session_id: `session_id` of the terminal.
            token: Ignored. The client authenticates itself with its API key.
            on_data: Receives the output as bytes, in a background task or thread.
            on_exit: Receives the exit code, in a background task or thread.
        """
        return AsyncPty(await self.terminals.attach(session_id, on_data=on_data), on_exit)

    def create_tunnel(
        self,
        remote_port: int,
        *,
        local_host: str = _LOCAL,
        local_port: int | None = None,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> Opening[AsyncTunnel]:
        """Open a local port that forwards connections to a port inside the sandbox.

        Args:
            remote_port: The port inside the sandbox.
            local_host: The local address to listen on.
            local_port: The local port. 0 means any free port. Default: `remote_port`.
            connect_timeout: Time limit for opening each connection in seconds.
        """
        return self.ports.tunnel(
            remote_port,
            local_port=remote_port if local_port is None else local_port,
            local_host=local_host,
            connect_timeout=connect_timeout,
        )

    async def expose_ports(self, ports: int | Iterable[int]) -> list[ExposedPort]:
        """Expose one or more ports by HTTP, each under a separate URL. Every client that knows a URL can use it."""
        return [await self.ports.expose(port) for port in _numbers(ports)]

    async def unexpose_ports(self, ports: int | Iterable[int]) -> None:
        """Stop exposing one or more ports."""
        for port in _numbers(ports):
            await self.ports.unexpose(port)

    async def get_port_access(self) -> list[ExposedPort]:
        """Return the exposed ports with their URLs."""
        return [port async for port in self.ports.list()]

    async def get_logs(
        self,
        *,
        process_ids: Iterable[str] | None = None,
        next_token: str | None = None,
        tail: int | None = None,
    ) -> SandboxLogsResponse:
        """Return the log lines of the entrypoint and of the services.

        Args:
            process_ids: Only lines of these sources: "entrypoint" or names of services. Default: all.
            next_token: Only lines after those of the response with this token. Default: all.
            tail: Only this number of the most recent lines. Default: all.
        """
        after = int(next_token) if next_token else 0
        found = [line async for line in self.logs(sources=process_ids, tail=tail, after_sequence=after)]
        return SandboxLogsResponse(tuple(found), str(found[-1].sequence if found else after))

    async def _process_id(self, process: str | int | None, pid: int | None) -> str:
        """Return the identifier or the name of a process."""
        number = pid if process is None else process
        if number is None or (process is not None and pid is not None):
            raise TypeError("give exactly one of process and pid")
        if isinstance(number, str):
            return number
        async with aclosing(self.processes.list(states=[ProcessState.RUNNING])) as running:
            async for found in running:
                if found.pid == number:
                    return found.process_id
        raise ProcessNotFoundError(
            f"no running process of sandbox {self.sandbox_id} has the process id {number}",
            reason="PROCESS_NOT_FOUND",
            resource_type="process",
            resource_name=str(number),
        )


class AsyncSandboxClient(sandpool.AsyncSandboxClient):
    """A client of one sandpool server with the methods of the Tensorlake client."""

    def __init__(
        self,
        address: str | None = None,
        api_key: str | None = None,
        *,
        api_url: str | None = None,
        request_timeout: float | None = 30.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Create a client. This does not connect.

        Args:
            address: The address of the server. Default: the environment variable SANDPOOL_ADDRESS, otherwise
                127.0.0.1:50051.
            api_key: The API key. Default: the environment variable SANDPOOL_API_KEY, otherwise none.
            api_url: Another name of `address`.
            request_timeout: The default time limit of a call with its retries, in seconds. None: no limit.
            retry: How calls are retried while the server does not respond.
        """
        options = rename({"address": address}, address={"api_url": api_url or UNSET})
        super().__init__(**options, api_key=api_key, request_timeout=request_timeout, retry=retry)
        self._transport.error_classes = ERROR_CLASSES

    @classmethod
    def for_localhost(
        cls, api_url: str = _LOCAL_ADDRESS, *, request_timeout: float | None = 30.0
    ) -> AsyncSandboxClient:
        """Return a client of a server on this machine. It sends no API key and ignores the environment variables."""
        return cls(api_url, api_key="", request_timeout=request_timeout)

    @classmethod
    def for_cloud(
        cls, api_key: str, api_url: str | None = None, *, request_timeout: float | None = 30.0
    ) -> AsyncSandboxClient:
        """Return a client of a remote server.

        Args:
            api_key: The API key.
            api_url: The address of the server. Default: the environment variable SANDPOOL_ADDRESS.
            request_timeout: The default time limit of a call with its retries, in seconds. None: no limit.

        Raises:
            ValueError: The address is not given.
        """
        address = api_url or os.environ.get("SANDPOOL_ADDRESS")
        if not address:
            raise ValueError("the address of the server is missing; give api_url or set SANDPOOL_ADDRESS")
        return cls(address, api_key=api_key, request_timeout=request_timeout)

    # Pools

    @expand_options(AnyPoolOptions)
    async def create_pool(
        self,
        image: str | None = None,
        *,
        name: str | None = None,
        template_name: str | None = None,
        disk_mb: Maybe[int | None] = UNSET,
        **options: Unpack[AnyPoolOptions],
    ) -> Pool:
        """Create a pool. The server starts to fill it; `wait_for_pool` waits until it is full.

        Args:
            image: The container image.
            name: The name, unique among pools. Default: none.
            template_name: The template whose specification the pool uses, instead of `image`.
            disk_mb: Another name of `ephemeral_disk_mb`.
            options: The other arguments of `sandpool.AsyncSandboxClient.create_pool`.
        """
        arguments = rename(options, ephemeral_disk_mb={"disk_mb": disk_mb})
        return await super().create_pool(name, image=image, template_name=template_name, **arguments)  # type: ignore[call-overload, no-any-return]

    async def list_pools(
        self, *, page_size: int | None = None, request_timeout: Timeout = UNSET
    ) -> builtins.list[Pool]:
        """Return all pools, oldest first."""
        return [pool async for pool in super().list_pools(page_size=page_size, request_timeout=request_timeout)]

    @expand_options(PoolSettings)
    async def update_pool(
        self,
        pool_id: str,
        image: Maybe[str] = UNSET,
        *,
        name: Maybe[str | None] = UNSET,
        disk_mb: Maybe[int | None] = UNSET,
        **changes: Unpack[PoolSettings],
    ) -> Pool:
        """Update a pool. Arguments that are not given leave a field unchanged; None resets a field to its default.

        Args:
            pool_id: The pool.
            image: The container image.
            name: The new name. None removes the name.
            disk_mb: Another name of `ephemeral_disk_mb`.
            changes: The other arguments of `sandpool.AsyncSandboxClient.update_pool`.
        """
        arguments = rename(changes, ephemeral_disk_mb={"disk_mb": disk_mb})
        return await super().update_pool(pool_id, image=image, name=name, **arguments)

    # Sandboxes

    @expand_options(AnySandboxOptions)
    def create(
        self,
        image: str | None = None,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        disk_mb: Maybe[int | None] = UNSET,
        **options: Unpack[AnySandboxOptions],
    ) -> Opening[AsyncSandbox]:
        """Create a sandbox, and return its handle when it can run commands.

        Exactly one of `image`, `pool_id` and `template_name` is the source. As a context manager, the result deletes
        the sandbox at the end of the block.

        Args:
            image: The image of a sandbox that belongs to no pool.
            pool_id: The pool to claim from.
            template_name: The template.
            disk_mb: Another name of `ephemeral_disk_mb`.
            options: The other arguments of `sandpool.AsyncSandboxClient.create`.
        """
        arguments = rename(options, ephemeral_disk_mb={"disk_mb": disk_mb})
        arguments.update(image=image, pool_id=pool_id, template_name=template_name)
        return opening(self._create_sandbox(arguments))

    create_and_connect = create
    """The same as `create`."""

    @expand_options(PooledSandboxOptions)
    def claim(self, pool_id: str, **options: Unpack[PooledSandboxOptions]) -> Opening[AsyncSandbox]:
        """Create a sandbox from a pool: the same as `create(pool_id=…)`."""
        return self.create(pool_id=pool_id, **options)

    @expand_options(AnyBatchOptions)
    async def get_or_create(
        self,
        name: str,
        *,
        image: str | None = None,
        pool_id: str | None = None,
        template_name: str | None = None,
        disk_mb: Maybe[int | None] = UNSET,
        **options: Unpack[AnyBatchOptions],
    ) -> AsyncSandbox:
        """Return the sandbox with this name, or create it.

        As a context manager, the result deletes the sandbox at the end of the block if this call created it. The other
        arguments are those of `create`. They apply only to a new sandbox.
        """
        with suppress(SandboxNotFoundError):
            found = await self.get_sandbox(name)
            if found.state in {SandboxState.STARTING, SandboxState.RUNNING}:
                return await self._running(found.sandbox_id)
        arguments = rename(options, ephemeral_disk_mb={"disk_mb": disk_mb})
        try:
            return await self.create(image, name=name, pool_id=pool_id, template_name=template_name, **arguments)
        except ResourceAlreadyExistsError:  # Another caller created it in the meantime.
            return await self._running(name)

    @expand_options(AnyBatchOptions)
    async def create_batch(
        self,
        count: int,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        image: str | None = None,
        **options: Unpack[AnyBatchOptions],
    ) -> builtins.list[AsyncSandbox]:
        """Create several identical sandboxes, all or none. The arguments are those of the same method of `sandpool`."""
        arguments: dict[str, Any] = {"pool_id": pool_id, "template_name": template_name, "image": image, **options}
        return [self._handle(found, created=True) for found in await super().create_batch(count, **arguments)]

    async def get(self, sandbox_id: str, *, request_timeout: Timeout = UNSET) -> SandboxInfo:
        """Return the description of a sandbox, including one that terminated within the retention time."""
        return (await self.get_sandbox(sandbox_id, request_timeout=request_timeout)).info

    async def connect(self, identifier: str, *, request_timeout: Timeout = UNSET) -> AsyncSandbox:
        """Return a handle of a sandbox: the same as `get_sandbox`."""
        return await self.get_sandbox(identifier, request_timeout=request_timeout)

    async def get_sandbox(self, sandbox_id: str, *, request_timeout: Timeout = UNSET) -> AsyncSandbox:
        """Return a handle of a sandbox, including one that terminated within the retention time."""
        return self._handle(await super().get_sandbox(sandbox_id, request_timeout=request_timeout))

    async def list(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int | None = None,
        request_timeout: Timeout = UNSET,
    ) -> builtins.list[SandboxInfo]:
        """Return the descriptions of all sandboxes that match the filters, oldest first.

        Args:
            pool_id: Only sandboxes of this pool.
            template_name: Only sandboxes of this template, directly or through a pool.
            states: Only sandboxes in these states. Default: all except terminated.
            metadata: Only sandboxes whose metadata contains all these entries.
            page_size: The number of sandboxes per page. Default: 100.
            request_timeout: Time limit of the call for each page in seconds.
        """
        found = self.list_sandboxes(
            pool_id=pool_id,
            template_name=template_name,
            states=states,
            metadata=metadata,
            page_size=page_size,
            request_timeout=request_timeout,
        )
        return [sandbox.info async for sandbox in found]

    async def list_sandboxes(
        self,
        *,
        pool_id: str | None = None,
        template_name: str | None = None,
        states: Iterable[SandboxState | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        page_size: int | None = None,
        request_timeout: Timeout = UNSET,
    ) -> AsyncGenerator[AsyncSandbox, None]:
        """Iterate over handles of the sandboxes that match the filters, which are those of `list`, oldest first."""
        found = super().list_sandboxes(
            pool_id=pool_id,
            template_name=template_name,
            states=states,
            metadata=metadata,
            page_size=page_size,
            request_timeout=request_timeout,
        )
        async with aclosing(found) as sandboxes:
            async for sandbox in sandboxes:
                yield self._handle(sandbox)

    async def update_sandbox(
        self,
        sandbox_id: str,
        name: Maybe[str | None] = UNSET,
        *,
        metadata: Maybe[Mapping[str, str] | None] = UNSET,
        timeout_secs: Maybe[float | None] = UNSET,
        **options: Unpack[UpdateOptions],
    ) -> SandboxInfo:
        """Update a sandbox, and return its description. Arguments that are not given leave a field unchanged.

        Args:
            sandbox_id: The sandbox.
            name: The new name. None removes the name.
            metadata: The new labels, which replace the previous ones. None removes all.
            timeout_secs: The new lifetime in seconds, counted from the claim. 0 or None: no limit.
            options: `etag`, `request_id` and `request_timeout` of the same method of `sandpool`.
        """
        found = await super().update_sandbox(
            sandbox_id, name=name, metadata=metadata, timeout_secs=timeout_secs, **options
        )
        return copied_as(SandboxInfo, found.info)

    async def delete(self, sandbox_id: str) -> None:
        """Delete a sandbox: the same as `delete_sandbox`."""
        await self.delete_sandbox(sandbox_id)

    async def expose_ports(self, sandbox_id: str, ports: int | Iterable[int]) -> builtins.list[ExposedPort]:
        """Expose one or more ports of a sandbox by HTTP: see `Sandbox.expose_ports`."""
        return await (await self.get_sandbox(sandbox_id)).expose_ports(ports)

    async def unexpose_ports(self, sandbox_id: str, ports: int | Iterable[int]) -> None:
        """Stop exposing one or more ports of a sandbox."""
        await (await self.get_sandbox(sandbox_id)).unexpose_ports(ports)

    async def get_port_access(self, sandbox_id: str) -> builtins.list[ExposedPort]:
        """Return the exposed ports of a sandbox with their URLs."""
        return await (await self.get_sandbox(sandbox_id)).get_port_access()

    async def get_logs(
        self,
        sandbox_id: str,
        *,
        process_ids: Iterable[str] | None = None,
        next_token: str | None = None,
        tail: int | None = None,
    ) -> SandboxLogsResponse:
        """Return the log lines of a sandbox: see `Sandbox.get_logs`."""
        sandbox = await self.get_sandbox(sandbox_id)
        return await sandbox.get_logs(process_ids=process_ids, next_token=next_token, tail=tail)

    async def _create_sandbox(self, arguments: dict[str, Any]) -> AsyncSandbox:
        return self._handle(await super().create(**arguments), created=True)

    async def _running(self, sandbox_id: str) -> AsyncSandbox:
        info = await wait_until_running(self, sandbox_id, _START_TIMEOUT)
        return AsyncSandbox(info, self._transport, created=False)

    def _handle(self, sandbox: sandpool.AsyncSandbox, *, created: bool = False) -> AsyncSandbox:
        return AsyncSandbox(sandbox.info, self._transport, created=created)


def _numbers(ports: int | Iterable[int]) -> list[int]:
    return [ports] if isinstance(ports, int) else [*ports]
