"""The application: creates all components, connects them, and starts and stops the server."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from secrets import token_hex
from typing import Self

import structlog

from sandpool_server.clock import SystemClock
from sandpool_server.control.events import EventHandler
from sandpool_server.control.executor import Executor
from sandpool_server.control.health_checks import DiskMonitor, HealthChecks
from sandpool_server.control.loop import ControlLoop
from sandpool_server.control.reconciler import Reconciler
from sandpool_server.control.settings import ControlSettings
from sandpool_server.datadir import DataDir, DataDirLocked
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import COUNTED, InstanceState
from sandpool_server.domain.model import Termination, TerminationReason
from sandpool_server.rpc.calls import Calls
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.health import HealthReporter
from sandpool_server.rpc.server import MAX_REQUEST_BYTES, UseCases, build_server
from sandpool_server.rpc.validation import RequestValidator
from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.docker_engine import DockerRuntime
from sandpool_server.runtime.proxy import GrpcProxy
from sandpool_server.runtime.settings import RuntimeSettings
from sandpool_server.settings import ENV_PREFIX, Settings
from sandpool_server.store.store import SqlStore
from sandpool_server.usecases.changes import ChangeHub, image_change
from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.templates import Templates
from sandpool_server.usecases.wait_queue import WaitQueue
from sandpool_server.vault import Vault, new_key
from sandpool_server.web.hosts import Hosts, SandboxPort
from sandpool_server.web.listening import listen

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The server or command cannot start. The message contains the cause and the next action."""


class App:
    """A server that runs within its `async with` block.

    At the end of the block the server accepts no new calls, waits up to `drain_timeout` seconds for active calls, and
    stops. Containers keep running.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exit = AsyncExitStack()
        self.address = settings.address
        """Listen address of the gRPC API, HOST:PORT. Contains the actual port after the start."""
        self.web_address = ""
        """Listen address of the web port, HOST:PORT. Empty before the start and without a web port."""
        self.engine = engine_url(settings)
        """Address of the Docker Engine."""

    async def __aenter__(self) -> Self:
        """Start the server. Raises `StartError`."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop the server, in the reverse order of the start."""
        await self._exit.aclose()

    async def run_until_signalled(self) -> None:
        """Wait for SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        _log.info("stopping")

    def _details(self, runtime: DockerRuntime) -> dict[str, str]:
        """Return the details for the health check: engine, route to the agents, and disk enforcement."""
        disk = runtime.disk_enforcement
        return {"engine": self.engine, "route": runtime.route or "unknown", "disk": disk.value if disk else "unknown"}

    async def _start_web(
        self, stack: AsyncExitStack, listening: socket.socket, hosts: Hosts, usecases: UseCases, calls: Calls
    ) -> None:
        """Start the web port. Its modules are imported here, so that servers without a web port do not load them."""
        from sandpool_server.web.api import WebApi
        from sandpool_server.web.app import WebApp
        from sandpool_server.web.proxy import Proxy
        from sandpool_server.web.server import WebServer

        proxy = Proxy(usecases.ports, usecases.data_plane)
        stack.push_async_callback(proxy.close)
        origins = _split(self._settings.web_cors_origins)
        app = WebApp(hosts, proxy, WebApi(calls.handlers, MAX_REQUEST_BYTES), origins)
        web = WebServer(app, listening, self._settings.drain_timeout)
        stack.push_async_callback(web.stop)
        web.start()
        self.web_address = f"{self._settings.web_address.rpartition(':')[0]}:{listening.getsockname()[1]}"

    async def _start(self, stack: AsyncExitStack) -> None:
        settings, clock, changes = self._settings, SystemClock(), ChangeHub()
        data_dir = _take_data_dir(settings, stack)
        store = await _open_store(data_dir, changes, clock, stack)
        runtime = DockerRuntime(
            runtime_settings(settings, await store.server_id(token_hex(8))),
            pull_changed=lambda image: changes.publish(frozenset({image_change(image)})),
        )
        stack.push_async_callback(runtime.close)
        agents = GrpcAgents(data_dir.token_key())
        stack.push_async_callback(agents.close)

        control = ControlSettings(
            refill_parallelism=settings.refill_parallelism,
            cold_parallelism=settings.cold_parallelism,
            ready_timeout=settings.ready_timeout,
            terminated_retention=settings.terminated_retention,
        )
        queue = WaitQueue(changes)
        executor = Executor(store, runtime, agents, clock, changes, control)
        events = EventHandler(store, executor, Reconciler(store, runtime, executor, clock), clock)
        disks = DiskMonitor(store, runtime, clock, control)
        checks = (HealthChecks(store, agents, clock, control), disks)
        loop = ControlLoop(store, runtime, executor, events, clock, changes, queue, checks, control)
        loop.start()
        stack.push_async_callback(loop.stop)

        secrets = Secrets(store, vault(settings, data_dir), clock)
        sandboxes = Sandboxes(store, agents, executor, secrets, clock, changes, queue)
        stack.push_async_callback(sandboxes.close)
        pools = Pools(store, runtime, clock, changes, queue)
        data_plane = DataPlane(store, GrpcProxy(agents.connect), disks)
        listening, hosts = _web_port(settings, stack)
        ports = ExposedPorts(store, store, clock, _url_of(hosts))
        usecases = UseCases(pools, Templates(store, clock), sandboxes, secrets, data_plane, ports)
        drain = Drain()
        calls = Calls(RequestValidator(), drain)
        probes = {"database": store.ping, "engine": runtime.ping}
        health = HealthReporter(probes, drain, details=lambda: self._details(runtime))
        server = build_server(usecases, clock, health, drain, calls=calls)
        host = settings.address.rpartition(":")[0]
        try:
            port = server.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise StartError(
                f"cannot listen on {settings.address}: {error}; stop the process that uses the port, or choose another "
                "one with --address"
            ) from error
        reporting = asyncio.create_task(health.run(), name="health")

        async def stop_serving() -> None:
            drain.begin()
            await server.stop(settings.drain_timeout)
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

        stack.push_async_callback(stop_serving)
        await server.start()
        if listening is not None and hosts is not None:
            await self._start_web(stack, listening, hosts, usecases, calls)
        self.address = f"{host}:{port}"
        _log.info("started", address=self.address, engine=self.engine, data_dir=str(data_dir.path))


def _web_port(settings: Settings, stack: AsyncExitStack) -> tuple[socket.socket | None, Hosts | None]:
    """Return the socket and the host names of the web port, or (None, None) if it is disabled.

    Raises `StartError` if the address cannot be used.
    """
    if not settings.web_address:
        return None, None
    try:
        listening = listen(settings.web_address)
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.web_address}: {error}; choose another address with --web-address"
        ) from error
    stack.callback(listening.close)
    scheme, _, port = (settings.web_url or f"http://:{listening.getsockname()[1]}").partition("://")
    number = int(port.removeprefix(":")) if port else None
    return listening, Hosts(settings.web_domain.lower(), scheme, number, frozenset(_split(settings.web_hosts)))


def _url_of(hosts: Hosts | None) -> Callable[[str, int], str] | None:
    return None if hosts is None else lambda sandbox_id, port: hosts.url(SandboxPort(sandbox_id, port))


def _split(text: str) -> list[str]:
    """Return the items of a comma-separated list, without surrounding spaces and empty items."""
    return [name.strip() for name in text.split(",") if name.strip()]


def vault(settings: Settings, data_dir: DataDir) -> Vault:
    """Return the vault for secrets, with the keys of the settings or of the data directory.

    Raises `StartError` if a key is invalid.
    """
    given = [key for key in settings.secrets_keys.get_secret_value().split(",") if key]
    try:
        return Vault(given or data_dir.secrets_keys())
    except ValueError as error:
        raise StartError(
            f"cannot use the encryption keys of secrets: {error}; check {ENV_PREFIX}SECRETS_KEYS or the file "
            "secrets.key in the data directory"
        ) from error


def engine_url(settings: Settings) -> str:
    """Return the address of the engine: the setting, $DOCKER_HOST or the default socket, in this order."""
    return settings.docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def runtime_settings(settings: Settings, server_id: str) -> RuntimeSettings:
    """Return the settings of the runtime. Raises `StartError` if the agent program does not exist."""
    if not settings.agent_binary.is_file():
        raise StartError(
            f"the agent program {settings.agent_binary} does not exist; build it with `make setup`, or specify its "
            "path with --agent-binary"
        )
    return RuntimeSettings(
        server_id=server_id,
        agent_binary=settings.agent_binary,
        base_url=settings.docker_host,
        create_parallelism=settings.refill_parallelism + settings.cold_parallelism,
        pids_limit=settings.pids_limit,
        route=settings.route,
        oci_runtime=settings.oci_runtime,
    )


def _take_data_dir(settings: Settings, stack: AsyncExitStack) -> DataDir:
    try:
        data_dir = DataDir(settings.data_dir)
    except DataDirLocked as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(
            f"cannot use the data directory {settings.data_dir}: {error}; check its permissions, or choose another one "
            "with --data-dir"
        ) from error
    stack.callback(data_dir.close)
    return data_dir


async def _open_store(data_dir: DataDir, changes: ChangeHub, clock: SystemClock, stack: AsyncExitStack) -> SqlStore:
    store = SqlStore(data_dir.database_url, changes.publish, clock)
    try:
        await store.open()
    except Unavailable as error:
        raise StartError(
            f"cannot open the database in {data_dir.path}: {error}; check its permissions and the free disk space"
        ) from error
    stack.push_async_callback(store.close)
    return store


async def rotate_secrets_key(settings: Settings) -> int:
    """Re-encrypt all secrets with the first key in the settings, or with a new key if the settings contain none.

    A new key is written to the data directory. The function can be repeated after a crash, because the old key is
    deleted last.

    Returns:
        The number of secrets.

    Raises:
        StartError: The server is running, or no key can decrypt one of the secrets. Nothing was changed.
    """
    async with AsyncExitStack() as stack:
        data_dir = _take_data_dir(settings, stack)
        store = await _open_store(data_dir, ChangeHub(), SystemClock(), stack)
        in_file = not settings.secrets_keys.get_secret_value()
        if in_file:
            data_dir.write_secrets_keys([new_key(), *data_dir.secrets_keys()])
        try:
            count = await store.rewrite_secrets(vault(settings, data_dir).rotate)
        except ValueError as error:
            raise StartError(f"cannot rotate the key of secrets: {error}; no secret was changed") from error
        if in_file:
            data_dir.write_secrets_keys(data_dir.secrets_keys()[:1])
        return count


async def purge(settings: Settings) -> int:
    """Remove all containers and networks of the server that uses the data directory, and terminate its sandboxes.

    Returns:
        The number of removed containers.

    Raises:
        StartError: The server is running, or the engine is not available.
    """
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        data_dir = _take_data_dir(settings, stack)
        store = await _open_store(data_dir, ChangeHub(), clock, stack)
        runtime = DockerRuntime(runtime_settings(settings, await store.server_id(token_hex(8))))
        stack.push_async_callback(runtime.close)
        try:
            removed = await runtime.purge()
        except Unavailable as error:
            raise StartError(
                f"cannot purge the engine {engine_url(settings)}: {error}; run the command again"
            ) from error
        now = clock.now()
        ids = [instance.id for instance in await store.live_instances()]
        end = Termination(TerminationReason.LOST, now, "removed by `sandpool-server purge`")
        await store.end_instances(ids, COUNTED - {InstanceState.REMOVING}, end)
        for instance_id in ids:
            await store.instance_removed(instance_id, now)
        return removed
