"""Servers of runs: their objects are removed at the end, and those of killed runs by the next run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.dev import processes
from tools.dev.console import Console, StepFailed
from tools.dev.engine import Engine
from tools.dev.locks import FileLock
from tools.dev.paths import Paths
from tools.dev.servers import Servers
from tools.dev.suite import Check, Suite

ENGINE = Engine("unix:///nowhere", private=False, registry="127.0.0.1:1")
# A fake server: `serve` creates a file in the data directory, and `purge` records the engine and the file's content.
PROGRAM = """#!{python}
import os, signal, sys
from pathlib import Path
data = Path(sys.argv[sys.argv.index("--data-dir") + 1])
if sys.argv[1] == "purge":
    Path(os.environ["PURGED"]).write_text(os.environ["DOCKER_HOST"] + " " + (data / "made").read_text())
    sys.exit(0)
if os.environ.get("BROKEN"):
    print("no luck", file=sys.stderr)
    sys.exit(3)
(data / "made").write_text("things")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("listening on 127.0.0.1:4711", flush=True)
signal.pause()
"""


@pytest.fixture
def purged(paths: Paths) -> Path:
    """The file in which the fake server records a purge."""
    program = paths.venv / "bin" / "sandpool-server"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return paths.cache / "purged"


def servers(paths: Paths, console: Console, purged: Path, **extra: str) -> Servers:
    return Servers(paths, console, {**os.environ, "PURGED": str(purged), **extra})


def mentions(paths: Paths) -> list[int]:
    return processes.find(lambda argv: any(str(paths.cache / "runs") in part for part in argv))


def test_runs_a_server_during_the_block_and_purges_it(paths: Paths, console: Console, purged: Path) -> None:
    with servers(paths, console, purged).running(ENGINE, "127.0.0.1:0") as server:
        assert server.address == "127.0.0.1:4711"
        assert len(mentions(paths)) == 1
    assert purged.read_text() == "unix:///nowhere things"
    assert mentions(paths) == []
    assert list((paths.cache / "runs").iterdir()) == []


def test_reports_the_log_of_a_server_that_does_not_start(paths: Paths, console: Console, purged: Path) -> None:
    broken = servers(paths, console, purged, BROKEN="1")
    with pytest.raises(StepFailed) as failure, broken.running(ENGINE, "127.0.0.1:0"):
        pytest.fail("the server must not start")
    assert "no luck" in failure.value.report()
    assert list((paths.cache / "runs").iterdir()) == []


def test_stops_and_purges_the_server_of_a_killed_run(paths: Paths, console: Console, purged: Path) -> None:
    data = paths.cache / "runs" / "killed" / "data"
    data.mkdir(parents=True)
    (data.parent / "host").write_text("unix:///elsewhere")
    argv = [str(paths.venv / "bin" / "sandpool-server"), "serve", "--data-dir", str(data)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdout.readline().startswith("listening")
        servers(paths, console, purged).recover()
        assert orphan.wait(10) is not None
    assert purged.read_text() == "unix:///elsewhere things"
    assert not data.parent.exists()


def test_does_not_change_an_active_run(paths: Paths, console: Console, purged: Path) -> None:
    data = paths.cache / "runs" / "busy" / "data"
    data.mkdir(parents=True)
    (data / "made").touch()
    holder = FileLock(data.parent / "lock")
    holder.acquire()
    servers(paths, console, purged).recover()
    holder.release()
    assert (data / "made").exists()
    assert not purged.exists()


def test_runs_all_checks_and_lists_the_failed_ones(
    paths: Paths, console: Console, capfd: pytest.CaptureFixture[str]
) -> None:
    suite = Suite(paths, console, os.environ)
    checks = [Check("first", lambda: 2), Check("second", lambda: 0), Check("third", lambda: 1)]
    assert suite.run(checks) == 1
    assert "failed: first, third" in capfd.readouterr().out
    assert suite.run(checks[1:2]) == 0


def test_reports_the_log_and_the_hint_of_a_failed_step(paths: Paths, console: Console) -> None:
    with pytest.raises(StepFailed) as failure:
        console.run("talk", ["sh", "-c", "echo some reason; exit 3"], hint="turn it off and on")
    report = failure.value.report()
    assert "code 3" in report
    assert "some reason" in report
    assert "turn it off and on" in report
