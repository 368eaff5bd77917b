"""Images: what they say of themselves, and having them pulled."""

import asyncio
from collections.abc import Callable
from typing import Any

from docker.errors import APIError

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.domain.model import PullPolicy, PullProgress
from sandpool_server.ports import ImageConfig
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.failures import EngineDown, PullRefused, launch_failed, status
from sandpool_server.runtime.lanes import Lane
from sandpool_server.runtime.pulls import Pull
from sandpool_server.runtime.settings import RuntimeSettings

PullChanged = Callable[[str], None]
"""Told of an image whose pull began, went on or ended."""


class Images:
    """The images of an engine. Asks anew each time (4 ms), so an image removed or moved behind our back is noticed."""

    def __init__(self, settings: RuntimeSettings, queries: Lane, pulls: Lane, changed: PullChanged) -> None:
        self._settings = settings
        self._queries = queries
        self._pulls = pulls
        self._changed = changed
        self._under_way: dict[str, tuple[Pull, asyncio.Task[None]]] = {}

    async def ensure(self, image: str, policy: PullPolicy) -> ImageConfig:
        """Return what the image says, pulling it first as the policy has it. Raises `LaunchFailed`.

        Callers that want the same image share one pull; cancelling one of them disturbs no other.
        """
        found = None if policy is PullPolicy.ALWAYS else await self._inspect(image)
        if found is None and policy is PullPolicy.NEVER:
            raise LaunchFailed(
                FailureReason.IMAGE_NOT_FOUND,
                f"the engine does not have the image {image!r}, and the pull policy `never` forbids pulling it; load "
                "the image into the engine, or choose another policy",
            )
        if found is None:
            await asyncio.shield(self._pull(image))
            found = await self._inspect(image)
        if found is None:
            raise LaunchFailed(FailureReason.PULL_FAILED, f"the image {image!r} vanished right after it was pulled")
        return found

    def pulls(self) -> dict[str, PullProgress]:
        """The pulls under way, those that wait for their turn included."""
        return {image: pull.progress for image, (pull, _) in self._under_way.items()}

    async def close(self) -> None:
        """End the pulls; the engine drops what nobody reads."""
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pull(self, image: str) -> "asyncio.Task[None]":
        """The pull of the image that is under way, begun now unless there is one."""
        if image in self._under_way:
            return self._under_way[image][1]
        loop = asyncio.get_running_loop()
        pull = Pull(image, lambda: _tell(loop, self._report, pull), self._settings.pull_report_secs)
        task = asyncio.create_task(self._carry_out(image, pull), name=f"pull {image}")
        self._under_way[image] = (pull, task)
        task.add_done_callback(lambda done: self._ended(image, done))
        self._changed(image)
        return task

    def _report(self, pull: Pull) -> None:
        image = pull.progress.image
        if image in self._under_way and self._under_way[image][0] is pull:
            self._changed(image)

    def _ended(self, image: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[image]
        if not task.cancelled():
            task.exception()  # Whoever still waits has it; if nobody does, nobody needs it.
        self._changed(image)

    async def _inspect(self, image: str) -> ImageConfig | None:
        secs = self._settings.query_secs
        try:
            return await self._queries.run(lambda client: _inspect(client, image), secs)
        except (EngineDown, APIError) as error:
            raise launch_failed(error, image) from error

    async def _carry_out(self, image: str, pull: Pull) -> None:
        settings = self._settings
        try:
            await self._pulls.run(
                lambda client: pull(client, settings.pull_idle_secs), settings.pull_secs, settings.queue_secs
            )
        except (EngineDown, APIError, PullRefused) as error:
            raise launch_failed(error, image) from error


def _tell(loop: asyncio.AbstractEventLoop, report: Callable[[Pull], None], pull: Pull) -> None:
    """Have the loop report the pull. Called in the pull's thread, which may outlive the loop."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(report, pull)


def _inspect(client: EngineClient, image: str) -> ImageConfig | None:
    try:
        found = client.image(image)
    except APIError as error:
        if status(error) in {400, 404}:  # 400: no valid reference; the pull will say so.
            return None
        raise
    return image_config(found)


def image_config(found: dict[str, Any]) -> ImageConfig:
    """Read the engine's description of an image."""
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    working_dir = config.get("WorkingDir") or "/"
    return ImageConfig(
        digest=str(found["Id"]),
        env={name: value for name, _, value in pairs},
        working_dir=working_dir if working_dir.startswith("/") else f"/{working_dir}",
        user=config.get("User") or "",
    )
