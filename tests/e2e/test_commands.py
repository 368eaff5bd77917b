"""The commands of the README as a person at a terminal uses them: to the end, cut short, killed, and side by side."""

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
from tests.support.pool_members import members_of
from tests.support.waiting import wait_until_warm

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
START_SECS = 120.0
END_SECS = 120.0


class Terminal:
    """A `make` command as the foreground process group of a terminal has it."""

    def __init__(self, command: str, **env: str) -> None:
        self._process = subprocess.Popen(
            # As at a terminal, also where the tests run in the background and a shell has Ctrl-C ignored there.
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
        """The pattern's group in the first line from here on that it matches."""
        while True:
            self.lines.append(self._new.get(timeout=START_SECS))
            if found := re.search(pattern, self.lines[-1]):
                return found[1]

    def press_ctrl_c(self) -> None:
        """SIGINT for everybody in the foreground."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for everybody in the foreground."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(END_SECS)

    def close(self) -> None:
        """End it for good if it still runs; returns when nobody holds its output open any more."""
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


def a_pool(address: str) -> str:
    with SandboxClient(address) as client:
        pool_id: str = client.create_pool(image="busybox:latest", warm_containers=1).pool_id
        wait_until_warm(client, pool_id, 1)
    return pool_id


def test_ctrl_c_ends_what_make_serve_started(engine: EngineView) -> None:
    with terminal("serve", SANDPOOL_SERVER_ADDRESS="127.0.0.1:0") as serve:
        # In this order, and the second is a DOCKER_HOST.
        address = serve.find(r"listening on (127\.0\.0\.1:\d+)$")
        assert serve.find(r"engine at (.+)$") == os.environ["DOCKER_HOST"]
        pool_id = a_pool(address)
        (member,) = members_of(engine, pool_id)
        server_id = engine.server_id_of(member)
        assert labelled(engine, f"={server_id}")
        serve.press_ctrl_c()
        serve.wait()
    assert not labelled(engine, f"={server_id}")


def test_after_a_kill_the_next_make_serve_just_works(engine: EngineView) -> None:
    """The server itself is in a session of its own and outlives the kill: the next run ends it, and what it made."""
    with terminal("serve", SANDPOOL_SERVER_ADDRESS="127.0.0.1:0") as killed:
        address = killed.find(r"listening on (127\.0\.0\.1:\d+)$")
        pool_id = a_pool(address)
        killed.kill()
        killed.wait()
        assert members_of(engine, pool_id)
        with terminal("serve", SANDPOOL_SERVER_ADDRESS=address) as serve:
            assert serve.find(r"listening on (127\.0\.0\.1:\d+)$") == address
            assert not members_of(engine, pool_id)
            serve.press_ctrl_c()
            serve.wait()


def test_two_demos_side_by_side(engine: EngineView) -> None:
    before = labelled(engine)
    with terminal("demo") as first, terminal("demo") as second:
        assert (first.wait(), second.wait()) == (0, 0), (first.lines, second.lines)
    assert labelled(engine) <= before


def labelled(engine: EngineView, server: str = "") -> set[str]:
    """The containers and networks of all sandpool servers on the engine, or with `=<id>` of one."""
    which = {"label": f"sandpool.server{server}"}
    found = [*engine.api.containers(all=True, filters=which), *engine.api.networks(filters=which)]
    return {each["Id"] for each in found}
