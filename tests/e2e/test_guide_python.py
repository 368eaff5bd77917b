"""The code of docs/guides/python.md on a real server, block by block in one namespace."""

import re
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "python.md"


@pytest.mark.engine
def test_every_block_of_the_guide_runs(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SANDPOOL_ADDRESS", server.address)
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 11
    namespace: dict[str, object] = {"__name__": "guide"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"<block {number} of the guide>", "exec"), namespace)
    printed = capsys.readouterr().out
    for part in ("hello\n", "out\n err\n 3 False False", "hello world", "cpus", "POOL_IN_USE pool", "b'a,b\\n1,2\\n'"):
        assert part in printed
