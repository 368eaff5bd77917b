"""Commands through the real agent in real containers."""

import asyncio
import time

import docker
import pytest

from sandpool_server.domain.errors import FailedPrecondition, FailureReason, InvalidArgument, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, CommandEndReason
from sandpool_server.runtime import DockerRuntime
from tests.engine.conftest import MakeSandbox, Sandbox

pytestmark = pytest.mark.engine


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
