"""Commands, processes and terminals of a sandbox with the Python client, blocking and with asyncio."""

import asyncio
from collections.abc import Iterator

import pytest

from sandpool import (
    AsyncSandboxClient,
    ExitReason,
    OutputStream,
    ProcessExit,
    ProcessNotFoundError,
    ResourceStateError,
    Sandbox,
    SandboxClient,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"


@pytest.fixture(scope="module")
def box(server: ServerProcess) -> Iterator[Sandbox]:
    with SandboxClient(server.address) as client, client.create(image=IMAGE) as made:
        yield made


def test_output_arrives_while_the_process_runs(box: Sandbox):
    process = box.processes.start("echo first; read line; echo got $line; echo oops >&2; exit 4", stdin=True)
    chunks = iter(process)
    assert next(chunks).data == "first\n"
    assert process.pid is not None
    assert process.pid > 1
    process.write_stdin("hello\n")
    rest = {chunk.stream: chunk.data for chunk in chunks}
    assert rest == {OutputStream.STDOUT: "got hello\n", OutputStream.STDERR: "oops\n"}
    result = process.wait()
    assert (result.stdout, result.stderr, result.exit_code) == ("first\ngot hello\n", "oops\n", 4)


def test_more_output_than_the_buffer_holds_is_complete(box: Sandbox):
    received: list[str] = []
    result = box.run("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end >&2", on_stdout=received.append)
    assert len(result.stdout) == 5_000_001
    assert "".join(received) == result.stdout
    assert (result.stderr, result.stdout_dropped_bytes) == ("end\n", 0)


def test_standard_input_of_any_size_reaches_the_command(box: Sandbox):
    data = bytes(range(256)) * 20_000
    result = box.run(["cat"], stdin=data)
    assert (result.stdout_bytes, result.exit_code) == (data, 0)
    assert box.run("head -c 10", stdin=data).stdout_bytes == data[:10], "the rest is not read"
    assert box.run(["cat"], stdin="").stdout == ""


def test_another_handle_attaches_to_a_running_process(box: Sandbox):
    process = box.processes.start("for i in 1 2 3; do echo $i; done; exec sleep 60")
    chunks = iter(process)
    text = ""
    while len(text) < 6:
        text += next(chunks).data
    chunks.close()
    later = box.processes.attach(process.process_id, stdout_offset=2)
    assert next(iter(later)).data == "2\n3\n"
    later.kill()
    assert later.wait().reason is ExitReason.KILLED
    assert process.wait().signal == 9
    with pytest.raises(ProcessNotFoundError):
        box.processes.attach("never-started")


def exit_of(box: Sandbox, process_id: str) -> ProcessExit | None:
    return box.processes.get(process_id).exit


def test_controls_processes_by_identifier(box: Sandbox):
    process = box.processes.start("cat; echo bye", stdin=True, process_id="cat-1")
    assert box.processes.start("cat; echo bye", stdin=True, process_id="cat-1").pid == process.pid
    box.processes.write_stdin("cat-1", "one\n")
    box.processes.write_stdin("cat-1", b"two\n")
    eventually(lambda: box.processes.output("cat-1").stdout == "one\ntwo\n")
    assert "cat-1" in [found.process_id for found in box.processes.list(states=["running"])]
    box.processes.close_stdin("cat-1")
    assert "".join(chunk.data for chunk in box.processes.follow("cat-1")) == "one\ntwo\nbye\n"
    assert exit_of(box, "cat-1") == ProcessExit(exit_code=0, signal=None, reason=ExitReason.EXITED)
    with pytest.raises(ResourceStateError) as caught:
        box.processes.write_stdin("cat-1", "late")
    assert caught.value.reason in {"STDIN_CLOSED", "PROCESS_EXITED"}
    box.processes.start(["sleep", "60"], process_id="sleep-1")
    box.processes.signal("sleep-1", 15)
    eventually(lambda: exit_of(box, "sleep-1") is not None)
    assert exit_of(box, "sleep-1") == ProcessExit(exit_code=None, signal=15, reason=ExitReason.SIGNALED)
    box.processes.kill("sleep-1")


def test_terminal_has_a_size_and_control_keys(box: Sandbox):
    printed = bytearray()
    with box.terminals.create(["/bin/sh"], rows=30, cols=100, on_data=printed.extend) as terminal:
        terminal.write("stty size; tty\n")
        eventually(lambda: b"30 100" in printed and b"/dev/pts/" in printed)
        terminal.resize(40, 120)
        terminal.write("stty size\n")
        eventually(lambda: b"40 120" in printed)
        terminal.write("echo fa''st; sleep 60\n")
        eventually(lambda: b"fast" in printed)
        terminal.write(b"\x03")
        terminal.write("exit 7\n")
        assert terminal.wait() == 7


def test_another_handle_attaches_to_a_terminal(box: Sandbox):
    printed = bytearray()
    terminal = box.terminals.create(on_data=printed.extend)
    terminal.write("echo be''fore\n")
    eventually(lambda: b"before" in printed)
    terminal.detach()
    other = box.terminals.attach(terminal.process_id, offset=0)
    other.write("echo af''ter\n")
    text = b""
    for data in other:
        text += data
        if b"after" in text:
            break
    assert b"before" in text
    other.kill()
    assert other.wait() == 128 + 9
    with pytest.raises(ProcessNotFoundError):
        box.terminals.attach("nothing")


async def test_runs_processes_and_terminals_with_asyncio(server: ServerProcess):
    async with AsyncSandboxClient(server.address) as client, client.create(image=IMAGE) as box:
        process = await box.processes.start("read line; echo got $line", stdin=True)
        await process.write_stdin("it\n")
        assert [chunk.data async for chunk in process] == ["got it\n"]
        assert (await process.wait()).exit_code == 0
        assert (await box.run(["wc", "-c"], stdin=b"x" * 3_000_000)).stdout == "3000000\n"

        printed = bytearray()
        async with await box.terminals.create(["/bin/sh"], rows=31, cols=99, on_data=printed.extend) as terminal:
            await terminal.write("stty size; exit 3\n")
            assert await terminal.wait() == 3
        assert b"31 99" in printed

        # A cancelled task kills its command.
        started = asyncio.Event()
        command = "echo it runs; exec sleep 77"
        task = asyncio.ensure_future(box.run(command, timeout=70, on_stdout=lambda _: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        running = [info.command async for info in box.processes.list(states=["running"])]
        assert command not in running
