"""The commands of the README in a terminal: completed, interrupted, killed, and two at the same time."""

import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support.engine_view import EngineView
from tests.support.pool_instances import instances_of
from tests.support.waiting import wait_until_warm

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
START_SECS = 120.0
END_SECS = 120.0


class Terminal:
    """A `make` command in a process group, as in the foreground of a terminal."""

    def __init__(self, command: str, **env: str) -> None:
        self._process = subprocess.Popen(
            # Restore the default: a shell ignores SIGINT in commands that it runs in the background, such as the tests.
            ["env", "--default-signal=INT", "make", command],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._new: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._new.put(line.rstrip())

    def find(self, pattern: str) -> str:
        """Return the first group of the pattern in the next line that matches it."""
        while True:
            self.lines.append(self._new.get(timeout=START_SECS))
            if found := re.search(pattern, self.lines[-1]):
                return found[1]

    def press_ctrl_c(self) -> None:
        """Send SIGINT to the process group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Send SIGKILL to the process group."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the command and return its exit code."""
        return self._process.wait(END_SECS)

    def close(self) -> None:
        """Interrupt the command if it still runs, and wait until its output is closed."""
        if self._process.poll() is None:
            self.press_ctrl_c()
            self.wait()
        self._reader.join(END_SECS)


@contextmanager
def terminal(command: str, **env: str) -> Iterator[Terminal]:
    opened = Terminal(command, **env)
    try:
        yield opened
    finally:
        opened.close()


def create_pool(address: str) -> str:
    with SandboxClient(address) as client:
        pool_id: str = client.create_pool(image="busybox:latest", warm_containers=1).pool_id
        wait_until_warm(client, pool_id, 1)
    return pool_id


def test_ctrl_c_removes_the_containers_of_make_serve(engine: EngineView) -> None:
    with terminal("serve", SANDPOOL_SERVER_ADDRESS="127.0.0.1:0") as serve:
        # The address is printed before the engine, which is a DOCKER_HOST.
        address = serve.find(r"listening on (127\.0\.0\.1:\d+)$")
        assert serve.find(r"engine at (.+)$") == os.environ["DOCKER_HOST"]
        pool_id = create_pool(address)
        (instance,) = instances_of(engine, pool_id)
        server_id = engine.server_id_of(instance)
        assert labelled(engine, f"={server_id}")
        serve.press_ctrl_c()
        serve.wait()
    assert not labelled(engine, f"={server_id}")


def test_make_serve_cleans_up_after_a_killed_run(engine: EngineView) -> None:
    """The server has a separate session and survives the kill; the next run stops it and removes its containers."""
    with terminal("serve", SANDPOOL_SERVER_ADDRESS="127.0.0.1:0") as killed:
        address = killed.find(r"listening on (127\.0\.0\.1:\d+)$")
        pool_id = create_pool(address)
        killed.kill()
        killed.wait()
        assert instances_of(engine, pool_id)
        with terminal("serve", SANDPOOL_SERVER_ADDRESS=address) as serve:
            assert serve.find(r"listening on (127\.0\.0\.1:\d+)$") == address
            assert not instances_of(engine, pool_id)
            serve.press_ctrl_c()
            serve.wait()


def test_two_demos_run_at_the_same_time(engine: EngineView) -> None:
    before = labelled(engine)
    with terminal("demo") as first, terminal("demo") as second:
        assert (first.wait(), second.wait()) == (0, 0), (first.lines, second.lines)
    assert labelled(engine) <= before


def labelled(engine: EngineView, server: str = "") -> set[str]:
    """Return the containers and networks of all sandpool servers on the engine, or with `=<id>` of one server."""
    filters = {"label": f"sandpool.server{server}"}
    found = [*engine.api.containers(all=True, filters=filters), *engine.api.networks(filters=filters)]
    return {each["Id"] for each in found}
