"""The runtime on a Docker Engine.

launch ──► lane "start"  ┐
remove ──► lane "remove" │   each lane: a few threads,
members ─► lane "query"  ├─► a client of docker-py each ──► engine
usage ───► lane "disk"   │
ping ────► lane "ping"   │
images ──► lane "pull"   │
prepare ─► lane "setup"  ┘
events ──► a thread per reader ────────────────────────────► engine
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, TypeVar

import structlog
from docker.errors import APIError

from sandpool_server.domain.model import DiskEnforcement, Member, PullPolicy, PullProgress
from sandpool_server.ports import ImageConfig, MemberRef, RuntimeEvent
from sandpool_server.runtime import shared
from sandpool_server.runtime.client import EngineClient, connector
from sandpool_server.runtime.container import VolumePlace, container_config
from sandpool_server.runtime.events import EventReader
from sandpool_server.runtime.failures import (
    EngineConflict,
    EngineDown,
    image_is_missing,
    launch_failed,
    shared_is_missing,
    unavailable,
)
from sandpool_server.runtime.images import Images, PullChanged
from sandpool_server.runtime.lanes import Lane
from sandpool_server.runtime.members import (
    Launch,
    list_containers,
    list_members,
    measure_members,
    remove_container,
    remove_member,
)
from sandpool_server.runtime.routes import UNKNOWN, find_reach
from sandpool_server.runtime.settings import Route, RuntimeSettings
from sandpool_server.runtime.tasks import TaskSet
from sandpool_server.runtime.volumes import Volumes

T = TypeVar("T")

_ENGINE_ERRORS = (EngineDown, EngineConflict, APIError)
_SETTLE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
"""After a launch whose fate is unknown: how long to wait before each look for the container, in seconds."""
_LOG = structlog.get_logger(__name__)


class DockerRuntime:
    """Implements `ports.Runtime`. To be made on the event loop; reads the agent's program once (`OSError`).

    `pull_changed` is called on the loop with an image when its pull begins and ends, and between the two at most every
    `pull_report_secs`.
    """

    def __init__(self, settings: RuntimeSettings, pull_changed: PullChanged = lambda _image: None) -> None:
        self._settings = settings
        self._agent = shared.AgentBinary.read(settings.agent_binary)
        self._connect = connector(settings.base_url)
        self._starts = Lane("start", settings.create_parallelism, self._connect)
        self._removals = Lane("remove", settings.remove_parallelism, self._connect)
        self._queries = Lane("query", settings.query_parallelism, self._connect)
        self._measures = Lane("disk", 1, self._connect)
        self._pings = Lane("ping", 1, self._connect)
        self._pulls = Lane("pull", settings.pull_parallelism, self._connect)
        self._setup = Lane("setup", 1, self._connect)
        self._images = Images(settings, self._queries, self._pulls, pull_changed)
        self._readers: set[EventReader] = set()
        self._tasks = TaskSet()
        self._preparing = asyncio.Lock()
        self._shared: shared.Shared | None = None
        self._reach = UNKNOWN
        self._volumes = Volumes(settings.server_id)

    @property
    def agent_version(self) -> str:
        """Which agent this server puts into containers: the first 12 hexadecimal digits of its SHA-256."""
        return self._agent.version

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        """Who holds containers to `ephemeral_disk_mb`; None until prepared."""
        if self._shared is None:
            return None
        return DiskEnforcement.ENGINE if self._shared.disk_limits else DiskEnforcement.WATCHED

    @property
    def route(self) -> Route | None:
        """How agents are reached, direct or published; None until prepared."""
        return None if self._reach is UNKNOWN else self._reach.route

    async def prepare(self) -> None:
        """Make the network and the agent's volume, unless they are there; the first time, find out the route."""
        await self._or_unavailable(self._prepare())

    async def ping(self) -> None:
        """Ask the engine for a sign of life."""
        secs = self._settings.ping_secs
        await self._or_unavailable(self._pings.run(lambda client: client.ping(), secs))

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        """Return what the image says of itself; pull it first where the policy wants that."""
        return await self._images.ensure(image, policy)

    def pulls(self) -> dict[str, PullProgress]:
        """The pulls under way, in compressed bytes of those layers whose transfer has begun."""
        return self._images.pulls()

    async def disk_usage(self) -> dict[str, int]:
        """Ask the engine what its running containers have written; volumes and tmpfs do not count."""
        settings = self._settings
        return await self._or_unavailable(
            self._measures.run(lambda client: measure_members(client, settings.server_id), settings.disk_secs)
        )

    async def launch(self, member: Member, token_sha256: str) -> str:
        """Create and start the container; what an image or a prune took away is brought back once."""
        image = member.spec.image
        try:
            if self.route is None:
                await self._prepare()
            try:
                return await self._start(member, token_sha256)
            except APIError as error:
                if image_is_missing(error):
                    # The policy has had its say before this; what is gone since is brought back unless forbidden.
                    never = member.pull_policy is PullPolicy.NEVER
                    await self._images.ensure(image, PullPolicy.NEVER if never else PullPolicy.MISSING)
                elif shared_is_missing(error):
                    await self._prepare()
                else:
                    raise
            return await self._start(member, token_sha256)
        except _ENGINE_ERRORS as error:
            raise launch_failed(error, image) from error

    async def remove(self, member_id: str) -> None:
        """Remove the member's container by force."""
        await self._or_unavailable(self._remove(member_id))

    async def members(self) -> list[MemberRef]:
        """List this server's containers."""
        settings = self._settings
        return await self._or_unavailable(
            self._queries.run(lambda client: list_members(client, settings.server_id, self._reach), settings.query_secs)
        )

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield the engine's events of our containers until the runtime closes."""
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
        """Remove all that carries this server's label, and the agent's volume where no other server uses it."""
        return await self._or_unavailable(self._purge())

    async def close(self) -> None:
        """End threads and tasks; containers stay."""
        for reader in tuple(self._readers):
            reader.close()
        await self._tasks.close()
        await self._images.close()
        lanes = (self._starts, self._removals, self._queries, self._measures, self._pings, self._pulls, self._setup)
        await asyncio.gather(*(lane.close() for lane in lanes))

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
                _LOG.info("found how agents are reached", route=self._reach.route, host=self._reach.host)

    async def _start(self, member: Member, token_sha256: str) -> str:
        """Create and start the container; when that fails or is cancelled, remove what was made."""
        settings = self._settings
        disk_limits = self.disk_enforcement is DiskEnforcement.ENGINE

        def config(volumes: Iterable[VolumePlace]) -> dict[str, Any]:
            return container_config(
                member, token_sha256, settings, self._agent.version, disk_limits=disk_limits, volumes=volumes
            )

        launch = Launch(member.id, member.spec.image, self._volumes, config, self._reach)
        under_way = await self._starts.begin(launch, settings.launch_secs, settings.queue_secs)
        try:
            return await self._starts.wait(under_way, settings.launch_secs)
        except BaseException:
            launch.abandon()
            if launch.made is not False:
                await self._tasks.uninterrupted(self._undo(member.id, launch, under_way), f"undo {member.id}")
            raise

    async def _undo(self, member_id: str, launch: Launch, under_way: "asyncio.Future[str]") -> None:
        """Remove what a launch made; what cannot be removed now, or may yet appear, is left to a task."""
        await asyncio.wait({under_way}, timeout=self._settings.undo_secs)
        if launch.made is False:
            return
        try:
            removed = await self._remove(member_id)
        except _ENGINE_ERRORS:
            removed = False
        if not removed and not (under_way.done() and launch.made):
            self._tasks.spawn(self._settle(member_id, under_way), f"settle {member_id}")

    async def _settle(self, member_id: str, under_way: "asyncio.Future[str]") -> None:
        """Look for the container of a launch whose fate is unknown, for minutes, and remove it.

        An engine that hung may still make it when it wakes; looks that it did not answer do not count. If the server
        ends before, recovery at its next start finds the container.
        """
        await asyncio.wait({under_way})
        for pause in _SETTLE_PAUSES:
            answered = False
            while not answered:
                await asyncio.sleep(pause)
                try:
                    if await self._remove(member_id):
                        _LOG.info("removed the container of a launch given up", member=member_id)
                        return
                    answered = True
                except _ENGINE_ERRORS as error:
                    _LOG.debug("the engine does not answer yet", member=member_id, error=str(error))

    async def _remove(self, member_id: str) -> bool:
        settings = self._settings
        return await self._removals.run(
            lambda client: remove_member(client, settings.server_id, member_id, settings.stop_grace_secs),
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
