"""Commands through the real agent in real containers."""

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from sandpool_server.domain.errors import FailedPrecondition, FailureReason, InvalidArgument, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, ExitReason
from sandpool_server.interfaces import ImageConfig, RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, GrpcAgents
from tests.engine.conftest import MakeSandbox, Sandbox
from tests.support.agents_contract import SLEEPER, AgentsContract
from tests.support.instances import make_instance
from tests.support.runtime_contract import next_event
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

PYTHON = "python:3.11-slim"
SECRET = "planted-2f9c1e"


async def wait_for_process(sandbox: Sandbox, process: str, *, running: bool) -> None:
    """Return when the process runs (or does not run) in the sandbox."""
    while (process in await sandbox.text("ps")) is not running:
        continue


async def test_returns_output_exit_code_and_signal(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    result = await sandbox.run(shell="echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)
    killed = await sandbox.run(shell="kill -TERM $$")
    assert (killed.reason, killed.signal, killed.exit_code) == (ExitReason.SIGNALED, 15, None)


async def test_commands_use_configuration_of_image(make_sandbox: MakeSandbox, runtime: DockerRuntime) -> None:
    sandbox = await make_sandbox("python:3.11-slim")
    config = await runtime.ensure_image("python:3.11-slim")
    assert await sandbox.text("pwd") == config.working_dir
    assert await sandbox.text("echo $PATH") == config.env["PATH"]


async def test_timeout_kills_all_descendants(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    began = time.monotonic()
    result = await sandbox.run(shell="setsid sleep 61 & sleep 62", timeout_secs=0.3)
    assert result.reason is ExitReason.TIMED_OUT
    assert time.monotonic() - began < 5
    assert "sleep" not in await sandbox.text("ps")


async def test_cancellation_kills_command(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    run = asyncio.create_task(sandbox.run("sleep", "63"))
    async with asyncio.timeout(10):
        await wait_for_process(sandbox, "sleep 63", running=True)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await wait_for_process(sandbox, "sleep 63", running=False)


async def test_rejects_invalid_commands_with_reasons(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    with pytest.raises(FailedPrecondition) as missing:
        await sandbox.run("no-such-program")
    assert missing.value.reason == "EXECUTABLE_NOT_FOUND"
    assert "no-such-program" in missing.value.message
    with pytest.raises(InvalidArgument) as user:
        await sandbox.run("true", user="no-such-user")
    assert [violation.field for violation in user.value.violations] == ["user"]
    with pytest.raises(InvalidArgument) as directory:
        await sandbox.agents.run(
            sandbox.instance.id, sandbox.address, Command(5.0, argv=("true",), working_dir="/no/such/directory")
        )
    assert [violation.field for violation in directory.value.violations] == ["working_dir"]


async def test_counts_dropped_output_above_one_mebibyte(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    result = await sandbox.run(shell="head -c 3000000 /dev/zero")
    assert len(result.stdout) == 1024 * 1024
    assert result.stdout_dropped_bytes == 3_000_000 - 1024 * 1024


async def test_entrypoint_runs_alongside_commands(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(entrypoint=("sleep", "4711"))
    assert "sleep 4711" in await sandbox.text("ps")
    with pytest.raises(LaunchFailed) as failed:
        await make_sandbox(entrypoint=("no-such-entrypoint",))
    assert failed.value.reason is FailureReason.START_FAILED
    assert "no-such-entrypoint" in failed.value.message


async def test_call_fails_when_sandbox_dies_during_command(make_sandbox: MakeSandbox, engine: docker.APIClient) -> None:
    sandbox = await make_sandbox()
    run = asyncio.create_task(sandbox.run("sleep", "64", timeout_secs=60))
    async with asyncio.timeout(10):
        await wait_for_process(sandbox, "sleep 64", running=True)
        await asyncio.to_thread(engine.remove_container, f"sandpool-{sandbox.instance.id}", force=True)
        with pytest.raises(Unavailable):
            await run
        with pytest.raises(Unavailable):
            await sandbox.run("true", timeout_secs=1)


# --- exit of the entrypoint -------------------------------------------------------------------------------------------


async def exit_code_of(engine: docker.APIClient, sandbox: Sandbox) -> int:
    """Wait until the container stops, and return its exit code as the engine reports it."""
    name = f"sandpool-{sandbox.instance.id}"
    await asyncio.to_thread(engine.wait, name, timeout=20)
    found = await asyncio.to_thread(engine.inspect_container, name)
    return int(found["State"]["ExitCode"])


@pytest.mark.parametrize(
    ("script", "code"), [("read x < /go; exit 7", 7), ("read x < /go; kill -TERM $$", 143), ("read x < /go", 0)]
)
async def test_container_exits_with_exit_code_of_entrypoint(
    make_sandbox: MakeSandbox, engine: docker.APIClient, runtime: DockerRuntime, script: str, code: int
) -> None:
    sandbox = await make_sandbox(entrypoint=("sh", "-c", f"mkfifo /go; {script}"))
    events = runtime.events()
    assert (await anext(events)).kind is RuntimeEventKind.RESYNC
    command = asyncio.create_task(sandbox.run("sleep", "65", timeout_secs=60))
    async with asyncio.timeout(10):
        await wait_for_process(sandbox, "sleep 65", running=True)
        go = asyncio.create_task(sandbox.run(shell="while [ ! -p /go ]; do :; done; echo >/go"))
        died = await next_event(events, RuntimeEventKind.DIED, sandbox.instance.id)
        with pytest.raises(Unavailable):
            await command
        await asyncio.gather(go, return_exceptions=True)
    assert died.exit_code == code
    assert await exit_code_of(engine, sandbox) == code


async def test_container_is_killed_when_entrypoint_is_out_of_memory(
    make_sandbox: MakeSandbox, engine: docker.APIClient, runtime: DockerRuntime
) -> None:
    hog = """
import os, time
while not os.path.exists("/go"):
    time.sleep(0.01)
bytearray(512 << 20)
"""
    sandbox = await make_sandbox(PYTHON, entrypoint=("python3", "-c", hog), memory_mb=64)
    events = runtime.events()
    assert (await anext(events)).kind is RuntimeEventKind.RESYNC
    await sandbox.text("touch /go")
    async with asyncio.timeout(20):
        await next_event(events, RuntimeEventKind.OOM, sandbox.instance.id)
        assert (await next_event(events, RuntimeEventKind.DIED, sandbox.instance.id)).exit_code == 137
    assert await exit_code_of(engine, sandbox) == 137


# --- file size limit --------------------------------------------------------------------------------------------------


async def test_rejects_file_above_disk_limit(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(ephemeral_disk_mb=1)
    killed = await sandbox.run(shell="exec head -c 2000000 /dev/zero >/file")
    assert (killed.reason, killed.signal) == (ExitReason.SIGNALED, signal.SIGXFSZ)
    assert await sandbox.text("stat -c %s /file") == str(1024 * 1024)
    assert await sandbox.text("head -c 1048576 /dev/zero >/file && echo fits") == "fits"
    unprivileged = await sandbox.run(shell="ulimit -f unlimited", user="65534:65534")
    assert unprivileged.exit_code != 0
    # Root in the container cannot raise the limit either.
    assert (await sandbox.run(shell="ulimit -f unlimited")).exit_code != 0


async def test_python_gets_efbig_for_file_above_disk_limit(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(PYTHON, ephemeral_disk_mb=1)
    script = """
import errno
try:
    with open("/file", "wb", 0) as file:
        while True:
            file.write(bytes(65536))
except OSError as error:
    print(errno.errorcode[error.errno], file.tell() if not file.closed else __import__("os").path.getsize("/file"))
"""
    result = await sandbox.run("python3", "-c", script)
    assert result.stdout.split() == [b"EFBIG", b"1048576"], result


async def test_file_size_limit_applies_to_entrypoint(make_sandbox: MakeSandbox, engine: docker.APIClient) -> None:
    script = "mkfifo /go; read x < /go; exec head -c 2000000 /dev/zero >/file"
    sandbox = await make_sandbox(entrypoint=("sh", "-c", script), ephemeral_disk_mb=1)
    go = asyncio.create_task(sandbox.run(shell="while [ ! -p /go ]; do :; done; echo >/go"))
    assert await exit_code_of(engine, sandbox) == 128 + signal.SIGXFSZ
    await asyncio.gather(go, return_exceptions=True)


# --- activation -------------------------------------------------------------------------------------------------------


async def test_running_commands_do_not_get_environment_of_activation(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(env=(("KEY", "pool"),))
    early = asyncio.create_task(sandbox.run(shell="mkfifo /go; read x < /go; echo $KEY"))
    await sandbox.text("while [ ! -p /go ]; do :; done")
    await sandbox.agents.activate(sandbox.instance.id, sandbox.address, {"KEY": "own"})
    assert await sandbox.text("echo $KEY; echo >/go") == "own"
    assert (await early).stdout == b"pool\n"


async def test_secrets_are_only_in_processes_of_the_sandbox(
    make_sandbox: MakeSandbox, engine: docker.APIClient
) -> None:
    entrypoint = ("sh", "-c", 'echo "$$ ${#KEY}" >/up; echo up; exec sleep 66')
    sandbox = await make_sandbox(entrypoint=entrypoint, secret_names=("KEY",))
    assert "sleep 66" not in await sandbox.text("ps")
    await sandbox.agents.activate(sandbox.instance.id, sandbox.address, {"KEY": SECRET}, entrypoint)
    pid, length = (await sandbox.text("while [ ! -s /up ]; do :; done; cat /up")).split()
    assert int(length) == len(SECRET)
    assert await sandbox.text("echo $KEY") == SECRET
    # No process can read the memory and environment of the agent. Other users cannot read the sandbox's processes.
    closed = [("0", f"/proc/1/{file}") for file in ("environ", "mem", "maps")]
    closed += [("65534:65534", f"/proc/{one}/environ") for one in (1, pid)]
    for user, file in closed:
        denied = await sandbox.run("head", "-c", "1", file, user=user)
        assert denied.exit_code != 0, (user, file)
        assert b"denied" in denied.stderr or b"not permitted" in denied.stderr, denied
    # No file contains the secret. The planted file shows that the search can find it.
    search = f"find / -xdev -type f -exec grep -l {SECRET} {{}} +; true"
    assert await sandbox.text(f"echo {SECRET} >/planted; {search}") == "/planted"
    await sandbox.text("rm /planted")
    assert await sandbox.text(search) == ""
    name = f"sandpool-{sandbox.instance.id}"
    assert SECRET not in json.dumps(await asyncio.to_thread(engine.inspect_container, name))
    logs = await asyncio.to_thread(engine.logs, name)
    assert b"up\n" in logs
    assert SECRET.encode() not in logs


# --- contract of the agents -------------------------------------------------------------------------------------------


def states_of(pid: int) -> set[str]:
    """Return the states of the threads of a process, as Linux names them."""
    return {file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")}


@dataclass
class RealHarness:
    """A container on the engine with the real agent."""

    agents: GrpcAgents
    instance_id: str
    address: str
    image: ImageConfig
    engine: docker.APIClient

    async def text(self, shell: str) -> str:
        result = await self.agents.run(self.instance_id, self.address, Command(10.0, shell=shell))
        return result.stdout.decode()

    async def env(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (await self.text("env")).splitlines())

    async def entrypoint_runs(self) -> bool:
        return " ".join(SLEEPER) in await self.text("ps")

    async def make_unresponsive(self) -> None:
        pid = await self._pid()
        os.kill(pid, signal.SIGSTOP)
        # The threads stop one after another. Until the last one stops, the agent may respond.
        await asyncio.to_thread(eventually, lambda: states_of(pid) == {"T"})

    async def revive(self) -> None:
        os.kill(await self._pid(), signal.SIGCONT)

    async def end(self) -> None:
        await asyncio.to_thread(self.engine.kill, f"sandpool-{self.instance_id}")

    async def _pid(self) -> int:
        """Return the process id of the agent on this machine."""
        found = await asyncio.to_thread(self.engine.inspect_container, f"sandpool-{self.instance_id}")
        pid = int(found["State"]["Pid"])
        command = await asyncio.to_thread(Path(f"/proc/{pid}/cmdline").read_bytes)
        assert command.startswith(b"/.sandpool/agent"), (
            f"process {pid} is {command!r}: the engine may run on another machine"
        )
        return pid


class TestRealAgents(AgentsContract):
    """The gRPC client and the real agent satisfy the contract."""

    @pytest.fixture
    async def harness(self, runtime: DockerRuntime, agents: GrpcAgents, engine: docker.APIClient) -> RealHarness:
        instance = make_instance("busybox:latest")
        image = await runtime.ensure_image(instance.spec.image)
        address = await runtime.launch(instance, agents.token_sha256(instance.id))
        return RealHarness(agents, instance.id, address, image, engine)


async def test_paused_or_removed_instances_are_unavailable_at_deadline(
    make_sandbox: MakeSandbox, engine: docker.APIClient
) -> None:
    sandbox = await make_sandbox()
    name = f"sandpool-{sandbox.instance.id}"

    async def unavailable() -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await sandbox.agents.activate(sandbox.instance.id, sandbox.address, {"A": "1"})
        assert time.monotonic() - began < 2.5

    await asyncio.to_thread(engine.pause, name)
    for _ in range(2):  # On the open channel, and on a channel that cannot be opened.
        await unavailable()
    await asyncio.to_thread(engine.unpause, name)
    async with asyncio.timeout(1):
        await sandbox.agents.activate(sandbox.instance.id, sandbox.address, {"A": "1"})
    await asyncio.to_thread(engine.remove_container, name, force=True)
    for _ in range(2):
        await unavailable()
