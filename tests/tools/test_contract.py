"""The image of the contract refuses breaking changes and accepts additions."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tools.dev.console import Console
from tools.dev.contract import IMAGE, ContractImage
from tools.dev.paths import REPO, Paths

SECRETS = "proto/sandpool/v1/secret.proto"
AGENT = "proto/sandpool/agent/v1/agent_service.proto"


@pytest.fixture
def image(paths: Paths, console: Console) -> ContractImage:
    """The image in a copy of the contract that was just frozen."""
    for name in ("proto", "third_party/proto"):
        shutil.copytree(REPO / name, paths.repo / name, ignore=shutil.ignore_patterns("*.binpb"))
    shutil.copy(REPO / "buf.yaml", paths.repo)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    made = ContractImage(paths, console, env)
    assert made.check() == 1, "there is no image yet"
    assert made.freeze() == 0
    assert made.check() == 0
    return made


def edit(paths: Paths, name: str, before: str, after: str) -> None:
    path = paths.repo / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_accepts_additions_and_freezes_them(image: ContractImage, paths: Paths) -> None:
    addition = "message Secret {\n  // An addition.\n  string addition = 1000;\n"
    edit(paths, SECRETS, "message Secret {\n", addition)
    assert image.check() == 0
    former = (paths.repo / IMAGE).read_bytes()
    assert image.freeze() == 0
    assert (paths.repo / IMAGE).read_bytes() != former
    edit(paths, SECRETS, addition, "message Secret {\n")
    assert image.check() != 0, "the addition is part of the contract now"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [(SECRETS, "string name = 1", "string other = 1"), (AGENT, "rpc GetInfo(", "rpc GetOther(")],
    ids=["public", "private"],
)
def test_refuses_breaking_changes(image: ContractImage, paths: Paths, name: str, before: str, after: str) -> None:
    former = (paths.repo / IMAGE).read_bytes()
    edit(paths, name, before, after)
    assert image.check() != 0
    assert image.freeze() != 0
    assert (paths.repo / IMAGE).read_bytes() == former
    assert image.freeze(allow_breaking=True) == 0
    assert image.check() == 0


def test_never_freezes_a_contract_that_does_not_compile(image: ContractImage, paths: Paths) -> None:
    former = (paths.repo / IMAGE).read_bytes()
    edit(paths, SECRETS, "message Secret {", "message {")
    assert image.freeze(allow_breaking=True) != 0
    assert (paths.repo / IMAGE).read_bytes() == former


def test_the_image_has_both_contracts() -> None:
    data = (REPO / IMAGE).read_bytes()
    assert b"sandpool.v1" in data
    assert b"sandpool.agent.v1" in data
