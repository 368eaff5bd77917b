"""Progress bars of long operations: in a real terminal, and without tqdm."""

import io
import os
import sys

import pytest

from sandpool import Pool, SandboxClient
from sandpool._core.progress import Step
from sandpool._transport.progress_bar import bar
from tests.clients.python.state import State
from tests.support.terminal import on_a_terminal


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "SANDPOOL_ADDRESS": address, "PYTHONWARNINGS": "error"}


def test_the_command_line_shows_a_bar_in_a_terminal(pool: Pool, address: str):
    code, shown = on_a_terminal([sys.executable, "-m", "sandpool", "wait", "p"], environment(address))
    assert code == 0, shown
    *lines, last = shown.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert last == f"{pool.pool_id}: 2 warm"
    states = [part for line in lines for part in line.split("\r") if part.strip()]
    assert any(part.startswith("p: pulling i:  25%|") and "25.0M/100M" in part for part in states), states
    assert any(part.startswith("p: start_failed:  50%|") and "| 1/2 [" in part for part in states), states
    assert states[-1].startswith("p: 100%|")
    assert all(len(part) <= 100 for part in states)


def test_an_error_is_printed_as_one_line(address: str):
    code, shown = on_a_terminal([sys.executable, "-m", "sandpool", "upload", "none", "f", "/f"], environment(address))
    assert (code, shown.count("\n")) == (1, 1), shown
    assert shown.startswith("sandpool: ")
    assert "none" in shown


def test_shows_no_bar_without_a_terminal(
    pool: Pool, address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from sandpool.__main__ import main

    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    assert main(["wait", "p", "--warm", "1"]) == 0
    out, err = capfd.readouterr()
    assert (out, err) == (f"{pool.pool_id}: 1 warm\n", "")


def test_names_the_package_to_install_without_tqdm(
    pool: Pool, client: SandboxClient, state: State, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sandpool\[progress\]'"):
        client.wait_for_pool("p", progress=True)
    assert state.sent("WatchPools") == [], "no call was made"
    assert client.wait_for_pool("p").status.warm == 2, "other calls do not need tqdm"


def test_a_label_stays_on_one_line(monkeypatch: pytest.MonkeyPatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with bar(True) as show:
        show("a\nb\x1b[2J", Step(0, None))
        show("a\nb\x1b[2J", Step(3, 4))
        show("a\nb\x1b[2J", Step(1, 4))
    assert "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("\n") == 1, "the line break at the end"
    assert "a b" in out.getvalue()
    assert "1.00/4.00" in out.getvalue(), "the bar moves back when a transfer is resumed"
    with bar(False) as show:
        show("nothing", Step(1, 2))
    assert "nothing" not in out.getvalue()
