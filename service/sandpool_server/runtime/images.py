"""Images of the engine: their configuration, and pulls."""

import asyncio
from collections.abc import Callable
from typing import Any

from docker.errors import APIError

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.domain.model import PullProgress
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import ImageConfig
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.executors import BoundedExecutor
from sandpool_server.runtime.failures import EngineDown, PullRefused, launch_failed, status
from sandpool_server.runtime.pulls import Pull
from sandpool_server.runtime.settings import RuntimeSettings

PullChanged = Callable[[str], None]
"""Called with the name of an image when its pull starts, progresses or ends."""


class Images:
    """The images of an engine.

    Every call queries the engine (4 ms), so that images that were removed or moved externally are detected.
    """

    def __init__(
        self, settings: RuntimeSettings, queries: BoundedExecutor, pulls: BoundedExecutor, changed: PullChanged
    ) -> None:
        self._settings = settings
        self._queries = queries
        self._pulls = pulls
        self._changed = changed
        self._under_way: dict[str, tuple[Pull, asyncio.Task[None]]] = {}

    async def ensure(self, image: str, policy: PullPolicy) -> ImageConfig:
        """Return the configuration of the image. Pulls the image first if the policy requires it.

        Callers of the same image share one pull. Cancelling one caller does not affect the others. Raises
        `LaunchFailed`.
        """
        found = None if policy is PullPolicy.ALWAYS else await self._inspect(image)
        if found is None and policy is PullPolicy.NEVER:
            raise LaunchFailed(
                FailureReason.IMAGE_NOT_FOUND,
                f"the image {image!r} was not found on the engine, and the pull policy `never` forbids a pull; "
                "load the image into the engine, or use another pull policy",
            )
        if found is None:
            await asyncio.shield(self._pull(image))
            found = await self._inspect(image)
        if found is None:
            raise LaunchFailed(
                FailureReason.PULL_FAILED,
                f"the image {image!r} was removed immediately after the pull; check for processes that prune images",
            )
        return found

    def pulls(self) -> dict[str, PullProgress]:
        """Return the active and queued pulls by image."""
        return {image: pull.progress for image, (pull, _) in self._under_way.items()}

    async def close(self) -> None:
        """Cancel all pulls. The engine stops a pull when its stream is no longer read."""
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pull(self, image: str) -> "asyncio.Task[None]":
        """Return the active pull of the image; starts one if there is none."""
        if image in self._under_way:
            return self._under_way[image][1]
        loop = asyncio.get_running_loop()
        pull = Pull(image, lambda: _report_threadsafe(loop, self._report, pull), self._settings.pull_report_secs)
        task = asyncio.create_task(self._run_pull(image, pull), name=f"pull {image}")
        self._under_way[image] = (pull, task)
        task.add_done_callback(lambda done: self._finished(image, done))
        self._changed(image)
        return task

    def _report(self, pull: Pull) -> None:
        image = pull.progress.image
        if image in self._under_way and self._under_way[image][0] is pull:
            self._changed(image)

    def _finished(self, image: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[image]
        if not task.cancelled():
            task.exception()  # Read the exception, because asyncio would log it if no caller waits.
        self._changed(image)

    async def _inspect(self, image: str) -> ImageConfig | None:
        secs = self._settings.query_secs
        try:
            return await self._queries.run(lambda client: _inspect(client, image), secs)
        except (EngineDown, APIError) as error:
            raise launch_failed(error, image) from error

    async def _run_pull(self, image: str, pull: Pull) -> None:
        settings = self._settings
        try:
            await self._pulls.run(
                lambda client: pull(client, settings.pull_idle_secs), settings.pull_secs, settings.queue_secs
            )
        except (EngineDown, APIError, PullRefused) as error:
            raise launch_failed(error, image) from error


def _report_threadsafe(loop: asyncio.AbstractEventLoop, report: Callable[[Pull], None], pull: Pull) -> None:
    """Report the pull on the event loop. Called in the pull's thread, which may outlive the loop."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(report, pull)


def _inspect(client: EngineClient, image: str) -> ImageConfig | None:
    try:
        found = client.image(image)
    except APIError as error:
        if status(error) in {400, 404}:  # 400: the reference is invalid; the pull reports this.
            return None
        raise
    return image_config(found)


def image_config(found: dict[str, Any]) -> ImageConfig:
    """Convert the engine's description of an image."""
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    working_dir = config.get("WorkingDir") or "/"
    return ImageConfig(
        digest=str(found["Id"]),
        env={name: value for name, _, value in pairs},
        working_dir=working_dir if working_dir.startswith("/") else f"/{working_dir}",
        user=config.get("User") or "",
    )
