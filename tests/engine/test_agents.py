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
from sandpool_server.domain.model import Command, CommandEndReason
from sandpool_server.ports import ImageConfig, RuntimeEventKind
from sandpool_server.runtime import DockerRuntime, GrpcAgents
from tests.engine.conftest import MakeSandbox, Sandbox
from tests.support.agents_contract import SLEEPER, AgentsContract
from tests.support.members import make_member
from tests.support.runtime_contract import next_event
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

PYTHON = "python:3.11-slim"
SECRET = "planted-2f9c1e"


async def seen(sandbox: Sandbox, process: str, *, there: bool) -> None:
    """Return when the process is there (or is not) among those of the sandbox."""
    while (process in await sandbox.text("ps")) is not there:
        continue


async def test_output_exit_code_and_signal(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    result = await sandbox.run(shell="echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)
    killed = await sandbox.run(shell="kill -TERM $$")
    assert (killed.reason, killed.signal, killed.exit_code) == (CommandEndReason.SIGNALED, 15, None)


async def test_the_image_says_how_commands_run(make_sandbox: MakeSandbox, runtime: DockerRuntime) -> None:
    sandbox = await make_sandbox("python:3.11-slim")
    config = await runtime.ensure_image("python:3.11-slim")
    assert await sandbox.text("pwd") == config.working_dir
    assert await sandbox.text("echo $PATH") == config.env["PATH"]


async def test_a_time_out_ends_the_whole_tree(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    began = time.monotonic()
    result = await sandbox.run(shell="setsid sleep 61 & sleep 62", timeout_secs=0.3)
    assert result.reason is CommandEndReason.TIMED_OUT
    assert time.monotonic() - began < 5
    assert "sleep" not in await sandbox.text("ps")


async def test_cancelling_kills_the_command(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    run = asyncio.create_task(sandbox.run("sleep", "63"))
    async with asyncio.timeout(10):
        await seen(sandbox, "sleep 63", there=True)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await seen(sandbox, "sleep 63", there=False)


async def test_refusals_say_what_is_wrong(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    with pytest.raises(FailedPrecondition) as missing:
        await sandbox.run("no-such-program")
    assert missing.value.reason == "EXECUTABLE_NOT_FOUND"
    assert "no-such-program" in missing.value.message
    with pytest.raises(InvalidArgument) as user:
        await sandbox.run("true", user="nobody-knows-me")
    assert [violation.field for violation in user.value.violations] == ["user"]
    with pytest.raises(InvalidArgument) as place:
        await sandbox.agents.run(
            sandbox.member.id, sandbox.address, Command(5.0, argv=("true",), working_dir="/no/such/place")
        )
    assert [violation.field for violation in place.value.violations] == ["working_dir"]


async def test_output_beyond_a_mebibyte_is_counted(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox()
    result = await sandbox.run(shell="head -c 3000000 /dev/zero")
    assert len(result.stdout) == 1024 * 1024
    assert result.stdout_dropped_bytes == 3_000_000 - 1024 * 1024


async def test_an_entrypoint_runs_beside_the_commands(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(entrypoint=("sleep", "4711"))
    assert "sleep 4711" in await sandbox.text("ps")
    with pytest.raises(LaunchFailed) as failed:
        await make_sandbox(entrypoint=("no-such-entrypoint",))
    assert failed.value.reason is FailureReason.START_FAILED
    assert "no-such-entrypoint" in failed.value.message


async def test_a_sandbox_that_dies_under_a_command_ends_the_call(
    make_sandbox: MakeSandbox, engine: docker.APIClient
) -> None:
    sandbox = await make_sandbox()
    run = asyncio.create_task(sandbox.run("sleep", "64", timeout_secs=60))
    async with asyncio.timeout(10):
        await seen(sandbox, "sleep 64", there=True)
        await asyncio.to_thread(engine.remove_container, f"sandpool-{sandbox.member.id}", force=True)
        with pytest.raises(Unavailable):
            await run
        with pytest.raises(Unavailable):
            await sandbox.run("true", timeout_secs=1)


# --- the end of an entrypoint -----------------------------------------------------------------------------------------


async def exit_code_of(engine: docker.APIClient, sandbox: Sandbox) -> int:
    """Wait for the container's end and read, as anybody on the engine may, how it ended."""
    name = f"sandpool-{sandbox.member.id}"
    await asyncio.to_thread(engine.wait, name, timeout=20)
    found = await asyncio.to_thread(engine.inspect_container, name)
    return int(found["State"]["ExitCode"])


@pytest.mark.parametrize(
    ("script", "code"), [("read x < /go; exit 7", 7), ("read x < /go; kill -TERM $$", 143), ("read x < /go", 0)]
)
async def test_a_container_ends_as_its_entrypoint(
    make_sandbox: MakeSandbox, engine: docker.APIClient, runtime: DockerRuntime, script: str, code: int
) -> None:
    sandbox = await make_sandbox(entrypoint=("sh", "-c", f"mkfifo /go; {script}"))
    events = runtime.events()
    assert (await anext(events)).kind is RuntimeEventKind.RESYNC
    command = asyncio.create_task(sandbox.run("sleep", "65", timeout_secs=60))
    async with asyncio.timeout(10):
        await seen(sandbox, "sleep 65", there=True)
        go = asyncio.create_task(sandbox.run(shell="while [ ! -p /go ]; do :; done; echo >/go"))
        died = await next_event(events, RuntimeEventKind.DIED, sandbox.member.id)
        with pytest.raises(Unavailable):
            await command
        await asyncio.gather(go, return_exceptions=True)
    assert died.exit_code == code
    assert await exit_code_of(engine, sandbox) == code


async def test_an_entrypoint_out_of_memory_ends_its_container_as_killed(
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
        await next_event(events, RuntimeEventKind.OOM, sandbox.member.id)
        assert (await next_event(events, RuntimeEventKind.DIED, sandbox.member.id)).exit_code == 137
    assert await exit_code_of(engine, sandbox) == 137


# --- the size of files ------------------------------------------------------------------------------------------------


async def test_a_file_larger_than_the_disk_limit_is_refused(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(ephemeral_disk_mb=1)
    killed = await sandbox.run(shell="exec head -c 2000000 /dev/zero >/file")
    assert (killed.reason, killed.signal) == (CommandEndReason.SIGNALED, signal.SIGXFSZ)
    assert await sandbox.text("stat -c %s /file") == str(1024 * 1024)
    assert await sandbox.text("head -c 1048576 /dev/zero >/file && echo fits") == "fits"
    nobody = await sandbox.run(shell="ulimit -f unlimited", user="65534:65534")
    assert nobody.exit_code != 0
    # Not even root in the container may raise it.
    assert (await sandbox.run(shell="ulimit -f unlimited")).exit_code != 0


async def test_python_is_told_that_a_file_is_too_large(make_sandbox: MakeSandbox) -> None:
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


async def test_the_entrypoints_files_are_limited_too(make_sandbox: MakeSandbox, engine: docker.APIClient) -> None:
    script = "mkfifo /go; read x < /go; exec head -c 2000000 /dev/zero >/file"
    sandbox = await make_sandbox(entrypoint=("sh", "-c", script), ephemeral_disk_mb=1)
    go = asyncio.create_task(sandbox.run(shell="while [ ! -p /go ]; do :; done; echo >/go"))
    assert await exit_code_of(engine, sandbox) == 128 + signal.SIGXFSZ
    await asyncio.gather(go, return_exceptions=True)


# --- what an owner brings ---------------------------------------------------------------------------------------------


async def test_commands_that_run_already_do_not_get_an_owners_environment(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(env=(("KEY", "pool"),))
    early = asyncio.create_task(sandbox.run(shell="mkfifo /go; read x < /go; echo $KEY"))
    await sandbox.text("while [ ! -p /go ]; do :; done")
    await sandbox.agents.admit(sandbox.member.id, sandbox.address, {"KEY": "own"})
    assert await sandbox.text("echo $KEY; echo >/go") == "own"
    assert (await early).stdout == b"pool\n"


async def test_secrets_are_in_the_owners_processes_and_nowhere_else(
    make_sandbox: MakeSandbox, engine: docker.APIClient
) -> None:
    entrypoint = ("sh", "-c", 'echo "$$ ${#KEY}" >/up; echo up; exec sleep 66')
    sandbox = await make_sandbox(entrypoint=entrypoint, secret_names=("KEY",))
    assert "sleep 66" not in await sandbox.text("ps")
    await sandbox.agents.admit(sandbox.member.id, sandbox.address, {"KEY": SECRET}, entrypoint)
    pid, length = (await sandbox.text("while [ ! -s /up ]; do :; done; cat /up")).split()
    assert int(length) == len(SECRET)
    assert await sandbox.text("echo $KEY") == SECRET
    # The agent's memory and environment are closed to everyone in the container, an owner's processes to other users.
    closed = [("0", f"/proc/1/{file}") for file in ("environ", "mem", "maps")]
    closed += [("65534:65534", f"/proc/{one}/environ") for one in (1, pid)]
    for user, file in closed:
        denied = await sandbox.run("head", "-c", "1", file, user=user)
        assert denied.exit_code != 0, (user, file)
        assert b"denied" in denied.stderr or b"not permitted" in denied.stderr, denied
    # No file holds it, in the eyes of a search that would find it.
    search = f"find / -xdev -type f -exec grep -l {SECRET} {{}} +; true"
    assert await sandbox.text(f"echo {SECRET} >/planted; {search}") == "/planted"
    await sandbox.text("rm /planted")
    assert await sandbox.text(search) == ""
    name = f"sandpool-{sandbox.member.id}"
    assert SECRET not in json.dumps(await asyncio.to_thread(engine.inspect_container, name))
    logs = await asyncio.to_thread(engine.logs, name)
    assert b"up\n" in logs
    assert SECRET.encode() not in logs


# --- the port's contract ----------------------------------------------------------------------------------------------


def states_of(pid: int) -> set[str]:
    """The states of a process's threads, as Linux names them."""
    return {file.read_text().rpartition(")")[2].split()[0] for file in Path(f"/proc/{pid}/task").glob("*/stat")}


@dataclass
class RealPlace:
    """A container on the engine with the real agent."""

    agents: GrpcAgents
    member_id: str
    address: str
    image: ImageConfig
    engine: docker.APIClient

    async def text(self, shell: str) -> str:
        result = await self.agents.run(self.member_id, self.address, Command(10.0, shell=shell))
        return result.stdout.decode()

    async def env(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (await self.text("env")).splitlines())

    async def entrypoint_runs(self) -> bool:
        return " ".join(SLEEPER) in await self.text("ps")

    async def silence(self) -> None:
        pid = await self._pid()
        os.kill(pid, signal.SIGSTOP)
        # Its threads stop one by one: until the last has, it may answer.
        await asyncio.to_thread(eventually, lambda: states_of(pid) == {"T"})

    async def revive(self) -> None:
        os.kill(await self._pid(), signal.SIGCONT)

    async def end(self) -> None:
        await asyncio.to_thread(self.engine.kill, f"sandpool-{self.member_id}")

    async def _pid(self) -> int:
        """The agent's process id here."""
        found = await asyncio.to_thread(self.engine.inspect_container, f"sandpool-{self.member_id}")
        pid = int(found["State"]["Pid"])
        command = await asyncio.to_thread(Path(f"/proc/{pid}/cmdline").read_bytes)
        assert command.startswith(b"/.sandpool/agent"), f"process {pid} is {command!r}: not the engine of this machine?"
        return pid


class TestRealAgents(AgentsContract):
    """The channel and the agent keep the contract."""

    @pytest.fixture
    async def place(self, runtime: DockerRuntime, agents: GrpcAgents, engine: docker.APIClient) -> RealPlace:
        member = make_member("busybox:latest")
        image = await runtime.ensure_image(member.spec.image)
        address = await runtime.launch(member, agents.token_sha256(member.id))
        return RealPlace(agents, member.id, address, image, engine)


async def test_members_paused_or_gone_are_unavailable_in_time(
    make_sandbox: MakeSandbox, engine: docker.APIClient
) -> None:
    sandbox = await make_sandbox()
    name = f"sandpool-{sandbox.member.id}"

    async def unavailable() -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await sandbox.agents.admit(sandbox.member.id, sandbox.address, {"A": "1"})
        assert time.monotonic() - began < 2.5

    await asyncio.to_thread(engine.pause, name)
    for _ in range(2):  # On the open channel, and on one that cannot be opened.
        await unavailable()
    await asyncio.to_thread(engine.unpause, name)
    async with asyncio.timeout(1):
        await sandbox.agents.admit(sandbox.member.id, sandbox.address, {"A": "1"})
    await asyncio.to_thread(engine.remove_container, name, force=True)
    for _ in range(2):
        await unavailable()
