"""The runtime on a Docker Engine.

launch ────► executor "start"  ┐
remove ────► executor "remove" │   each executor has a few threads,
instances ─► executor "query"  ├─► each thread has a docker-py client ──► engine
disk_usage ► executor "disk"   │
ping ──────► executor "ping"   │
pull ──────► executor "pull"   │
prepare ───► executor "setup"  ┘
events ────► one thread per reader ─────────────────────────────────────► engine
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, TypeVar

import structlog
from docker.errors import APIError

from sandpool_server.domain.model import DiskEnforcement, Instance, PullProgress
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import ImageConfig, InstanceRef, RuntimeEvent
from sandpool_server.runtime import shared
from sandpool_server.runtime.client import EngineClient, connector
from sandpool_server.runtime.container import VolumePlace, container_config
from sandpool_server.runtime.events import EventReader
from sandpool_server.runtime.executors import BoundedExecutor
from sandpool_server.runtime.failures import (
    EngineConflict,
    EngineDown,
    image_is_missing,
    launch_failed,
    shared_is_missing,
    unavailable,
)
from sandpool_server.runtime.images import Images, PullChanged
from sandpool_server.runtime.instances import (
    Launch,
    list_containers,
    list_instances,
    measure_instances,
    remove_container,
    remove_instance,
)
from sandpool_server.runtime.routes import UNKNOWN, find_reach
from sandpool_server.runtime.settings import Route, RuntimeSettings
from sandpool_server.runtime.tasks import TaskSet
from sandpool_server.runtime.volumes import Volumes

T = TypeVar("T")

_ENGINE_ERRORS = (EngineDown, EngineConflict, APIError)
_SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
"""After a launch with an unknown result: pauses in seconds before each attempt to find and remove the container."""
_LOG = structlog.get_logger(__name__)


class DockerRuntime:
    """Implements `interfaces.Runtime`. Create it on the event loop. Raises `OSError` if the agent cannot be read.

    `pull_changed` is called on the event loop with the name of an image when its pull starts and ends, and when its
    progress changes, at most once every `pull_report_secs`.
    """

    def __init__(self, settings: RuntimeSettings, pull_changed: PullChanged = lambda _image: None) -> None:
        self._settings = settings
        self._agent = shared.AgentBinary.read(settings.agent_binary)
        self._connect = connector(settings.base_url)
        self._starts = BoundedExecutor("start", settings.create_parallelism, self._connect)
        self._removals = BoundedExecutor("remove", settings.remove_parallelism, self._connect)
        self._queries = BoundedExecutor("query", settings.query_parallelism, self._connect)
        self._measures = BoundedExecutor("disk", 1, self._connect)
        self._pings = BoundedExecutor("ping", 1, self._connect)
        self._pulls = BoundedExecutor("pull", settings.pull_parallelism, self._connect)
        self._setup = BoundedExecutor("setup", 1, self._connect)
        self._images = Images(settings, self._queries, self._pulls, pull_changed)
        self._readers: set[EventReader] = set()
        self._tasks = TaskSet()
        self._preparing = asyncio.Lock()
        self._shared: shared.Shared | None = None
        self._reach = UNKNOWN
        self._volumes = Volumes(settings.server_id)

    @property
    def agent_version(self) -> str:
        """Version of the agent in new containers: the first 12 hexadecimal digits of its SHA-256 digest."""
        return self._agent.version

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        """How `ephemeral_disk_mb` is enforced; None until the engine is prepared."""
        if self._shared is None:
            return None
        return DiskEnforcement.ENGINE if self._shared.disk_limits else DiskEnforcement.BEST_EFFORT

    @property
    def route(self) -> Route | None:
        """Route to the agents, direct or published; None until the engine is prepared."""
        return None if self._reach is UNKNOWN else self._reach.route

    async def prepare(self) -> None:
        """Create the network and the agent's volume if they do not exist. The first call also detects the route."""
        await self._or_unavailable(self._prepare())

    async def ping(self) -> None:
        """Check that the engine responds."""
        secs = self._settings.ping_secs
        await self._or_unavailable(self._pings.run(lambda client: client.ping(), secs))

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        """Return the configuration of the image. Pulls the image first if the policy requires it."""
        return await self._images.ensure(image, policy)

    def pulls(self) -> dict[str, PullProgress]:
        """Return the active pulls by image. Their sizes are compressed bytes of the layers whose download has begun."""
        return self._images.pulls()

    async def disk_usage(self) -> dict[str, int]:
        """Return the size of each running container's writable layer in bytes, without volumes and tmpfs."""
        settings = self._settings
        return await self._or_unavailable(
            self._measures.run(lambda client: measure_instances(client, settings.server_id), settings.disk_secs)
        )

    async def launch(self, instance: Instance, token_sha256: str) -> str:
        """Create and start the container.

        If its image, the network or the agent's volume is missing, restores it and retries once.
        """
        image = instance.spec.image
        try:
            if self.route is None:
                await self._prepare()
            try:
                return await self._start(instance, token_sha256)
            except APIError as error:
                if image_is_missing(error):
                    # `ensure_image` has already applied the policy. An image that was removed since then is pulled
                    # again, unless the policy is `never`.
                    never = instance.spec.pull_policy is PullPolicy.NEVER
                    await self._images.ensure(image, PullPolicy.NEVER if never else PullPolicy.MISSING)
                elif shared_is_missing(error):
                    await self._prepare()
                else:
                    raise
            return await self._start(instance, token_sha256)
        except _ENGINE_ERRORS as error:
            raise launch_failed(error, image) from error

    async def remove(self, instance_id: str) -> None:
        """Remove the container of the instance by force."""
        await self._or_unavailable(self._remove(instance_id))

    async def instances(self) -> list[InstanceRef]:
        """List this server's containers."""
        settings = self._settings
        return await self._or_unavailable(
            self._queries.run(
                lambda client: list_instances(client, settings.server_id, self._reach), settings.query_secs
            )
        )

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield the events of this server's containers until the runtime is closed."""
        settings = self._settings
        reader = EventReader(self._connect, settings.server_id, settings.event_idle_secs, _LOG)
        self._readers.add(reader)
        try:
            async for event in reader.stream():
                yield event
        finally:
            self._readers.discard(reader)
            reader.close()

    async def purge(self) -> int:
        """Remove all objects with this server's label, and the agent's volume if no other server uses it.

        Returns the number of removed containers.
        """
        return await self._or_unavailable(self._purge())

    async def close(self) -> None:
        """End all threads and tasks. Containers keep running."""
        for reader in tuple(self._readers):
            reader.close()
        await self._tasks.close()
        await self._images.close()
        executors = (self._starts, self._removals, self._queries, self._measures, self._pings, self._pulls, self._setup)
        await asyncio.gather(*(executor.close() for executor in executors))

    async def _or_unavailable(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except _ENGINE_ERRORS as error:
            raise unavailable(error) from error

    async def _prepare(self) -> None:
        async with self._preparing:
            self._shared = await self._setup.run(
                lambda client: shared.prepare(client, self._settings, self._agent), self._settings.prepare_secs
            )
            if self.route is None:
                finding = find_reach(self._setup, self._settings, self._agent)
                self._reach = await self._tasks.uninterrupted(finding, "find the route to agents")
                _LOG.info("detected the route to agents", route=self._reach.route, host=self._reach.host)

    async def _start(self, instance: Instance, token_sha256: str) -> str:
        """Create and start the container. If this fails or is cancelled, removes the container."""
        settings = self._settings
        disk_limits = self.disk_enforcement is DiskEnforcement.ENGINE

        def config(volumes: Iterable[VolumePlace]) -> dict[str, Any]:
            return container_config(
                instance, token_sha256, settings, self._agent.version, disk_limits=disk_limits, volumes=volumes
            )

        launch = Launch(instance.id, instance.spec.image, self._volumes, config, self._reach)
        under_way = await self._starts.begin(launch, settings.launch_secs, settings.queue_secs)
        try:
            return await self._starts.wait(under_way, settings.launch_secs)
        except BaseException:
            launch.abandon()
            if launch.created is not False:
                await self._tasks.uninterrupted(self._undo(instance.id, launch, under_way), f"undo {instance.id}")
            raise

    async def _undo(self, instance_id: str, launch: Launch, under_way: "asyncio.Future[str]") -> None:
        """Remove the container of a launch. A task removes it later if it cannot be removed now or may still appear."""
        await asyncio.wait({under_way}, timeout=self._settings.undo_secs)
        if launch.created is False:
            return
        try:
            removed = await self._remove(instance_id)
        except _ENGINE_ERRORS:
            removed = False
        if not removed and not (under_way.done() and launch.created):
            self._tasks.spawn(self._settle(instance_id, under_way), f"settle {instance_id}")

    async def _settle(self, instance_id: str, under_way: "asyncio.Future[str]") -> None:
        """Remove the container of a launch with an unknown result, which may appear within minutes.

        An engine that hangs may still create the container when it recovers, so attempts without a response do not
        count. If the server stops before this task ends, the reconciler finds the container at the next start.
        """
        await asyncio.wait({under_way})
        for pause in _SETTLE_PAUSES:
            responded = False
            while not responded:
                await asyncio.sleep(pause)
                try:
                    if await self._remove(instance_id):
                        _LOG.info("removed the container of a cancelled launch", instance=instance_id)
                        return
                    responded = True
                except _ENGINE_ERRORS as error:
                    _LOG.debug("the engine does not respond", instance=instance_id, error=str(error))

    async def _remove(self, instance_id: str) -> bool:
        settings = self._settings
        return await self._removals.run(
            lambda client: remove_instance(client, settings.server_id, instance_id, settings.stop_grace_secs),
            settings.remove_secs + settings.stop_grace_secs,
            settings.queue_secs,
        )

    async def _purge(self) -> int:
        settings = self._settings
        found = await self._queries.run(lambda client: list_containers(client, settings.server_id), settings.query_secs)
        removed = await asyncio.gather(*(self._remove_container(container) for container in found))
        await self._setup.run(self._remove_shared, settings.prepare_secs)
        self._shared = None
        return sum(removed)

    async def _remove_container(self, container: str) -> bool:
        settings = self._settings
        return await self._removals.run(
            lambda client: remove_container(client, container), settings.remove_secs, settings.queue_secs
        )

    def _remove_shared(self, client: EngineClient) -> None:
        shared.remove_network(client, self._settings.server_id)
        shared.remove_images(client, self._settings.server_id)
        shared.remove_volume(client, self._agent.version)
