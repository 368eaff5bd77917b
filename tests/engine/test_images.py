"""Pulling images: when, how often, with what progress, and how it fails."""

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
from sandpool_server.domain.model import PullPolicy, PullProgress
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings
from tests.support.members import make_member
from tests.support.runtime_contract import TOKEN

pytestmark = pytest.mark.engine

LAYER_BYTES = 3 << 20


@dataclass
class OwnImage:
    """An image of our own in the registry and on the engine, with a configuration of its own."""

    engine: docker.APIClient
    repository: str
    server_id: str

    @property
    def name(self) -> str:
        return f"{self.repository}:1"

    def push(self) -> str:
        """Put new content behind the name, in the registry and on the engine; returns the engine's id of it."""
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

    def forget(self) -> None:
        """Take it off the engine; the registry has it."""
        self.engine.remove_image(self.name, force=True)

    def pulls_since(self, since: int) -> int:
        """How often the engine has pulled it."""
        filters = {"event": "pull", "image": self.name}
        return len(list(self.engine.events(since=since, until=int(time.time()) + 1, decode=True, filters=filters)))


@pytest.fixture
def image(engine: docker.APIClient, server_id: str, test_registry: str) -> Iterator[OwnImage]:
    own = OwnImage(engine, f"{test_registry}/sandpool-test/{secrets.token_hex(4)}", server_id)
    own.push()
    yield own
    for container in engine.containers(all=True, filters={"label": f"sandpool.server={server_id}"}):
        engine.remove_container(container["Id"], v=True, force=True)
    for found in set(engine.images(filters={"label": f"sandpool.server={server_id}"}, all=True, quiet=True)):
        engine.remove_image(found, force=True)


async def test_a_missing_image_is_pulled_once_for_all_who_want_it(runtime: DockerRuntime, image: OwnImage) -> None:
    image.forget()
    cancelled, *others = (asyncio.create_task(runtime.ensure_image(image.name)) for _ in range(4))
    await asyncio.sleep(0)
    cancelled.cancel()
    configs = await asyncio.gather(*others)
    assert len({config.digest for config in configs}) == 1
    assert configs[0].env["GREETING"] == "a=b"
    assert (configs[0].working_dir, configs[0].user) == ("/app", "7:8")


async def test_a_tag_that_moved_is_seen_when_it_is_always_pulled(runtime: DockerRuntime, image: OwnImage) -> None:
    old = image.engine.inspect_image(image.name)["Id"]
    new = image.push()
    image.engine.tag(old, image.repository, "1", force=True)
    assert old != new
    assert (await runtime.ensure_image(image.name)).digest == old
    since = int(time.time())
    configs = await asyncio.gather(*(runtime.ensure_image(image.name, PullPolicy.ALWAYS) for _ in range(3)))
    assert {config.digest for config in configs} == {new}
    assert image.pulls_since(since) == 1


async def test_where_pulling_is_forbidden_nothing_is_pulled(runtime: DockerRuntime, image: OwnImage) -> None:
    image.forget()
    since = int(time.time())
    member = replace(make_member(image.name), pull_policy=PullPolicy.NEVER)
    for attempt in (runtime.ensure_image(image.name, PullPolicy.NEVER), runtime.launch(member, TOKEN)):
        with pytest.raises(LaunchFailed, match="forbids pulling") as failed:
            await attempt
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
    assert image.pulls_since(since) == 0
    assert await runtime.members() == []


async def test_an_image_removed_behind_our_back_is_pulled_at_the_launch(
    runtime: DockerRuntime, agents: GrpcAgents, image: OwnImage
) -> None:
    await runtime.ensure_image(image.name)
    image.forget()
    member = make_member(image.name)
    address = await runtime.launch(member, agents.token_sha256(member.id))
    await agents.wait_ready(member.id, address, 20)  # In an image that holds no program.


async def test_progress_is_told_from_the_beginning_to_the_end(settings: RuntimeSettings, image: OwnImage) -> None:
    image.forget()
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
    told = [progress for progress in between if progress is not None]
    assert told[-1].current == told[-1].total >= LAYER_BYTES
    assert [progress.current for progress in told] == sorted(progress.current for progress in told)


async def test_a_registry_out_of_reach_is_a_failed_pull(runtime: DockerRuntime) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.ensure_image("127.0.0.1:9/nothing/there:1")
    assert failed.value.reason is FailureReason.PULL_FAILED
    assert runtime.pulls() == {}


async def test_an_image_name_that_is_none_is_not_found(runtime: DockerRuntime) -> None:
    with pytest.raises(LaunchFailed) as failed:
        await runtime.ensure_image("Upper/Case:1")
    assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
