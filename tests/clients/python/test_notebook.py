"""The clients in a Jupyter kernel, whose cells run in an event loop."""

import nbclient
import nbformat
import pytest

from sandpool import Pool
from tests.clients.python.processes import OUT, Processes, Script


def in_a_kernel(*cells: str) -> nbclient.NotebookClient:
    """Run cells, one after the other, in a new kernel. An error in a cell is raised here."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    run.execute()
    return run


def test_shows_a_progress_widget(pool: Pool, address: str, monkeypatch: pytest.MonkeyPatch):
    """Inside the event loop of the kernel."""
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


def test_both_clients_work_across_cells(address: str, processes: Processes, monkeypatch: pytest.MonkeyPatch):
    """The blocking client without patches of the loop (`nest_asyncio`), and both at the same time."""
    monkeypatch.setenv("SANDPOOL_ADDRESS", address)
    processes.scripts["make"] = Script([(OUT, b"made\n")])
    made, attached, together = in_a_kernel(
        """
import asyncio
from sandpool import AsyncSandboxClient, SandboxClient
asyncio.get_running_loop()
client, other = SandboxClient(), AsyncSandboxClient()
sandbox = client.create(pool_id=client.create_pool(image="i").pool_id)
sandbox.run("make").stdout
""",
        """
again = await other.get_sandbox(sandbox.sandbox_id)
(await again.run("make")).stdout
""",
        """
async def count():
    return len([pool async for pool in other.list_pools()])
await asyncio.gather(count(), asyncio.to_thread(lambda: len(list(client.list_pools()))))
""",
    ).nb.cells
    shown = [cell.outputs[0]["data"]["text/plain"] for cell in (made, attached, together)]
    assert shown == [r"'made\n'", r"'made\n'", "[1, 1]"]
