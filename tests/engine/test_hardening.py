"""Confinement of processes in a sandbox, checked from inside the sandbox."""

import asyncio
import hashlib
import hmac

import pytest

from sandpool_server.domain.model import ExitReason
from tests.engine.conftest import TOKEN_KEY, MakeSandbox, Sandbox

pytestmark = pytest.mark.engine

CAPABILITIES = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "net_bind_service",
    "sys_chroot",
)
CAPABILITY_BITS = {
    "chown": 0,
    "dac_override": 1,
    "fowner": 3,
    "fsetid": 4,
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "net_bind_service": 10,
    "sys_chroot": 18,
}
"""Bit numbers of capabilities in the kernel (linux/capability.h)."""


def status_field(status: str, name: str) -> str:
    """Return the value of a field of /proc/<pid>/status."""
    return next(line.split(":", 1)[1].strip() for line in status.splitlines() if line.startswith(f"{name}:"))


@pytest.fixture
async def sandbox(make_sandbox: MakeSandbox) -> Sandbox:
    return await make_sandbox(memory_mb=64)


async def test_processes_have_limited_capabilities_and_seccomp(sandbox: Sandbox) -> None:
    expected = sum(1 << CAPABILITY_BITS[name] for name in CAPABILITIES)
    for pid in ("self", "1"):
        status = await sandbox.text(f"cat /proc/{pid}/status")
        for kind in ("CapEff", "CapPrm", "CapBnd"):
            assert int(status_field(status, kind), 16) == expected, (pid, kind)
        assert status_field(status, "NoNewPrivs") == "1"
        assert status_field(status, "Seccomp") == "2"


async def test_limits_match_specification(sandbox: Sandbox) -> None:
    memory = await sandbox.text(
        "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    )
    assert int(memory) == 64 << 20
    pids = await sandbox.text("cat /sys/fs/cgroup/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids/pids.max")
    assert int(pids) == 1024


async def test_kills_process_above_memory_limit(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox("python:3.11-slim", memory_mb=64)
    result = await sandbox.run("python3", "-c", "x = bytearray(256 * 1024 * 1024)")
    assert result.reason is ExitReason.OOM_KILLED
    assert (await sandbox.run("true")).exit_code == 0


async def test_mounts_no_files_of_the_host(sandbox: Sandbox) -> None:
    assert (await sandbox.run(shell="ls /var/run/docker.sock /run/docker.sock")).exit_code != 0
    mounts = await sandbox.text("cat /proc/self/mounts")
    (agent,) = (line.split() for line in mounts.splitlines() if line.split()[1] == "/.sandpool")
    assert "ro" in agent[3].split(",")
    assert (await sandbox.run(shell="touch /.sandpool/x")).exit_code != 0
    assert (await sandbox.run(shell="mount -o remount,rw /.sandpool")).exit_code != 0
    # Docker itself mounts files for name resolution and the host name. No other file of the host is mounted.
    allowed = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/.sandpool"}
    on_disk = {line.split()[1] for line in mounts.splitlines() if line.startswith("/dev/")}
    assert on_disk <= allowed | {"/"}


async def test_denies_access_to_devices_and_kernel(sandbox: Sandbox) -> None:
    for attempt in (
        "mknod /tmp/disk b 8 0",
        "mount -t tmpfs none /mnt",
        "echo 1 > /proc/sys/kernel/panic",
        "ip link add x",
    ):
        assert (await sandbox.run(shell=attempt)).exit_code != 0, attempt


async def test_token_of_agent_is_not_readable_in_sandbox(sandbox: Sandbox) -> None:
    """Root in the sandbox finds neither the token nor its digest, even in the environment of the agent."""
    assert "TOKEN" not in await sandbox.text("env")
    token = hmac.new(TOKEN_KEY, sandbox.instance.id.encode(), hashlib.sha256).hexdigest()
    found = await sandbox.run(shell="cat /proc/1/environ /proc/1/cmdline /proc/self/environ /etc/hosts; env; set")
    output = (found.stdout + found.stderr).decode()
    assert "/.sandpool/agent" in output
    assert token not in output
    assert sandbox.agents.token_sha256(sandbox.instance.id) not in output


async def test_runs_command_as_unprivileged_user(sandbox: Sandbox) -> None:
    status = await sandbox.text("cat /proc/self/status", user="65534:65534")
    assert int(status_field(status, "CapEff"), 16) == 0
    assert status_field(status, "Uid").split()[0] == "65534"


async def test_common_operations_work_in_ordinary_images(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox("python:3.11-slim")
    assert await sandbox.text("touch /tmp/f && chown 1000:1000 /tmp/f && stat -c %u:%g /tmp/f") == "1000:1000"
    code = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 80)); print('bound')"
    assert (await sandbox.run("python3", "-c", code)).stdout == b"bound\n"


async def first_line(host: str, port: int) -> bytes:
    """Return the first line from a service in the sandbox, when the service listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
            continue
        try:
            return await reader.readline()
        finally:
            writer.close()


async def test_sandboxes_cannot_reach_each_other(make_sandbox: MakeSandbox) -> None:
    """A sandbox reaches neither the agent nor a service of another sandbox. The server reaches both."""
    serve = "while true; do echo hello | nc -l -p 7000; done"
    first = await make_sandbox(entrypoint=("sh", "-c", serve))
    second = await make_sandbox()
    host, _, agent_port = first.address.rpartition(":")
    async with asyncio.timeout(10):
        assert await first_line(host, 7000) == b"hello\n"

    for port in ("7000", agent_port):
        attempt = await second.run(shell=f"echo | nc -w 2 {host} {port}")
        assert attempt.exit_code != 0, port
        assert attempt.stdout == b""
    assert (await second.run(shell=f"ping -c 1 -W 2 {host}")).exit_code != 0


async def test_agent_accepts_only_token_of_its_instance(make_sandbox: MakeSandbox) -> None:
    first, second = await make_sandbox(), await make_sandbox()
    impostor = Sandbox(second.instance, first.address, first.agents)
    with pytest.raises(Exception, match="invalid response"):
        await impostor.run("true")
