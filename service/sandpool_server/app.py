"""The only place that wires things together; start, drain, stop."""

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
from sandpool_server.control.loop import ControlLoop
from sandpool_server.control.recovery import Recovery
from sandpool_server.control.settings import ControlSettings
from sandpool_server.control.watches import DiskWatch, Probes
from sandpool_server.datadir import DataDir, DataDirLocked
from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import COUNTED, MemberState
from sandpool_server.domain.model import EndReason, MemberEnd
from sandpool_server.rpc.calls import Calls
from sandpool_server.rpc.drain import Drain
from sandpool_server.rpc.health import HealthReporter
from sandpool_server.rpc.server import MAX_REQUEST_BYTES, UseCases, build_server
from sandpool_server.rpc.validation import RequestValidator
from sandpool_server.runtime.agents import GrpcAgents
from sandpool_server.runtime.docker_engine import DockerRuntime
from sandpool_server.runtime.relay import GrpcRelay
from sandpool_server.runtime.settings import RuntimeSettings
from sandpool_server.settings import Settings
from sandpool_server.store.store import SqlStore
from sandpool_server.usecases.changes import ChangeHub, image_change
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.inside import Inside
from sandpool_server.usecases.line import WaitingLine
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.templates import Templates
from sandpool_server.vault import Vault, new_key
from sandpool_server.web.hosts import Hosts, SandboxPort
from sandpool_server.web.listening import listen

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The server cannot start; the message says what to do."""


class App:
    """One server: made of settings, running inside its `async with` block.

    Leaving the block drains: no new calls, those under way get `drain_timeout` seconds, containers stay.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exit = AsyncExitStack()
        self.address = settings.address
        """Where the server listens, HOST:PORT; once started, with the port that was taken."""
        self.web_address = ""
        """Where the server serves HTTP, HOST:PORT, once started; empty for nowhere."""
        self.engine = engine_url(settings)
        """The engine that the server works with."""

    async def __aenter__(self) -> Self:
        """Start. Raises `StartError`."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop, in the reverse order of the start."""
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
        """What health tells of the way to the sandboxes."""
        disk = runtime.disk_enforcement
        return {"engine": self.engine, "route": runtime.route or "unknown", "disk": disk.value if disk else "unknown"}

    async def _start_web(
        self, stack: AsyncExitStack, listening: socket.socket, hosts: Hosts, usecases: UseCases, calls: Calls
    ) -> None:
        """Serve the API and exposed ports by HTTP. What that takes is loaded only where it is wanted."""
        from sandpool_server.web.api import WebApi
        from sandpool_server.web.app import WebApp
        from sandpool_server.web.proxy import Proxy
        from sandpool_server.web.server import WebServer

        proxy = Proxy(usecases.ports, usecases.inside)
        stack.push_async_callback(proxy.close)
        origins = _names(self._settings.web_cors_origins)
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
            ended_retention=settings.ended_retention,
        )
        line = WaitingLine(changes)
        executor = Executor(store, runtime, agents, clock, changes, control)
        events = EventHandler(store, executor, Recovery(store, runtime, executor, clock), clock)
        disks = DiskWatch(store, runtime, clock, control)
        watches = (Probes(store, agents, clock, control), disks)
        loop = ControlLoop(store, runtime, executor, events, clock, changes, line, watches, control)
        loop.start()
        stack.push_async_callback(loop.stop)

        secrets = Secrets(store, vault(settings, data_dir), clock)
        sandboxes = Sandboxes(store, agents, executor, secrets, clock, changes, line)
        stack.push_async_callback(sandboxes.close)
        pools = Pools(store, runtime, clock, changes, line)
        inside = Inside(store, GrpcRelay(agents.connect), disks)
        listening, hosts = _web_port(settings, stack)
        ports = ExposedPorts(store, store, clock, _url_of(hosts))
        usecases = UseCases(pools, Templates(store, clock), sandboxes, secrets, inside, ports)
        drain = Drain()
        calls = Calls(RequestValidator(), drain)
        probes = {"database": store.ping, "engine": runtime.ping}
        health = HealthReporter(probes, drain, details=lambda: self._details(runtime))
        server = build_server(usecases, clock, health, drain, calls=calls)
        host = settings.address.rpartition(":")[0]
        try:
            port = server.add_insecure_port(settings.address)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {settings.address}: is another server there? ({error})") from error
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
    """The web port's socket and its host names, None without one. Raises `StartError`."""
    if not settings.web_address:
        return None, None
    try:
        listening = listen(settings.web_address)
    except OSError as error:
        raise StartError(f"cannot listen on {settings.web_address}: {error}") from error
    stack.callback(listening.close)
    scheme, _, port = (settings.web_url or f"http://:{listening.getsockname()[1]}").partition("://")
    number = int(port.removeprefix(":")) if port else None
    return listening, Hosts(settings.web_domain.lower(), scheme, number, frozenset(_names(settings.web_hosts)))


def _url_of(hosts: Hosts | None) -> Callable[[str, int], str] | None:
    return None if hosts is None else lambda sandbox_id, port: hosts.url(SandboxPort(sandbox_id, port))


def _names(text: str) -> list[str]:
    """What is separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def vault(settings: Settings, data_dir: DataDir) -> Vault:
    """The secrets' encryption. Raises `StartError` when its keys are no keys."""
    given = [key for key in settings.secrets_keys.get_secret_value().split(",") if key]
    try:
        return Vault(given or data_dir.secrets_keys())
    except ValueError as error:
        raise StartError(f"the keys for secrets are wrong: {error}") from error


def engine_url(settings: Settings) -> str:
    """The engine's address: the setting, else $DOCKER_HOST, else the usual socket."""
    return settings.docker_host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def runtime_settings(settings: Settings, server_id: str) -> RuntimeSettings:
    """What the runtime is told. Raises `StartError` without an agent."""
    if not settings.agent_binary.is_file():
        raise StartError(
            f"there is no agent at {settings.agent_binary}; build it with `make agent`, or name one with --agent-binary"
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
        raise StartError(f"cannot use the data folder {settings.data_dir}: {error}") from error
    stack.callback(data_dir.close)
    return data_dir


async def _open_store(data_dir: DataDir, changes: ChangeHub, clock: SystemClock, stack: AsyncExitStack) -> SqlStore:
    store = SqlStore(data_dir.database_url, changes.publish, clock)
    try:
        await store.open()
    except Unavailable as error:
        raise StartError(f"cannot open the database in {data_dir.path}: {error}") from error
    stack.push_async_callback(store.close)
    return store


async def rotate_secrets_key(settings: Settings) -> int:
    """Encrypt all secrets with a new key, in the data folder's file, or with the first of the keys in the settings.

    Returns how many secrets there are. Killed half-way, it can be run again: the old key is dropped last. Raises
    `StartError` while the server runs, and when a secret was encrypted with a key that is not at hand.
    """
    async with AsyncExitStack() as stack:
        data_dir = _take_data_dir(settings, stack)
        store = await _open_store(data_dir, ChangeHub(), SystemClock(), stack)
        in_file = not settings.secrets_keys.get_secret_value()
        if in_file:
            data_dir.keep_secrets_keys([new_key(), *data_dir.secrets_keys()])
        try:
            count = await store.rewrite_secrets(vault(settings, data_dir).rotate)
        except ValueError as error:
            raise StartError(f"nothing was changed: {error}") from error
        if in_file:
            data_dir.keep_secrets_keys(data_dir.secrets_keys()[:1])
        return count


async def purge(settings: Settings) -> int:
    """Remove every container and network of the server whose data folder this is, and end its sandboxes.

    Returns how many containers were removed. Raises `StartError` while that server runs, or when the engine is silent.
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
            raise StartError(f"nothing was purged: {error}") from error
        now = clock.now()
        ids = [member.id for member in await store.live_members()]
        end = MemberEnd(EndReason.LOST, now, "removed by `sandpool-server purge`")
        await store.end_members(ids, COUNTED - {MemberState.REMOVING}, end)
        for member_id in ids:
            await store.member_removed(member_id, now)
        return removed
