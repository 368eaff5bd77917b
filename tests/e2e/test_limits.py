"""Each limit of a sandbox, seen from inside a real container, and how each end of a sandbox is told."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandpool import (
    CommandEndReason,
    DiskEnforcement,
    ResourceStateError,
    Sandbox,
    SandboxClient,
    SandboxEndReason,
    SandboxInfo,
    SandboxNotFoundError,
    SandboxState,
    ValidationError,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_for_sandbox, wait_until_warm

pytestmark = pytest.mark.engine

BUSYBOX = "busybox:latest"
PYTHON = "python:3.11-slim"
PIDS_LIMIT = 64
FOR_EVER = 100_000
"""A lifetime in seconds that no test sees the end of."""

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

AFTER_A_SIGN = "while [ ! -e /tmp/sign ]; do sleep 0.05; done; "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The module's server, with a limit of processes that is reached quickly."""
    with ServerProcess(tmp_path_factory.mktemp("limits") / "data", pids_limit=str(PIDS_LIMIT)) as process:
        yield process


def ended(client: SandboxClient, sandbox: Sandbox) -> SandboxInfo:
    """The sandbox once its container is gone."""
    return wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)


def since(moment: datetime | None, start: datetime) -> float:
    """Seconds from `start` to `moment`."""
    assert moment is not None
    return (moment - start).total_seconds()


# --- cpu, memory, processes -------------------------------------------------------------------------------------------


def test_cpus_bound_the_time_that_a_busy_loop_gets(client: SandboxClient) -> None:
    with client.create(image=PYTHON, cpus=0.5) as sandbox:
        share = float(sandbox.run(["python3", "-c", BUSY_LOOP]).stdout)
        assert 0.05 < share < 0.6, "half a CPU, less where the machine is busy"
        # Version 1 of cgroups has two files, version 2 one with both numbers.
        files = (
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us || cat /sys/fs/cgroup/cpu.max"
        )
        quota, period = sandbox.run(files).stdout.split()
        assert int(quota) / int(period) == 0.5


def test_a_command_that_takes_too_much_memory_ends_alone(client: SandboxClient) -> None:
    """Of row 10 of what users ask for, agent-sandbox #275: out of memory is told apart, child or first process."""
    with client.create(image=PYTHON, memory_mb=64) as sandbox:
        files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
        assert int(sandbox.run(files).stdout) == 64 * 1024 * 1024
        result = sandbox.run(["python3", "-c", TAKE_MEMORY])
        assert (result.reason, result.exit_code, result.signal) == (CommandEndReason.OOM_KILLED, None, 9)
        assert sandbox.run("echo alive").stdout == "alive\n"
        assert sandbox.refresh().state is SandboxState.RUNNING


def test_an_entrypoint_that_takes_too_much_memory_ends_its_sandbox(client: SandboxClient) -> None:
    entrypoint = ["sh", "-c", f"{AFTER_A_SIGN}exec python3 -c '{TAKE_MEMORY}'"]
    sandbox = client.create(image=PYTHON, memory_mb=64, entrypoint=entrypoint)
    sandbox.run("touch /tmp/sign")
    seen = ended(client, sandbox)
    assert (seen.end_reason, seen.exit_code) == (SandboxEndReason.OOM_KILLED, 137)


def test_a_command_out_of_memory_does_not_explain_a_later_exit(client: SandboxClient) -> None:
    sandbox = client.create(image=PYTHON, memory_mb=64, entrypoint=["sh", "-c", f"{AFTER_A_SIGN}exit 7"])
    assert sandbox.run(["python3", "-c", TAKE_MEMORY]).reason is CommandEndReason.OOM_KILLED
    sandbox.run("touch /tmp/sign")
    seen = ended(client, sandbox)
    assert (seen.end_reason, seen.exit_code) == (SandboxEndReason.EXITED, 7)


def test_processes_are_limited_and_the_sandbox_survives_it(client: SandboxClient) -> None:
    with client.create(image=PYTHON) as sandbox:
        files = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"
        assert int(sandbox.run(files).stdout) == PIDS_LIMIT
        forked = int(sandbox.run(["python3", "-c", FORK_UNTIL_REFUSED]).stdout)
        assert PIDS_LIMIT // 2 < forked < PIDS_LIMIT
        assert sandbox.run("echo alive").stdout == "alive\n"


# --- disk -------------------------------------------------------------------------------------------------------------


def write_file(sandbox: Sandbox, path: str, megabytes: int) -> int:
    """Write so much into a file, as far as it goes; returns the file's size in MiB."""
    sandbox.run(f"dd if=/dev/zero of={path} bs=1M count={megabytes}")
    return int(sandbox.run(["stat", "-c", "%s", path]).stdout) // (1024 * 1024)


def test_disk_that_is_watched(client: SandboxClient) -> None:
    pool = client.create_pool(image=BUSYBOX, ephemeral_disk_mb=32, warm_containers=2)
    filled = wait_until_warm(client, pool.pool_id, 2)
    if filled.status.disk_enforcement is DiskEnforcement.ENGINE:
        pytest.skip("this engine's storage enforces the limit by itself")
    assert filled.status.disk_enforcement is DiskEnforcement.WATCHED

    modest, greedy = (client.create(pool_id=pool.pool_id) for _ in range(2))
    assert modest.run("ulimit -f").stdout.split() == [str(32 * 1024 * 1024 // 512)]
    assert write_file(modest, "/within", 16) == 16
    assert write_file(greedy, "/first", 40) == 32, "a single file cannot pass the limit"
    greedy.run("dd if=/dev/zero of=/second bs=1M count=16")
    passed = datetime.now(UTC)

    seen = ended(client, greedy)
    assert seen.end_reason is SandboxEndReason.DISK_EXCEEDED
    assert "32" in seen.end_message
    assert since(seen.end_time, passed) <= 10
    assert modest.refresh().state is SandboxState.RUNNING
    client.delete_pool(pool.pool_id, force=True)


# --- lifetime ---------------------------------------------------------------------------------------------------------


def test_a_lifetime_that_passes_ends_the_sandbox(client: SandboxClient) -> None:
    sandbox = client.create(image=BUSYBOX, timeout_secs=1)
    assert sandbox.expire_time is not None
    seen = ended(client, sandbox)
    assert (seen.end_reason, seen.exit_code) == (SandboxEndReason.TIMED_OUT, None)
    assert 0 <= since(seen.end_time, sandbox.expire_time) < 2


def extended(sandbox: Sandbox, before_secs: float) -> bool:
    """Try to extend the sandbox's life so long before its end; returns whether the server says that it did."""
    assert sandbox.expire_time is not None
    moment = (sandbox.expire_time - datetime.now(UTC)).total_seconds() - before_secs
    threading.Event().wait(max(0.0, moment))  # the moment is what is tested
    try:
        return sandbox.update(timeout_secs=FOR_EVER).state is SandboxState.RUNNING
    except (ResourceStateError, ValidationError):
        return False


def test_an_extension_never_races_the_end(client: SandboxClient) -> None:
    """Row 7 of what users ask for, OpenSandbox #1200: who is told that a sandbox lives on has a sandbox that lives."""
    count = 16
    pool = client.create_pool(image=BUSYBOX, warm_containers=count, max_containers=count)
    wait_until_warm(client, pool.pool_id, count)
    sandboxes = client.create_batch(count, pool_id=pool.pool_id, timeout_secs=1)
    # From well before the deadline to just after it, most of them within a few milliseconds of it.
    moments = [0.3, 0.1, *(0.03 - 0.0035 * number for number in range(count - 2))]
    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(extended, sandboxes, moments))
    assert answers[0], "an extension in good time is accepted"
    told = list(zip(sandboxes, answers, strict=True))
    for sandbox in [sandbox for sandbox, lives in told if not lives]:
        assert ended(client, sandbox).end_reason is SandboxEndReason.TIMED_OUT
    # By now every old deadline has passed and been acted upon.
    for sandbox in [sandbox for sandbox, lives in told if lives]:
        assert sandbox.run("echo alive").stdout == "alive\n"
        assert sandbox.refresh().timeout_secs == FOR_EVER
    client.delete_pool(pool.pool_id, force=True)


def test_a_restart_reads_the_newest_deadline(own_server: ServerProcess) -> None:
    """Row 7 of what users ask for, OpenSandbox #1200."""
    with SandboxClient(own_server.address) as client:
        extended_one = client.create(image=BUSYBOX, timeout_secs=3)
        shortened = client.create(image=BUSYBOX, timeout_secs=FOR_EVER)
        extended_one.update(timeout_secs=FOR_EVER)
        # Its deadline lies after the first one's old deadline, and after the restart.
        shortened.update(timeout_secs=4)
        own_server.kill()
        own_server.start()
        assert ended(client, shortened).end_reason is SandboxEndReason.TIMED_OUT
        assert extended_one.refresh().state is SandboxState.RUNNING
        assert extended_one.run("echo alive").stdout == "alive\n"


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "code"), [("exit 7", 7), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_an_entrypoint_that_ends_ends_its_sandbox(client: SandboxClient, ending: str, code: int) -> None:
    sandbox = client.create(image=BUSYBOX, entrypoint=["sh", "-c", AFTER_A_SIGN + ending])
    before = datetime.now(UTC)
    sandbox.run("touch /tmp/sign")
    seen = ended(client, sandbox)
    assert (seen.end_reason, seen.exit_code) == (SandboxEndReason.EXITED, code)
    assert 0 <= since(seen.end_time, before) < 5
    with pytest.raises(ResourceStateError, match="exited"):
        sandbox.run("echo alive")


def test_ended_sandboxes_are_visible_for_the_configured_time(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data", ended_retention="3") as server,
        SandboxClient(server.address) as client,
    ):
        sandbox, living = (client.create(image=BUSYBOX) for _ in range(2))
        before = datetime.now(UTC)
        sandbox.delete()
        gone = ended(client, sandbox)
        (listed,) = client.list_sandboxes(states=[SandboxState.TERMINATED])
        assert (listed.sandbox_id, listed.end_reason) == (sandbox.sandbox_id, SandboxEndReason.DELETED)
        assert 0 <= since(listed.end_time, before) < 5
        assert client.list_sandboxes(states=[SandboxState.RUNNING])[0].sandbox_id == living.sandbox_id

        until = datetime.now(UTC) + timedelta(seconds=20)
        while client.list_sandboxes(states=[SandboxState.TERMINATED]):
            assert datetime.now(UTC) < until, "it is still visible"
            threading.Event().wait(0.1)  # nobody is told of what nobody sees any more
        assert since(datetime.now(UTC), gone.end_time or before) >= 3
        with pytest.raises(SandboxNotFoundError):
            client.get_sandbox(sandbox.sandbox_id)
        assert living.refresh().state is SandboxState.RUNNING
