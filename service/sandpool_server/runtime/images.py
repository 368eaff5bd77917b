"""Images: what they say of themselves, and having them pulled."""

import asyncio
from typing import Any

import requests
import urllib3.exceptions
from docker.errors import APIError

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.ports import ImageConfig
from sandpool_server.runtime.client import EngineClient
from sandpool_server.runtime.failures import EngineDown, PullRefused, launch_failed, status
from sandpool_server.runtime.lanes import Lane
from sandpool_server.runtime.settings import RuntimeSettings


class Images:
    """The images of an engine. Asks anew each time (4 ms), so an image removed or moved behind our back is noticed."""

    def __init__(self, settings: RuntimeSettings, queries: Lane, pulls: Lane) -> None:
        self._settings = settings
        self._queries = queries
        self._pulls = pulls
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, image: str) -> ImageConfig:
        """Return what the image says, pulling it first if the engine lacks it. Raises `LaunchFailed`.

        Callers that want the same image share one pull; cancelling one of them disturbs no other.
        """
        found = await self._inspect(image)
        if found is None:
            pull = self._under_way.get(image)
            if pull is None:
                pull = asyncio.create_task(self._pull(image), name=f"pull {image}")
                self._under_way[image] = pull
                pull.add_done_callback(lambda done: self._ended(image, done))
            await asyncio.shield(pull)
            found = await self._inspect(image)
        if found is None:
            raise LaunchFailed(FailureReason.PULL_FAILED, f"the image {image!r} vanished right after it was pulled")
        return found

    async def close(self) -> None:
        """End the pulls; the engine drops what nobody reads."""
        pulls = list(self._under_way.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    def _ended(self, image: str, pull: "asyncio.Task[None]") -> None:
        del self._under_way[image]
        if not pull.cancelled():
            pull.exception()  # Whoever still waits has it; if nobody does, nobody needs it.

    async def _inspect(self, image: str) -> ImageConfig | None:
        secs = self._settings.query_secs
        try:
            return await self._queries.run(lambda client: _inspect(client, image), secs)
        except (EngineDown, APIError) as error:
            raise launch_failed(error, image) from error

    async def _pull(self, image: str) -> None:
        settings = self._settings
        try:
            await self._pulls.run(
                lambda client: _pull(client, image, settings.pull_idle_secs), settings.pull_secs, settings.queue_secs
            )
        except (EngineDown, APIError, PullRefused) as error:
            raise launch_failed(error, image) from error


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


def _pull(client: EngineClient, image: str, idle_secs: float) -> None:
    """Pull an image to its end. Raises `PullRefused` with what the engine said."""
    client.timeout = idle_secs
    try:
        for line in client.pull(image, stream=True, decode=True):
            if "error" in line:
                raise PullRefused(str(line["error"]))
    except APIError as error:
        raise PullRefused(str(error.explanation or error)) from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise PullRefused(f"the pull made no progress for {idle_secs:g} seconds") from error
