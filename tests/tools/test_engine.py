"""Which engine is used, and how images get onto it."""

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


def test_an_engine_on_the_default_socket_is_used(stand_in: StandIn, paths: Paths, console: Console) -> None:
    socket_path = Path(stand_in.host.removeprefix("unix://"))
    assert Engines(paths, console, {}, socket_path).existing() == stand_in.host


def test_a_named_engine_is_used(stand_in: StandIn, paths: Paths, console: Console) -> None:
    engines = Engines(paths, console, {"DOCKER_HOST": stand_in.host}, paths.runtime / "none.sock")
    assert engines.existing() == stand_in.host
    stand_in.images |= {image.name for image in images.WANTED}
    with engines.use() as engine:
        assert (engine.host, engine.private, engine.registry) == (stand_in.host, False, None)
    assert stand_in.calls == []


def test_a_named_engine_that_does_not_answer_is_an_error(paths: Paths, console: Console) -> None:
    engines = Engines(paths, console, {"DOCKER_HOST": f"unix://{paths.runtime}/none.sock"})
    with pytest.raises(StepFailed, match="no engine answers") as failure:
        engines.existing()
    assert "unset DOCKER_HOST" in failure.value.report()


def test_our_own_engine_by_name_is_leased_like_by_default(paths: Paths, console: Console) -> None:
    own = f"unix://{paths.runtime}/docker.sock"
    assert Engines(paths, console, {"DOCKER_HOST": own}).existing() is None


def test_a_stale_default_socket_is_no_engine(paths: Paths, console: Console) -> None:
    stale = paths.runtime / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))
    assert Engines(paths, console, {}, stale).existing() is None
    assert Engines(paths, console, {}, paths.runtime / "none.sock").existing() is None


def test_a_default_socket_that_is_mute_is_an_error(
    paths: Paths, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_api, "PING_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(paths.runtime / "mute.sock"))
        mute.listen()
        with pytest.raises(StepFailed, match="does not answer"):
            Engines(paths, console, {}, paths.runtime / "mute.sock").existing()


def test_an_address_that_the_set_up_cannot_speak_to_says_so() -> None:
    with pytest.raises(StepFailed, match="ssh://somewhere"):
        EngineClient("ssh://somewhere").ping()


def test_an_error_inside_a_stream_is_an_error(stand_in: StandIn) -> None:
    with pytest.raises(EngineError, match="manifest unknown"):
        EngineClient(stand_in.host).pull("nothing:1", stall_seconds=5)


def test_a_pull_that_stands_still_is_given_up(stand_in: StandIn) -> None:
    stand_in.stalling = True
    with pytest.raises(EngineError, match="timed out"):
        EngineClient(stand_in.host).pull("nothing:1", stall_seconds=0.2)


@pytest.fixture
def one_image(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Want one small image; the list has where it was built."""
    built: list[Path] = []

    def build(tar: Path, console: Console) -> None:
        built.append(tar)
        with tarfile.open(tar, "w") as archive:
            archive.addfile(tarfile.TarInfo("hello"), io.BytesIO())

    image = images.Image("small:1", "true", "coreutils", build, ("CMD x",), "recipe 1", public=True)
    monkeypatch.setattr(images, "WANTED", (image,))
    return built


def ensure(host: str, paths: Paths, console: Console, *, offline: bool = False) -> None:
    packages = Packages(paths, console)
    images.Images(paths, console, packages, offline=offline).ensure(EngineClient(host), None)


def test_an_image_that_can_be_pulled_is_pulled(
    stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]
) -> None:
    stand_in.pullable.add("small:1")
    ensure(stand_in.host, paths, console)
    assert stand_in.calls == ["/images/create?fromImage=small&tag=1"]
    assert one_image == []


def test_an_image_that_cannot_be_pulled_is_built_once_and_imported(
    stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]
) -> None:
    for _ in range(2):
        ensure(stand_in.host, paths, console)
    assert stand_in.calls[1] == "/images/create?fromSrc=-&repo=small&tag=1&changes=CMD%20x"
    assert len(one_image) == 1


def test_offline_asks_no_registry(stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]) -> None:
    ensure(stand_in.host, paths, console, offline=True)
    assert [call for call in stand_in.calls if "fromImage" in call] == []
    assert len(one_image) == 1


def test_an_image_that_is_there_is_left_alone(
    stand_in: StandIn, paths: Paths, console: Console, one_image: list[Path]
) -> None:
    stand_in.images.add("small:1")
    ensure(stand_in.host, paths, console)
    assert stand_in.calls == []
    assert one_image == []
