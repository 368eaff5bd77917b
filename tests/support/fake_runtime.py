"""An engine in memory. It responds immediately and counts its calls; variants fail in a specified way.

FakeRuntime            works correctly
SlowRuntime            a launch waits until the test permits it to continue
UnresponsiveRuntime    like an engine that hangs: calls do not return until the caller cancels them
BrokenRuntime          every launch fails with one reason until it is repaired
DyingRuntime           every container dies immediately after its start
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import DiskEnforcement, Instance, PullProgress
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import ImageConfig, InstanceRef, RuntimeEvent, RuntimeEventKind

IMAGE = "busybox:latest"
PYTHON_IMAGE = "python:3.11-slim"


@dataclass
class FakeContainer:
    """One container in memory."""

    instance: Instance
    token_sha256: str
    address: str
    running: bool = True
    exit_code: int | None = None
    paused: bool = False
    written: int = 0
    """Bytes in its file system. Set by tests."""


class FakeRuntime:
    """Implements `interfaces.Runtime`. Attributes that tests read and change are public.

    `containers` maps instance ids to existing containers; `peak` is their highest number so far; `launched` and
    `removed` list instance ids in order. While `available` is False, the engine refuses every call; when it becomes
    True again, readers of events receive RESYNC. `images` are on the engine; `registry` holds the images that can be
    pulled, at first the same; `pulled` lists the pulls. A test changes either of them to move a tag or to remove an
    image. While `pulling` is clear, pulls wait.
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
        self.enforcement = DiskEnforcement.BEST_EFFORT
        self.containers: dict[str, FakeContainer] = {}
        self.launched: list[str] = []
        self.removed: list[str] = []
        self.peak = 0
        self.prepared = 0
        self.pings = 0
        self.closed = False
        self._available = True
        self._pull_changed = pull_changed
        self._running_pulls: dict[str, asyncio.Task[None]] = {}
        self._hosts = itertools.count(2)
        self._readers: set[asyncio.Queue[RuntimeEvent | None]] = set()

    # --- interface ----------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        self._check()
        self.prepared += 1

    async def ping(self) -> None:
        self._check()
        self.pings += 1

    async def ensure_image(self, image: str, policy: PullPolicy = PullPolicy.MISSING) -> ImageConfig:
        self._check_launch()
        if policy is PullPolicy.ALWAYS or (policy is PullPolicy.MISSING and image not in self.images):
            if image not in self._running_pulls:
                self._running_pulls[image] = asyncio.create_task(self._pull(image), name=f"pull {image}")
                self._pull_changed(image)
            await asyncio.shield(self._running_pulls[image])
        if image not in self.images:
            raise LaunchFailed(
                FailureReason.IMAGE_NOT_FOUND,
                f"the engine lacks the image {image!r}, and the policy forbids pulling it",
            )
        return self.images[image]

    def pulls(self) -> dict[str, PullProgress]:
        return {image: PullProgress(image, 1, 2) for image in self._running_pulls}

    @property
    def disk_enforcement(self) -> DiskEnforcement | None:
        return self.enforcement if self.prepared else None

    async def disk_usage(self) -> dict[str, int]:
        self._check()
        return {instance_id: one.written for instance_id, one in self.containers.items() if one.running}

    async def launch(self, instance: Instance, token_sha256: str) -> str:
        never = instance.spec.pull_policy is PullPolicy.NEVER
        await self.ensure_image(instance.spec.image, PullPolicy.NEVER if never else PullPolicy.MISSING)
        if instance.id in self.containers:
            raise LaunchFailed(FailureReason.START_FAILED, "the container could not be started: its name is taken")
        host = next(self._hosts)
        container = FakeContainer(instance, token_sha256, f"10.0.{host // 256}.{host % 256}:10240")
        self.containers[instance.id] = container
        self.peak = max(self.peak, len(self.containers))
        try:
            await self.starting(instance)
        except BaseException:
            self.containers.pop(instance.id, None)
            raise
        if instance.id not in self.containers:
            raise LaunchFailed(FailureReason.START_FAILED, "the container was removed while it started")
        self.launched.append(instance.id)
        return container.address

    async def remove(self, instance_id: str) -> None:
        self._check()
        await asyncio.sleep(0)
        if instance_id in self.containers:
            self.removed.append(instance_id)
            self.remove_container(instance_id)

    async def instances(self) -> list[InstanceRef]:
        self._check()
        return [
            InstanceRef(instance_id, one.running, one.address if one.running else "", one.exit_code, one.paused)
            for instance_id, one in self.containers.items()
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
        purged = list(self.containers)
        for instance_id in purged:
            self.remove_container(instance_id)
        return len(purged)

    async def close(self) -> None:
        self.closed = True
        pulls = list(self._running_pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)
        for queue in self._readers:
            queue.put_nowait(None)

    # --- events on the engine -----------------------------------------------------------------------------------------

    async def starting(self, instance: Instance) -> None:
        """Simulate the start of a container. Variants override this method."""

    def emit(self, event: RuntimeEvent) -> None:
        """Send an event to all readers."""
        for queue in self._readers:
            queue.put_nowait(event)

    def die(self, instance_id: str, exit_code: int = 137, *, oom: bool = False) -> None:
        """Terminate the first process of a container; the container continues to exist."""
        container = self.containers[instance_id]
        container.running, container.exit_code = False, exit_code
        if oom:
            self.emit(RuntimeEvent(RuntimeEventKind.OOM, instance_id))
        self.emit(RuntimeEvent(RuntimeEventKind.DIED, instance_id, exit_code))

    def remove_container(self, instance_id: str) -> None:
        """Remove a container, as another client of the engine might."""
        if self.containers[instance_id].running:
            self.emit(RuntimeEvent(RuntimeEventKind.KILLED, instance_id))
            self.die(instance_id)
        del self.containers[instance_id]
        self.emit(RuntimeEvent(RuntimeEventKind.REMOVED, instance_id))

    def pause(self, instance_id: str) -> None:
        """Pause a container."""
        self.containers[instance_id].paused = True
        self.emit(RuntimeEvent(RuntimeEventKind.PAUSED, instance_id))

    @property
    def available(self) -> bool:
        """Whether the engine accepts calls."""
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
            del self._running_pulls[image]
            self._pull_changed(image)

    def _check(self) -> None:
        if not self._available:
            raise Unavailable("ENGINE_UNREACHABLE", "the container engine cannot be reached")

    def _check_launch(self) -> None:
        if not self._available:
            raise LaunchFailed(FailureReason.ENGINE_UNREACHABLE, "the container engine cannot be reached")


class SlowRuntime(FakeRuntime):
    """A launch waits until `permit(n)` permits it to continue; `waiting` counts the waiting launches."""

    def __init__(self, images: tuple[str, ...] = (IMAGE, PYTHON_IMAGE)) -> None:
        super().__init__(images)
        self._permits = asyncio.Semaphore(0)
        self._began = asyncio.Event()
        self.waiting = 0

    async def launch_waits(self) -> None:
        """Return when a launch waits with its container created."""
        await self._began.wait()

    async def starting(self, instance: Instance) -> None:
        self.waiting += 1
        self._began.set()
        try:
            await self._permits.acquire()
        finally:
            self.waiting -= 1

    def permit(self, count: int = 1) -> None:
        """Permit this number of launches to continue."""
        for _ in range(count):
            self._permits.release()


class UnresponsiveRuntime(FakeRuntime):
    """Each call hangs until it is cancelled or `deadline_secs` have passed, like the deadline of a real runtime."""

    def __init__(self, deadline_secs: float = 3600.0) -> None:
        super().__init__()
        self.deadline_secs = deadline_secs
        self.calls = 0

    async def prepare(self) -> None:
        await self._hang()

    async def ping(self) -> None:
        await self._hang()

    async def remove(self, instance_id: str) -> None:
        await self._hang()

    async def instances(self) -> list[InstanceRef]:
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
        self.calls += 1
        await asyncio.sleep(self.deadline_secs)
        raise Unavailable("ENGINE_UNREACHABLE", "the container engine did not respond in time")


class BrokenRuntime(FakeRuntime):
    """Every launch fails with `reason` until `repair()`; `tries` counts the launches."""

    def __init__(self, reason: FailureReason = FailureReason.START_FAILED) -> None:
        super().__init__()
        self.reason: FailureReason | None = reason
        self.tries = 0

    async def starting(self, instance: Instance) -> None:
        self.tries += 1
        if self.reason is not None:
            raise LaunchFailed(self.reason, f"broken on purpose: {self.reason}")

    def repair(self) -> None:
        """Make the next launches succeed."""
        self.reason = None


class DyingRuntime(FakeRuntime):
    """A container dies with `exit_code` immediately after its launch has returned."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__()
        self.exit_code = exit_code

    async def launch(self, instance: Instance, token_sha256: str) -> str:
        address = await super().launch(instance, token_sha256)
        asyncio.get_running_loop().call_soon(self._die_if_present, instance.id)
        return address

    def _die_if_present(self, instance_id: str) -> None:
        if instance_id in self.containers:
            self.die(instance_id, self.exit_code)
