"""The runtime dependencies of the Python client are the same in all files that list them."""

from __future__ import annotations

import re
import tomllib

import pytest

from tools.dev.paths import REPO
from tools.dev.peers import ENVIRONMENTS

PYPROJECT = tomllib.loads((REPO / "clients" / "python" / "pyproject.toml").read_text())
STUBS = sorted((REPO / "clients" / "python" / "sandpool" / "v1").glob("*_pb2.py"))


def oldest() -> dict[str, tuple[int, ...]]:
    """Return the lower bound of each dependency."""
    found = [re.match(r"([a-z-]+)>=([0-9.]+)", line) for line in PYPROJECT["project"]["dependencies"]]
    return {each[1]: version(each[2]) for each in found if each}


def version(text: str) -> tuple[int, ...]:
    """Return a release as three numbers."""
    numbers = tuple(map(int, text.split(".")))
    return numbers + (0,) * (3 - len(numbers))


def pins(lock: str) -> dict[str, tuple[int, ...]]:
    text = (REPO / "requirements" / f"{lock}.txt").read_text()
    return {
        name: version(number)
        for name, number in re.findall(r"^([a-z0-9-]+)==([0-9]+(?:\.[0-9]+)*)", text, re.MULTILINE)
    }


def test_every_dependency_has_a_lower_bound() -> None:
    assert len(oldest()) == len(PYPROJECT["project"]["dependencies"])


def test_the_oldest_environment_has_the_lower_bounds() -> None:
    found = pins("peers-oldest")
    assert {name: found[name] for name in oldest()} == oldest()


def test_the_newest_environment_has_the_newest_protobuf() -> None:
    assert pins("peers-newest")["protobuf"] > pins("peers")["protobuf"] > oldest()["protobuf"]
    assert pins("peers-newest")["protobuf"][0] == 7, "raise the upper bound in clients/python/pyproject.toml with it"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda each: each.lock)
def test_each_environment_has_its_sdks(environment) -> None:
    assert set(environment.sdks) <= set(pins(environment.lock))


def test_stubs_run_on_the_oldest_protobuf() -> None:
    assert STUBS
    for stub in STUBS:
        made_by = re.search(r"^# Protobuf Python Version: (\S+)$", stub.read_text(), re.MULTILINE)
        assert made_by is not None, stub
        assert version(made_by[1]) == oldest()["protobuf"], stub
