"""An engine in memory: instant, countable, and in variants that fail in ways with names.

FakeRuntime            does what it should
SlowRuntime            a launch waits until the test lets it go on
NeverAnsweringRuntime  like an engine that hangs: nothing comes back until the caller gives up
BrokenRuntime          every launch fails with one reason, until mended
DyingRuntime           every container dies right after its start
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import DiskEnforcement, Member, PullPolicy, PullProgress
from sandpool_server.ports import ImageConfig, MemberRef, RuntimeEvent, RuntimeEventKind

IMAGE = "busybox:latest"
PYTHON_IMAGE = "python:3.11-slim"


@dataclass
class FakeContainer:
    """One container in memory."""

    member: Member
    token_sha256: str
    address: str
    running: bool = True
    exit_code: int | None = None
    paused: bool = False
    written: int = 0
    """Bytes in its file system, for a test to set."""


class FakeRuntime:
    """Implements `ports.Runtime`. What tests look at and change is public.

    `containers` are those that exist, by member id; `peak` is the most there ever were; `launched` and `removed` list
    the member ids in order. `available` False makes the engine refuse every call; when it is True again RESYNC comes.
    `images` are on the engine; `registry` holds what can be pulled, at first the same, and `pulled` lists the pulls. A
    test moves a tag, or takes an image away, by changing either. `pulling` holds pulls up while it is clear.
    """

    def __init__(
        self,
        images: tuple[str, ...] = (IMAGE, PYTHON_IMAGE),
        pull_changed: Callable[[str], None] = lambda _image: None,
    ) -> None:
        self.images = {
            image: ImageConfig(f"sha256:{index:064x}", {"PATH": "/bin"}, "/", "") for index, image in enumerate(images)
        }
        self.registry = dict(self.images)
        self.pulled: list[str] = []
        self.pulling = asyncio.Event()
        self.pulling.set()
        self.enforcement = DiskEnforcement.WATCHED
        self.containers: dict[str, FakeContainer] = {}
        self.launched: list[str] = []
        self.removed: list[str] = []
        self.peak = 0
        self.prepared = 0
        self.pings = 0
        self.closed = False
        self._available = True
        self._pull_changed = pull_changed
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._hosts = itertools.count(2)
        self._readers: set[asyncio.Queue[RuntimeEvent | None]] = set()

    # --- the port -----------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        self._check()
        self.prepared += 1

    async def ping(self) -> None:
        self._check()
        self.pings += 1

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        self._check_launch()
        if policy is PullPolicy.ALWAYS or (policy is PullPolicy.MISSING and image not in self.images):
            if image not in self._under_way:
                self._under_way[image] = asyncio.create_task(self._pull(image), name=f"pull {image}")
                self._pull_changed(image)
            await asyncio.shield(self._under_way[image])
        if image not in self.images:
            raise LaunchFailed(
                FailureReason.IMAGE_NOT_FOUND,
                f"the engine lacks the image {image!r}, and the policy forbids pulling it",
            )
        return self.images[image]

    def pulls(self) -> dict[str, PullProgress]:
        return {image: PullProgress(image, 1, 2) for image in self._under_way}

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        return self.enforcement if self.prepared else None

    async def disk_usage(self) -> dict[str, int]:
        self._check()
        return {member_id: one.written for member_id, one in self.containers.items() if one.running}

    async def launch(self, member: Member, token_sha256: str) -> str:
        never = member.pull_policy is PullPolicy.NEVER
        await self.ensure_image(member.spec.image, PullPolicy.NEVER if never else PullPolicy.MISSING)
        if member.id in self.containers:
            raise LaunchFailed(FailureReason.START_FAILED, "the container could not be started: its name is taken")
        host = next(self._hosts)
        container = FakeContainer(member, token_sha256, f"10.0.{host // 256}.{host % 256}:10240")
        self.containers[member.id] = container
        self.peak = max(self.peak, len(self.containers))
        try:
            await self.starting(member)
        except BaseException:
            self.containers.pop(member.id, None)
            raise
        if member.id not in self.containers:
            raise LaunchFailed(FailureReason.START_FAILED, "the container was removed while it started")
        self.launched.append(member.id)
        return container.address

    async def remove(self, member_id: str) -> None:
        self._check()
        await asyncio.sleep(0)
        if member_id in self.containers:
            self.removed.append(member_id)
            self.vanish(member_id)

    async def members(self) -> list[MemberRef]:
        self._check()
        return [
            MemberRef(member_id, one.running, one.address if one.running else "", one.exit_code, one.paused)
            for member_id, one in self.containers.items()
        ]

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        queue: asyncio.Queue[RuntimeEvent | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            yield RuntimeEvent(RuntimeEventKind.RESYNC)
            while not self.closed:
                event = await queue.get()
                if event is None:
                    return
                yield event
        finally:
            self._readers.discard(queue)

    async def purge(self) -> int:
        self._check()
        gone = list(self.containers)
        for member_id in gone:
            self.vanish(member_id)
        return len(gone)

    async def close(self) -> None:
        self.closed = True
        pulls = list(self._under_way.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
        for queue in self._readers:
            queue.put_nowait(None)

    # --- what happens on the engine -----------------------------------------------------------------------------------

    async def starting(self, member: Member) -> None:
        """What a start takes; a variant's hook."""

    def emit(self, event: RuntimeEvent) -> None:
        """Send an event to all readers."""
        for queue in self._readers:
            queue.put_nowait(event)

    def die(self, member_id: str, exit_code: int = 137, *, oom: bool = False) -> None:
        """End a container's first process; the container stays."""
        container = self.containers[member_id]
        container.running, container.exit_code = False, exit_code
        if oom:
            self.emit(RuntimeEvent(RuntimeEventKind.OOM, member_id))
        self.emit(RuntimeEvent(RuntimeEventKind.DIED, member_id, exit_code))

    def vanish(self, member_id: str) -> None:
        """Remove a container, as somebody else on the engine might."""
        if self.containers[member_id].running:
            self.emit(RuntimeEvent(RuntimeEventKind.KILLED, member_id))
            self.die(member_id)
        del self.containers[member_id]
        self.emit(RuntimeEvent(RuntimeEventKind.REMOVED, member_id))

    def pause(self, member_id: str) -> None:
        """Pause a container."""
        self.containers[member_id].paused = True
        self.emit(RuntimeEvent(RuntimeEventKind.PAUSED, member_id))

    @property
    def available(self) -> bool:
        """Whether the engine answers."""
        return self._available

    @available.setter
    def available(self, value: bool) -> None:
        if value and not self._available:
            self.emit(RuntimeEvent(RuntimeEventKind.RESYNC))
        self._available = value

    async def _pull(self, image: str) -> None:
        try:
            await self.pulling.wait()
            self._check_launch()
            if image not in self.registry:
                raise LaunchFailed(FailureReason.IMAGE_NOT_FOUND, f"the image {image!r} was not found")
            self.pulled.append(image)
            self.images[image] = self.registry[image]
        finally:
            del self._under_way[image]
            self._pull_changed(image)

    def _check(self) -> None:
        if not self._available:
            raise Unavailable("ENGINE_UNREACHABLE", "the container engine cannot be reached")

    def _check_launch(self) -> None:
        if not self._available:
            raise LaunchFailed(FailureReason.ENGINE_UNREACHABLE, "the container engine cannot be reached")


class SlowRuntime(FakeRuntime):
    """A launch waits until `let(n)` has let it go on; `waiting` counts those that wait."""

    def __init__(self, images: tuple[str, ...] = (IMAGE, PYTHON_IMAGE)) -> None:
        super().__init__(images)
        self._permits = asyncio.Semaphore(0)
        self._began = asyncio.Event()
        self.waiting = 0

    async def a_launch(self) -> None:
        """Wait until a launch waits, its container made."""
        await self._began.wait()

    async def starting(self, member: Member) -> None:
        self.waiting += 1
        self._began.set()
        try:
            await self._permits.acquire()
        finally:
            self.waiting -= 1

    def let(self, count: int = 1) -> None:
        """Let so many launches go on."""
        for _ in range(count):
            self._permits.release()


class NeverAnsweringRuntime(FakeRuntime):
    """Each call hangs until cancelled, or until `deadline_secs` have passed as a real runtime's would."""

    def __init__(self, deadline_secs: float = 3600.0) -> None:
        super().__init__()
        self.deadline_secs = deadline_secs
        self.asked = 0

    async def prepare(self) -> None:
        await self._hang()

    async def ping(self) -> None:
        await self._hang()

    async def remove(self, member_id: str) -> None:
        await self._hang()

    async def members(self) -> list[MemberRef]:
        await self._hang()
        return []

    async def disk_usage(self) -> dict[str, int]:
        await self._hang()
        return {}

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        try:
            await self._hang()
        except Unavailable as error:
            raise LaunchFailed(FailureReason.ENGINE_UNREACHABLE, error.message) from error
        return self.images[image]

    async def _hang(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.deadline_secs)
        raise Unavailable("ENGINE_UNREACHABLE", "the container engine did not answer in time")


class BrokenRuntime(FakeRuntime):
    """Every launch fails with `reason` until `mend()`; `tries` counts them."""

    def __init__(self, reason: FailureReason = FailureReason.START_FAILED) -> None:
        super().__init__()
        self.reason: FailureReason | None = reason
        self.tries = 0

    async def starting(self, member: Member) -> None:
        self.tries += 1
        if self.reason is not None:
            raise LaunchFailed(self.reason, f"broken on purpose: {self.reason}")

    def mend(self) -> None:
        """Let launches succeed from now on."""
        self.reason = None


class DyingRuntime(FakeRuntime):
    """A container dies with `exit_code` right after its launch has returned."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__()
        self.exit_code = exit_code

    async def launch(self, member: Member, token_sha256: str) -> str:
        address = await super().launch(member, token_sha256)
        asyncio.get_running_loop().call_soon(self._die_if_there, member.id)
        return address

    def _die_if_there(self, member_id: str) -> None:
        if member_id in self.containers:
            self.die(member_id, self.exit_code)
