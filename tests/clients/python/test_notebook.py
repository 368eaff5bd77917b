"""The clients in a real Jupyter kernel, whose cells run in an event loop."""

import nbclient
import nbformat
import pytest

from sandpool import Pool
from tests.clients.python.processes import OUT, Processes, Script


def in_a_kernel(*cells: str) -> nbclient.NotebookClient:
    """Run cells, one after the other, in a kernel of their own; an error in one is raised here."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    run.execute()
    return run


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
    run = in_a_kernel(code)
    shown, value = run.nb.cells[0].outputs
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


def test_both_clients_go_on_from_cell_to_cell(address: str, processes: Processes, monkeypatch: pytest.MonkeyPatch):
    """The blocking one without patches to the loop (`nest_asyncio`), and both at the same time."""
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    processes.scripts["make"] = Script([(OUT, b"made\n")])
    made, taken_up, together = in_a_kernel(
        """
import asyncio
from sandpool import AsyncSandboxClient, SandboxClient
asyncio.get_running_loop()
client, other = SandboxClient(), AsyncSandboxClient()
sandbox = client.create(pool_id=client.create_pool(image="i").pool_id)
sandbox.run("make").stdout
""",
        """
again = await other.get(sandbox.sandbox_id)
(await again.run("make")).stdout
""",
        """
[len(pools) for pools in await asyncio.gather(other.list_pools(), asyncio.to_thread(client.list_pools))]
""",
    ).nb.cells
    shown = [cell.outputs[0]["data"]["text/plain"] for cell in (made, taken_up, together)]
    assert shown == [r"'made\n'", r"'made\n'", "[1, 1]"]
