"""The limits of a sandbox, measured in a container, and the termination reasons."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandpool import (
    DiskEnforcement,
    ExitReason,
    ResourceStateError,
    Sandbox,
    SandboxClient,
    SandboxInfo,
    SandboxNotFoundError,
    SandboxState,
    TerminationReason,
    ValidationError,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_for_sandbox, wait_until_warm

pytestmark = pytest.mark.engine

BUSYBOX = "busybox:latest"
PYTHON = "python:3.11-slim"
PIDS_LIMIT = 64
FOR_EVER = 100_000
"""A lifetime in seconds that is longer than any test."""

BUSY_LOOP = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() - began < 2:
    pass
print((time.process_time() - used) / (time.monotonic() - began))
"""

FORK_UNTIL_REFUSED = """
import os, signal, time
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    print(len(children))
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""

TAKE_MEMORY = "bytearray(256 * 1024 * 1024)"

WAIT_FOR_SIGNAL_FILE = "while [ ! -e /tmp/signal ]; do sleep 0.05; done; "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run the module's server with a low limit of processes."""
    with ServerProcess(tmp_path_factory.mktemp("limits") / "data", pids_limit=str(PIDS_LIMIT)) as process:
        yield process


def terminated(client: SandboxClient, sandbox: Sandbox) -> SandboxInfo:
    """Return the sandbox when it is terminated."""
    return wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)


def since(moment: datetime | None, start: datetime) -> float:
    """Return the seconds from `start` to `moment`."""
    assert moment is not None
    return (moment - start).total_seconds()


# --- cpu, memory, processes -------------------------------------------------------------------------------------------


def test_limits_the_cpu_time_of_a_busy_loop(client: SandboxClient) -> None:
    with client.create(image=PYTHON, cpus=0.5) as sandbox:
        share = float(sandbox.run(["python3", "-c", BUSY_LOOP]).stdout)
        assert 0.05 < share < 0.6, "half a CPU, less on a busy machine"
        # cgroups version 1 has two files, version 2 has one file with both numbers.
        files = (
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us || cat /sys/fs/cgroup/cpu.max"
        )
        quota, period = sandbox.run(files).stdout.split()
        assert int(quota) / int(period) == 0.5


def test_out_of_memory_kills_only_the_command(client: SandboxClient) -> None:
    """Row 10 of tests/user-demands.md, agent-sandbox #275: the exit reason is out of memory."""
    with client.create(image=PYTHON, memory_mb=64) as sandbox:
        files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
        assert int(sandbox.run(files).stdout) == 64 * 1024 * 1024
        result = sandbox.run(["python3", "-c", TAKE_MEMORY])
        assert (result.reason, result.exit_code, result.signal) == (ExitReason.OOM_KILLED, None, 9)
        assert sandbox.run("echo alive").stdout == "alive\n"
        assert sandbox.refresh().state is SandboxState.RUNNING


def test_out_of_memory_of_the_entrypoint_terminates_the_sandbox(client: SandboxClient) -> None:
    entrypoint = ["sh", "-c", f"{WAIT_FOR_SIGNAL_FILE}exec python3 -c '{TAKE_MEMORY}'"]
    sandbox = client.create(image=PYTHON, memory_mb=64, entrypoint=entrypoint)
    sandbox.run("touch /tmp/signal")
    seen = terminated(client, sandbox)
    assert (seen.termination_reason, seen.exit_code) == (TerminationReason.OOM_KILLED, 137)


def test_out_of_memory_of_a_command_is_not_the_reason_of_a_later_exit(client: SandboxClient) -> None:
    sandbox = client.create(image=PYTHON, memory_mb=64, entrypoint=["sh", "-c", f"{WAIT_FOR_SIGNAL_FILE}exit 7"])
    assert sandbox.run(["python3", "-c", TAKE_MEMORY]).reason is ExitReason.OOM_KILLED
    sandbox.run("touch /tmp/signal")
    seen = terminated(client, sandbox)
    assert (seen.termination_reason, seen.exit_code) == (TerminationReason.EXITED, 7)


def test_limits_processes_without_terminating_the_sandbox(client: SandboxClient) -> None:
    with client.create(image=PYTHON) as sandbox:
        files = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"
        assert int(sandbox.run(files).stdout) == PIDS_LIMIT
        forked = int(sandbox.run(["python3", "-c", FORK_UNTIL_REFUSED]).stdout)
        assert PIDS_LIMIT // 2 < forked < PIDS_LIMIT
        assert sandbox.run("echo alive").stdout == "alive\n"


# --- disk -------------------------------------------------------------------------------------------------------------


def write_file(sandbox: Sandbox, path: str, megabytes: int) -> int:
    """Write up to `megabytes` MiB into a file. Return the size of the file in MiB."""
    sandbox.run(f"dd if=/dev/zero of={path} bs=1M count={megabytes}")
    return int(sandbox.run(["stat", "-c", "%s", path]).stdout) // (1024 * 1024)


def test_terminates_a_sandbox_that_exceeds_its_disk_limit(client: SandboxClient) -> None:
    pool = client.create_pool(image=BUSYBOX, ephemeral_disk_mb=32, warm_containers=2)
    filled = wait_until_warm(client, pool.pool_id, 2)
    if filled.status.disk_enforcement is DiskEnforcement.ENGINE:
        pytest.skip("the storage of this engine enforces the limit")
    assert filled.status.disk_enforcement is DiskEnforcement.BEST_EFFORT

    modest, greedy = (client.create(pool_id=pool.pool_id) for _ in range(2))
    assert modest.run("ulimit -f").stdout.split() == [str(32 * 1024 * 1024 // 512)]
    assert write_file(modest, "/within", 16) == 16
    assert write_file(greedy, "/first", 40) == 32, "a single file cannot exceed the limit"
    greedy.run("dd if=/dev/zero of=/second bs=1M count=16")
    exceeded = datetime.now(UTC)

    seen = terminated(client, greedy)
    assert seen.termination_reason is TerminationReason.DISK_EXCEEDED
    assert "32" in seen.termination_message
    assert since(seen.end_time, exceeded) <= 10
    assert modest.refresh().state is SandboxState.RUNNING
    client.delete_pool(pool.pool_id, force=True)


# --- lifetime ---------------------------------------------------------------------------------------------------------


def test_terminates_a_sandbox_at_the_end_of_its_lifetime(client: SandboxClient) -> None:
    sandbox = client.create(image=BUSYBOX, timeout_secs=1)
    assert sandbox.info.expire_time is not None
    seen = terminated(client, sandbox)
    assert (seen.termination_reason, seen.exit_code) == (TerminationReason.TIMED_OUT, None)
    assert 0 <= since(seen.end_time, sandbox.info.expire_time) < 2


def extended(sandbox: Sandbox, before_secs: float) -> bool:
    """Extend the lifetime `before_secs` before its end. Return whether the server accepted the extension."""
    assert sandbox.info.expire_time is not None
    moment = (sandbox.info.expire_time - datetime.now(UTC)).total_seconds() - before_secs
    threading.Event().wait(max(0.0, moment))  # the test depends on this moment
    try:
        return sandbox.update(timeout_secs=FOR_EVER).state is SandboxState.RUNNING
    except (ResourceStateError, ValidationError):
        return False


def test_extension_never_races_with_the_expiry(client: SandboxClient) -> None:
    """Row 7 of tests/user-demands.md, OpenSandbox #1200: a successful extension takes effect."""
    count = 16
    pool = client.create_pool(image=BUSYBOX, warm_containers=count, max_containers=count)
    wait_until_warm(client, pool.pool_id, count)
    sandboxes = client.create_batch(count, pool_id=pool.pool_id, timeout_secs=1)
    # From long before the deadline to just after it, most of them a few milliseconds from it.
    moments = [0.3, 0.1, *(0.03 - 0.0035 * number for number in range(count - 2))]
    with ThreadPoolExecutor(count) as threads:
        accepted = list(threads.map(extended, sandboxes, moments))
    assert accepted[0], "an early extension is accepted"
    results = list(zip(sandboxes, accepted, strict=True))
    for sandbox in [sandbox for sandbox, extended in results if not extended]:
        assert terminated(client, sandbox).termination_reason is TerminationReason.TIMED_OUT
    # Every old deadline has passed, and the server has handled it.
    for sandbox in [sandbox for sandbox, extended in results if extended]:
        assert sandbox.run("echo alive").stdout == "alive\n"
        assert sandbox.refresh().timeout_secs == FOR_EVER
    client.delete_pool(pool.pool_id, force=True)


def test_restart_reads_the_newest_deadline(own_server: ServerProcess) -> None:
    """Row 7 of tests/user-demands.md, OpenSandbox #1200."""
    with SandboxClient(own_server.address) as client:
        extended_one = client.create(image=BUSYBOX, timeout_secs=3)
        shortened = client.create(image=BUSYBOX, timeout_secs=FOR_EVER)
        extended_one.update(timeout_secs=FOR_EVER)
        # This deadline is after the old deadline of the first sandbox, and after the restart.
        shortened.update(timeout_secs=4)
        own_server.kill()
        own_server.start()
        assert terminated(client, shortened).termination_reason is TerminationReason.TIMED_OUT
        assert extended_one.refresh().state is SandboxState.RUNNING
        assert extended_one.run("echo alive").stdout == "alive\n"


# --- exits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exit_command", "code"), [("exit 7", 7), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_exit_of_the_entrypoint_terminates_the_sandbox(client: SandboxClient, exit_command: str, code: int) -> None:
    sandbox = client.create(image=BUSYBOX, entrypoint=["sh", "-c", WAIT_FOR_SIGNAL_FILE + exit_command])
    before = datetime.now(UTC)
    sandbox.run("touch /tmp/signal")
    seen = terminated(client, sandbox)
    assert (seen.termination_reason, seen.exit_code) == (TerminationReason.EXITED, code)
    assert 0 <= since(seen.end_time, before) < 5
    with pytest.raises(ResourceStateError, match="exited"):
        sandbox.run("echo alive")


def test_terminated_sandboxes_are_visible_for_the_configured_time(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", terminated_retention="3") as server,
        SandboxClient(server.address) as client,
    ):
        sandbox, running = (client.create(image=BUSYBOX) for _ in range(2))
        before = datetime.now(UTC)
        sandbox.delete()
        deleted = terminated(client, sandbox)
        (listed,) = client.list_sandboxes(states=[SandboxState.TERMINATED])
        assert (listed.sandbox_id, listed.info.termination_reason) == (sandbox.sandbox_id, TerminationReason.DELETED)
        assert 0 <= since(listed.info.end_time, before) < 5
        assert next(client.list_sandboxes(states=[SandboxState.RUNNING])).sandbox_id == running.sandbox_id

        until = datetime.now(UTC) + timedelta(seconds=20)
        while list(client.list_sandboxes(states=[SandboxState.TERMINATED])):
            assert datetime.now(UTC) < until, "the terminated sandbox is still visible"
            threading.Event().wait(0.1)  # no event reports that a terminated sandbox is no longer visible
        assert since(datetime.now(UTC), deleted.end_time or before) >= 3
        with pytest.raises(SandboxNotFoundError):
            client.get_sandbox(sandbox.sandbox_id)
        assert running.refresh().state is SandboxState.RUNNING
