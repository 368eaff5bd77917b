"""The additional engines of the tests leave no resources, even if a test run is killed."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest

from tests.support.second_engine import STATE, second_engine, sweep

pytestmark = pytest.mark.engine

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = """
import os, docker
from tests.support.second_engine import second_engine
with second_engine("btrfs", docker.APIClient(base_url=os.environ["DOCKER_HOST"])) as engine:
    client = docker.APIClient(base_url=engine.host)
    container = client.create_container("busybox:latest", ["sleep", "1000"])
    client.start(container)
    print(engine.disk, flush=True)
    input()
"""


def traces(name: str) -> list[str]:
    """Return the resources of an engine outside its directory."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    loops = [loop for loop in Path("/sys/block").glob("loop*/loop/backing_file") if name in loop.read_text()]
    links = [link.name for link in Path("/sys/class/net").iterdir() if name in link.name]
    groups = [str(group) for group in Path("/sys/fs/cgroup").glob(f"**/*{name}")]
    return [*mounts, *map(str, loops), *links, *groups]


def remaining_traces(name: str) -> list[str]:
    """Return the traces that remain after 10 s: the kernel removes mounts and loop devices with a delay."""
    deadline = time.monotonic() + 10
    while (found := traces(name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_stopped_engine_leaves_no_resources(engine: docker.APIClient) -> None:
    with second_engine("btrfs", engine) as second:
        name = second.disk.parent.name
        client = docker.APIClient(base_url=second.host, timeout=30)
        client.start(client.create_container("busybox:latest", ["sleep", "1000"]))
        client.close()
        assert traces(name)
    assert remaining_traces(name) == []
    assert not second.disk.parent.exists()


def test_next_run_removes_resources_of_killed_run(docker_host: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("a separate engine needs root")
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=REPOSITORY,
        env=os.environ | {"DOCKER_HOST": docker_host},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    with run, run.stdin, run.stdout:
        directory = Path(run.stdout.readline().strip()).parent
        assert directory.parent == STATE
        assert directory.name not in sweep()
        (first,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        handle = os.pidfd_open(int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0]))
        try:
            run.send_signal(signal.SIGKILL)
            exited = select.poll()
            exited.register(handle, select.POLLIN)
            assert exited.poll(20_000), "the engine still runs after the test run was killed"
        finally:
            os.close(handle)
    assert directory.name in sweep()
    assert remaining_traces(directory.name) == []
    assert not directory.exists()
