"""Selection of the engine, and its images."""

from __future__ import annotations

import io
import socket
import tarfile
from pathlib import Path

import pytest

from tests.tools.conftest import StandIn
from tools.dev import engine_api, images
from tools.dev.console import Console, StepFailed
from tools.dev.debian import Packages
from tools.dev.engine import Engines
from tools.dev.engine_api import EngineClient, EngineError
from tools.dev.paths import Paths


def test_uses_the_engine_on_the_default_socket(stand_in: StandIn, paths: Paths, console: Console) -> None:
    socket_path = Path(stand_in.host.removeprefix("unix://"))
    assert Engines(paths, console, {}, socket_path).existing() == stand_in.host


def test_uses_the_engine_of_docker_host(stand_in: StandIn, paths: Paths, console: Console) -> None:
    engines = Engines(paths, console, {"DOCKER_HOST": stand_in.host}, paths.runtime / "none.sock")
    assert engines.existing() == stand_in.host
    stand_in.images |= {image.name for image in images.REQUIRED_IMAGES}
    with engines.use() as engine:
        assert (engine.host, engine.private, engine.registry) == (stand_in.host, False, None)
    assert stand_in.calls == []


def test_fails_if_the_engine_of_docker_host_does_not_respond(paths: Paths, console: Console) -> None:
    engines = Engines(paths, console, {"DOCKER_HOST": f"unix://{paths.runtime}/none.sock"})
    with pytest.raises(StepFailed, match="does not respond") as failure:
        engines.existing()
    assert "unset DOCKER_HOST" in failure.value.report()


def test_uses_a_lease_for_the_private_engine_of_docker_host(paths: Paths, console: Console) -> None:
    own = f"unix://{paths.runtime}/docker.sock"
    assert Engines(paths, console, {"DOCKER_HOST": own}).existing() is None


def test_ignores_a_stale_default_socket(paths: Paths, console: Console) -> None:
    stale = paths.runtime / "stale.sock"
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind(str(stale))
    assert Engines(paths, console, {}, stale).existing() is None
    assert Engines(paths, console, {}, paths.runtime / "none.sock").existing() is None


def test_fails_if_the_default_socket_does_not_respond(
    paths: Paths, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_api, "PING_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(paths.runtime / "mute.sock"))
        mute.listen()
        with pytest.raises(StepFailed, match="does not respond"):
            Engines(paths, console, {}, paths.runtime / "mute.sock").existing()


def test_rejects_an_engine_address_that_is_not_supported() -> None:
    with pytest.raises(StepFailed, match="ssh://somewhere"):
        EngineClient("ssh://somewhere").ping()


def test_raises_an_error_that_a_stream_contains(stand_in: StandIn) -> None:
    with pytest.raises(EngineError, match="manifest unknown"):
        EngineClient(stand_in.host).pull("nothing:1", stall_seconds=5)


def test_fails_a_pull_without_progress(stand_in: StandIn) -> None:
    stand_in.stalling = True
    with pytest.raises(EngineError, match="timed out"):
        EngineClient(stand_in.host).pull("nothing:1", stall_seconds=0.2)


@pytest.fixture
def one_image(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Require one small image. The list contains the paths of its builds."""
    built: list[Path] = []

    def build(tar: Path, console: Console) -> None:
        built.append(tar)
        with tarfile.open(tar, "w") as archive:
            archive.addfile(tarfile.TarInfo("hello"), io.BytesIO())

    image = images.Image("small:1", "true", "coreutils", build, ("CMD x",), "recipe 1", public=True)
    monkeypatch.setattr(images, "REQUIRED_IMAGES", (image,))
    return built


def ensure(host: str, paths: Paths, console: Console, *, offline: bool = False) -> None:
    packages = Packages(paths, console)
    images.Images(paths, console, packages, offline=offline).ensure(EngineClient(host), None)


def test_pulls_an_image_if_possible(stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]) -> None:
    stand_in.pullable.add("small:1")
    ensure(stand_in.host, paths, console)
    assert stand_in.calls == ["/images/create?fromImage=small&tag=1"]
    assert one_image == []


def test_builds_an_image_once_if_the_pull_fails(
    stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]
) -> None:
    for _ in range(2):
        ensure(stand_in.host, paths, console)
    assert stand_in.calls[1] == "/images/create?fromSrc=-&repo=small&tag=1&changes=CMD%20x"
    assert len(one_image) == 1


def test_pulls_no_image_when_offline(stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]) -> None:
    ensure(stand_in.host, paths, console, offline=True)
    assert [call for call in stand_in.calls if "fromImage" in call] == []
    assert len(one_image) == 1


def test_does_not_change_an_existing_image(
    stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]
) -> None:
    stand_in.images.add("small:1")
    ensure(stand_in.host, paths, console)
    assert stand_in.calls == []
    assert one_image == []
