"""Pulls of images: policies, number of pulls, progress, failures."""

import asyncio
import io
import os
import secrets
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import docker
import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.domain.model import PullProgress
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings
from tests.support.instances import make_instance
from tests.support.runtime_contract import TOKEN

pytestmark = pytest.mark.engine

LAYER_BYTES = 3 << 20


@dataclass
class PushedImage:
    """An image in the registry and on the engine, with its own configuration."""

    engine: docker.APIClient
    repository: str
    server_id: str

    @property
    def name(self) -> str:
        return f"{self.repository}:1"

    def push(self) -> str:
        """Push new content under the name, to the registry and to the engine. Return the id of the image."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("noise")
            entry.size = LAYER_BYTES
            archive.addfile(entry, io.BytesIO(os.urandom(LAYER_BYTES)))
        self.engine.import_image_from_data(
            buffer.getvalue(),
            repository=self.repository,
            tag="1",
            changes=[
                f"LABEL sandpool.server={self.server_id}",
                "ENV GREETING=a=b",
                "WORKDIR /app",
                "USER 7:8",
                "VOLUME /data",
                'CMD ["never"]',
            ],
        )
        assert '"error"' not in self.engine.push(self.repository, tag="1")
        return str(self.engine.inspect_image(self.name)["Id"])

    def remove_from_engine(self) -> None:
        """Remove the image from the engine, but not from the registry."""
        self.engine.remove_image(self.name, force=True)

    def pulls_since(self, since: int) -> int:
        """Return how often the engine has pulled the image."""
        filters = {"event": "pull", "image": self.name}
        return len(list(self.engine.events(since=since, until=int(time.time()) + 1, decode=True, filters=filters)))


@pytest.fixture
def image(engine: docker.APIClient, server_id: str, test_registry: str) -> Iterator[PushedImage]:
    own = PushedImage(engine, f"{test_registry}/sandpool-test/{secrets.token_hex(4)}", server_id)
    own.push()
    yield own
    for container in engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"}):
        engine.remove_container(container["Id"], v=True, force=True)
    for found in set(engine.images(filters={"label": f"sandpool.server={server_id}"}, all=True, quiet=True)):
        engine.remove_image(found, force=True)


async def test_pulls_missing_image_once_for_concurrent_calls(runtime: DockerRuntime, image: PushedImage) -> None:
    image.remove_from_engine()
    cancelled, *others = (asyncio.create_task(runtime.ensure_image(image.name)) for _ in range(4))
    await asyncio.sleep(0)
    cancelled.cancel()
    configs = await asyncio.gather(*others)
    assert len({config.digest for config in configs}) == 1
    assert configs[0].env["GREETING"] == "a=b"
    assert (configs[0].working_dir, configs[0].user) == ("/app", "7:8")


async def test_policy_always_uses_moved_tag(runtime: DockerRuntime, image: PushedImage) -> None:
    old = image.engine.inspect_image(image.name)["Id"]
    new = image.push()
    image.engine.tag(old, image.repository, "1", force=True)
    assert old != new
    assert (await runtime.ensure_image(image.name)).digest == old
    since = int(time.time())
    configs = await asyncio.gather(*(runtime.ensure_image(image.name, PullPolicy.ALWAYS) for _ in range(3)))
    assert {config.digest for config in configs} == {new}
    assert image.pulls_since(since) == 1


async def test_policy_never_does_not_pull(runtime: DockerRuntime, image: PushedImage) -> None:
    image.remove_from_engine()
    since = int(time.time())
    instance = make_instance(image.name, pull_policy=PullPolicy.NEVER)
    for attempt in (runtime.ensure_image(image.name, PullPolicy.NEVER), runtime.launch(instance, TOKEN)):
        with pytest.raises(LaunchFailed, match="forbids a pull") as failed:
            await attempt
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
    assert image.pulls_since(since) == 0
    assert await runtime.instances() == []


async def test_launch_pulls_externally_removed_image(
    runtime: DockerRuntime, agents: GrpcAgents, image: PushedImage
) -> None:
    await runtime.ensure_image(image.name)
    image.remove_from_engine()
    instance = make_instance(image.name)
    address = await runtime.launch(instance, agents.token_sha256(instance.id))
    await agents.wait_ready(instance.id, address, 20)  # The image contains no program.


async def test_reports_progress_from_begin_to_end_of_pull(settings: RuntimeSettings, image: PushedImage) -> None:
    image.remove_from_engine()
    seen: list[PullProgress | None] = []
    runtime = DockerRuntime(
        replace(settings, pull_report_secs=0.0), lambda name: seen.append(runtime.pulls().get(name))
    )
    try:
        await runtime.ensure_image(image.name)
        assert runtime.pulls() == {}
    finally:
        await runtime.close()
    first, *between, last = seen
    assert first == PullProgress(image.name, 0, 0)
    assert last is None
    reported = [progress for progress in between if progress is not None]
    assert reported[-1].current == reported[-1].total >= LAYER_BYTES
    assert [progress.current for progress in reported] == sorted(progress.current for progress in reported)


async def test_unreachable_registry_fails_the_pull(runtime: DockerRuntime) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.ensure_image("127.0.0.1:9/nothing/there:1")
    assert failed.value.reason is FailureReason.PULL_FAILED
    assert runtime.pulls() == {}


async def test_invalid_image_name_is_not_found(runtime: DockerRuntime) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.ensure_image("Upper/Case:1")
    assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
