"""The bars of what takes long: in a real terminal, in a real Jupyter kernel, and without what draws them."""

import io
import os
import sys

import nbclient
import nbformat
import pytest

from sandpool import Pool, SandboxClient
from sandpool._core.steps import Step
from sandpool._io.progress import bar
from sandpool.v1 import pool_pb2
from tests.clients.python.state import State
from tests.support.terminal import on_a_terminal

STEPS = [
    pool_pb2.PoolStatus(
        state=pool_pb2.POOL_STATE_FILLING,
        wanted=2,
        image_pull=pool_pb2.ImagePull(image="i", current_bytes=25 << 20, total_bytes=100 << 20),
    ),
    pool_pb2.PoolStatus(
        state=pool_pb2.POOL_STATE_FILLING,
        wanted=2,
        warm=1,
        last_error=pool_pb2.PoolError(reason=pool_pb2.POOL_ERROR_REASON_START_FAILED),
    ),
    pool_pb2.PoolStatus(state=pool_pb2.POOL_STATE_READY, wanted=2, warm=2),
]


@pytest.fixture
def pool(client: SandboxClient, state: State) -> Pool:
    made = client.create_pool("p", image="i", warm_containers=2)
    state.pool_steps.extend(STEPS)
    return made


def environment(address: str) -> dict[str, str]:
    return {**os.environ, "SANDPOOL_ADDRESS": address, "PYTHONWARNINGS": "error"}


def test_the_command_shows_a_bar_in_a_terminal(pool: Pool, address: str):
    code, shown = on_a_terminal([sys.executable, "-m", "sandpool", "wait", "p"], environment(address))
    assert code == 0, shown
    *lines, last = shown.replace("\r\n", "\n").rstrip("\n").split("\n")
    assert last == f"{pool.pool_id}: 2 ready"
    states = [part for line in lines for part in line.split("\r") if part.strip()]
    assert any(part.startswith("p: pulling i:  25%|") and "25.0M/100M" in part for part in states), states
    assert any(part.startswith("p: start_failed:  50%|") and "| 1/2 [" in part for part in states), states
    assert states[-1].startswith("p: 100%|")
    assert all(len(part) <= 100 for part in states)


def test_what_goes_wrong_is_one_line(address: str):
    code, shown = on_a_terminal([sys.executable, "-m", "sandpool", "upload", "none", "f", "/f"], environment(address))
    assert (code, shown.count("\n")) == (1, 1), shown
    assert shown.startswith("sandpool: ")
    assert "none" in shown


def test_no_bar_without_a_terminal(
    pool: Pool, address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from sandpool.__main__ import main

    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    assert main(["wait", "p", "--warm", "1"]) == 0
    out, err = capfd.readouterr()
    assert (out, err) == (f"{pool.pool_id}: 1 ready\n", "")


def test_a_notebook_shows_a_widget(pool: Pool, address: str, monkeypatch: pytest.MonkeyPatch):
    """Inside of the event loop that a kernel runs."""
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    code = """
import asyncio
from sandpool import SandboxClient
asyncio.get_running_loop()
with SandboxClient() as client:
    pool = client.wait_for_pool("p", progress=True)
pool.status.warm
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    run = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    run.execute()
    shown, value = notebook.cells[0].outputs
    widget = shown["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    states = run.widget_state
    parts = [states[child.removeprefix("IPY_MODEL_")] for child in states[widget]["children"]]
    assert [part["_model_name"] for part in parts] == ["HTMLModel", "FloatProgressModel", "HTMLModel"]
    assert (parts[0]["value"], parts[1]["value"], parts[1]["max"], parts[1]["bar_style"]) == (
        "p:\u2007100%",
        2,
        2,
        "success",
    )
    assert value["data"]["text/plain"] == "2"


def test_without_tqdm_the_error_says_what_to_install(
    pool: Pool, client: SandboxClient, state: State, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sandpool\[progress\]'"):
        client.wait_for_pool("p", progress=True)
    assert state.sent("WatchPools") == [], "nothing was asked for"
    assert client.wait_for_pool("p").status.warm == 2, "and nothing else needs it"


def test_a_text_stays_one_line(monkeypatch: pytest.MonkeyPatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with bar(True) as show:
        show("a\nb\x1b[2J", Step(0, None))
        show("a\nb\x1b[2J", Step(3, 4))
        show("a\nb\x1b[2J", Step(1, 4))
    assert "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("\n") == 1, "that of its end"
    assert "a b" in out.getvalue()
    assert "1.00/4.00" in out.getvalue(), "it goes back where a transfer is taken up"
    with bar(False) as show:
        show("nothing", Step(1, 2))
    assert "nothing" not in out.getvalue()
