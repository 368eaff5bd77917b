"""The Python client on commands, processes and terminals of a real sandbox, blocking and with asyncio."""

import asyncio
from collections.abc import Iterator

import pytest

from sandpool import (
    AsyncSandboxClient,
    CommandEndReason,
    OutputStream,
    ProcessNotFoundError,
    ResourceStateError,
    Sandbox,
    SandboxClient,
)
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

IMAGE = "busybox:latest"
ECHO = ["nc", "-lk", "-p", "7000", "-e", "cat"]


@pytest.fixture(scope="module")
def box(server: ServerProcess) -> Iterator[Sandbox]:
    with SandboxClient(server.address) as client, client.create(IMAGE) as made:
        yield made


def test_output_comes_while_the_command_runs(box: Sandbox):
    handle = box.run("echo first; read line; echo got $line; echo oops >&2; exit 4", wait=False)
    chunks = iter(handle)
    assert next(chunks).data == "first\n"
    assert handle.pid > 1
    handle.send_input("hello\n")
    rest = {chunk.stream: chunk.data for chunk in chunks}
    assert rest == {OutputStream.STDOUT: "got hello\n", OutputStream.STDERR: "oops\n"}
    result = handle.result
    assert (result.stdout, result.stderr, result.exit_code) == ("first\ngot hello\n", "oops\n", 4)


def test_more_output_than_is_kept_in_the_sandbox_is_whole(box: Sandbox):
    heard = []
    result = box.run("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end >&2", on_stdout=heard.append)
    assert len(result.stdout) == 5_000_001
    assert "".join(heard) == result.stdout
    assert (result.stderr, result.stdout_dropped_bytes) == ("end\n", 0)


def test_a_command_is_taken_up_later(box: Sandbox):
    handle = box.run("for i in 1 2 3; do echo $i; done; exec sleep 60", wait=False)
    chunks = iter(handle)
    text = ""
    while len(text) < 6:
        text += next(chunks).data
    chunks.close()
    later = box.reconnect(handle.command_id, stdout_offset=2)
    assert next(iter(later)).data == "2\n3\n"
    later.kill()
    assert later.result.reason is CommandEndReason.KILLED
    assert handle.result.signal == 9
    with pytest.raises(ProcessNotFoundError):
        box.reconnect("never-started")


def test_processes(box: Sandbox):
    info = box.start_process("cat; echo bye", stdin_mode="pipe", process_id="cat-1")
    assert box.start_process("cat; echo bye", stdin_mode="pipe", process_id="cat-1").pid == info.pid
    box.write_stdin("cat-1", "one\n")
    box.write_stdin(pid=info.pid, data=b"two\n")
    eventually(lambda: box.get_stdout("cat-1").lines == ["one", "two"])
    assert "cat-1" in [found.process_id for found in box.list_processes(states=["running"])]
    box.close_stdin("cat-1")
    assert "".join(chunk.data for chunk in box.follow_output("cat-1")) == "one\ntwo\nbye\n"
    assert box.get_process("cat-1").exit_code == 0
    with pytest.raises(ResourceStateError) as caught:
        box.write_stdin("cat-1", "late")
    assert caught.value.reason in {"STDIN_CLOSED", "PROCESS_ENDED"}
    box.start_process(["sleep", "60"], process_id="sleep-1")
    box.send_signal("sleep-1", 15)
    eventually(lambda: box.get_process("sleep-1").signal == 15)
    box.kill_process("sleep-1")


def test_a_terminal(box: Sandbox):
    printed = bytearray()
    ended: list[int] = []
    with box.create_pty(["/bin/sh"], rows=30, cols=100, on_data=printed.extend, on_exit=ended.append) as pty:
        pty.send_input("stty size; tty\n")
        eventually(lambda: b"30 100" in printed and b"/dev/pts/" in printed)
        pty.resize(40, 120)
        pty.send_input("stty size\n")
        eventually(lambda: b"40 120" in printed)
        pty.send_input("echo fa''st; sleep 60\n")
        eventually(lambda: b"fast" in printed)
        pty.send_input(b"\x03")
        pty.send_input("exit 7\n")
        assert pty.wait() == 7
    assert ended == [7]


def test_a_terminal_that_is_left_and_taken_up(box: Sandbox):
    seen = bytearray()
    pty = box.create_pty(on_data=seen.extend)
    pty.send_input("echo be''fore\n")
    eventually(lambda: b"before" in seen)
    pty.disconnect()
    other = box.connect_pty(pty.session_id, offset=0)
    other.send_input("echo af''ter\n")
    text = b""
    for data in other:
        text += data
        if b"after" in text:
            break
    assert b"before" in text
    other.kill()
    assert other.wait() == 128 + 9
    with pytest.raises(ProcessNotFoundError):
        box.connect_pty("nothing")


async def test_all_of_it_with_asyncio(server: ServerProcess):
    async with AsyncSandboxClient(server.address) as client, client.create(IMAGE) as box:
        handle = await box.run("read line; echo got $line", wait=False)
        await handle.send_input("it\n")
        assert [chunk.data async for chunk in handle] == ["got it\n"]
        assert (await handle.result).exit_code == 0

        printed = bytearray()
        async with await box.create_pty(["/bin/sh"], rows=31, cols=99, on_data=printed.extend) as pty:
            await pty.send_input("stty size; exit 3\n")
            assert await pty.wait() == 3
        assert b"31 99" in printed

        # A task that is cancelled takes its command with it.
        runs = asyncio.Event()
        command = "echo it runs; exec sleep 77"
        task = asyncio.ensure_future(box.run(command, timeout=70, on_stdout=lambda _: runs.set()))
        await runs.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [info for info in await box.list_processes(states=["running"]) if info.command == command]
