"""Commands that outlive connections: output, input, ends, handles; in memory, with connections that break."""

import signal

import pytest

from sandpool import (
    AsyncSandboxClient,
    CommandEndReason,
    OutputChunk,
    OutputStream,
    RetryPolicy,
    Sandbox,
    SandboxClient,
    TerminalSize,
    errors,
)
from sandpool._core import following
from sandpool.v1 import process_service_pb2 as pb
from tests.clients.python.conftest import FAST
from tests.clients.python.processes import ERR, OUT, Processes, Script
from tests.clients.python.state import Failure, State
from tests.clients.python.test_retries import LOST, LOST_ANSWER

MAKE = Script([(OUT, b"one\n"), (ERR, b"warning\n"), (OUT, "zwö".encode()[:-1]), (OUT, "zwö".encode()[-1:])], 3)
"""A letter is cut between two pieces."""


@pytest.fixture
def box(client: SandboxClient, processes: Processes) -> Sandbox:
    processes.scripts["make"] = MAKE
    return client.create(pool_id="p")


def test_what_a_command_printed_and_how_it_ended(box: Sandbox, state: State):
    result = box.run("make")
    assert (result.stdout, result.stderr, result.exit_code, result.success) == ("one\nzwö", "warning\n", 3, False)
    assert (result.stdout_bytes, result.reason) == ("one\nzwö".encode(), CommandEndReason.EXITED)
    (sent,) = state.sent("ConnectProcess")
    assert (sent.start.timeout_secs, sent.start.idle_timeout_secs, sent.start.ttl_secs) == (60, 300, 600)
    assert not sent.start.stdin


@pytest.mark.parametrize("cuts", [[1], [2], [3, 1, 2], [4], [0, 0, 1, 1, 1, 1], [-1, -1]])
def test_a_broken_connection_loses_nothing_and_runs_nothing_twice(box: Sandbox, processes: Processes, cuts: list[int]):
    processes.cuts.extend(cuts)
    heard: list[str] = []
    result = box.run("make", on_stdout=heard.append, on_stderr=heard.append)
    assert (result.stdout, result.stderr, result.exit_code) == ("one\nzwö", "warning\n", 3)
    assert "".join(heard) == "one\nwarning\nzwö"
    assert processes.starts == 1
    assert processes.cuts == []


def test_output_that_ends_before_the_command_is_taken_up(box: Sandbox, processes: Processes):
    processes.quiet = True
    processes.cuts.extend([2, 1, 3])
    assert box.run("make").stdout == "one\nzwö"
    assert processes.starts == 1


def test_a_command_whose_end_never_comes(
    box: Sandbox, processes: Processes, state: State, monkeypatch: pytest.MonkeyPatch
):
    """The server is there and says nothing; output that still comes is waited for."""
    monkeypatch.setattr(following, "_MARGIN_SECS", 0.3)
    monkeypatch.setattr(following, "_LEAST_SECS", 0.3)
    processes.scripts["hangs"] = Script([(OUT, b"some\n")], None)
    heard: list[str] = []
    with pytest.raises(errors.CommandTimeoutError) as caught:
        box.run("hangs", timeout=0.2, on_stdout=heard.append)
    assert (caught.value.timeout, heard) == (0.2, ["some\n"])
    assert len(state.sent("ConnectProcess")) == len(state.sent("AttachProcess")) == processes.starts == 1


def test_a_handle_that_was_left(box: Sandbox, processes: Processes):
    processes.scripts["sleep"] = Script(exit_code=None)
    handle = box.run("sleep", wait=False)
    handle.detach()
    assert list(handle) == []
    with pytest.raises(errors.ClientClosedError, match="reconnect"):
        _ = handle.result


async def test_the_same_with_asyncio(address: str, processes: Processes):
    processes.scripts["make"] = MAKE
    processes.cuts.extend([3, 1, 2])
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    async with AsyncSandboxClient(address, retry=FAST) as client:
        box = await client.create(pool_id="p")
        result = await box.run("make", on_stdout=listen)
        assert (result.stdout, result.exit_code, "".join(heard)) == ("one\nzwö", 3, "one\nzwö")
        processes.cuts.extend([2, 2])
        handle = await box.run("make", wait=False)
        assert (await handle.result).stdout == "one\nzwö"
        assert (await handle.result).exit_code == 3, "a second time"
    assert processes.starts == 2


def test_a_handle_gives_the_output_as_it_comes(box: Sandbox, processes: Processes, state: State):
    handle = box.run("make", wait=False)
    assert handle.pid == 101
    assert handle.command_id == state.sent("StartProcess")[0].process_id
    assert state.sent("StartProcess")[0].stdin
    first, *rest = list(handle)
    assert first == OutputChunk(OutputStream.STDOUT, "one\n", 0, b"one\n")
    assert [(chunk.stream, chunk.data, chunk.offset) for chunk in rest] == [
        ("stderr", "warning\n", 0),
        ("stdout", "zw", 4),
        ("stdout", "ö", 7),
    ]
    assert list(handle) == []
    assert handle.result.exit_code == 3
    assert (handle.stdout_offset, handle.stderr_offset) == (8, 8)


def test_a_command_is_taken_up_at_offsets(box: Sandbox, state: State):
    handle = box.run("make", wait=False)
    later = box.reconnect(handle.command_id, stdout_offset=4, stderr_offset=8)
    assert (later.result.stdout, later.result.stderr) == ("zwö", "")
    next(iter(handle))
    assert [chunk.data for chunk in handle.reconnect()] == ["warning\n", "zw", "ö"]
    with pytest.raises(errors.ProcessNotFoundError):
        box.reconnect("other")


def test_a_gap_is_told(box: Sandbox, processes: Processes):
    processes.scripts["noisy"] = Script([(OUT, b"0123456789")], 0, gap=6)
    handle = box.run("noisy", wait=False)
    assert [(chunk.data, chunk.offset, chunk.lost_bytes) for chunk in handle] == [("6789", 6, 6)]
    assert handle.result.stdout_dropped_bytes == 6


def test_input_is_written_once_whatever_breaks(box: Sandbox, processes: Processes, state: State):
    processes.scripts["cat"] = Script(exit_code=None)
    handle = box.run("cat", wait=False)
    state.fail("WriteProcessInput", LOST_ANSWER, LOST)
    handle.send_input("hello ")
    handle.send_input(b"x" * (1024 * 1024 + 1))
    state.fail("WriteProcessInput", LOST_ANSWER)
    handle.close_input()
    handle.close_input()
    with pytest.raises(errors.ResourceStateError):
        handle.send_input("late")
    entry = processes.entries[handle.command_id]
    assert bytes(entry.stdin) == b"hello " + b"x" * (1024 * 1024 + 1)
    assert handle.result.exit_code == len(entry.stdin) % 256


def test_a_handle_kills_and_signals(box: Sandbox, processes: Processes, state: State):
    processes.scripts["sleep"] = Script(exit_code=None)
    handle = box.run("sleep", wait=False)
    handle.send_signal(signal.SIGHUP, tree=True)
    handle.kill()
    result = handle.result
    assert (result.signal, result.exit_code, result.reason) == (9, None, CommandEndReason.KILLED)
    (sent,) = state.sent("SignalProcess")
    assert (sent.signal, sent.tree) == (1, True)


def test_who_gives_up_waiting_kills(box: Sandbox, processes: Processes, state: State):
    def fail(_: str) -> None:
        raise KeyError("mine")

    processes.scripts["long"] = Script([(OUT, b"a")], None)
    with pytest.raises(KeyError, match="mine"):
        box.run("long", on_stdout=fail)
    assert len(state.sent("KillProcess")) == 1


def test_a_server_that_is_gone_is_told_soon(box: Sandbox, processes: Processes):
    processes.cuts.extend([-1] * 20)
    with pytest.raises(errors.SandboxConnectionError):
        box.run("make")
    assert processes.starts == 0


def test_without_repetition_a_broken_connection_is_told(address: str, processes: Processes):
    processes.scripts["make"] = MAKE
    processes.cuts.append(2)
    with SandboxClient(address, retry=RetryPolicy(max_attempts=1)) as client:
        box = client.create(pool_id="p")
        with pytest.raises(errors.SandboxConnectionError):
            box.run("make")


def test_wrong_mixtures(box: Sandbox, state: State):
    with pytest.raises(TypeError, match="iterate"):
        box.run("x", wait=False, on_stdout=print)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="nobody"):
        box.run("x", stdin=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="add them"):
        box.run(["x"], ["y"])
    with pytest.raises(TypeError, match="shell"):
        box.run("x", ["y"], shell="/bin/zsh")
    with pytest.raises(TypeError, match="give it a name"):
        box.start_process("x", restart="always")
    with pytest.raises(TypeError, match="pid"):
        box.get_process()
    assert state.sent("ConnectProcess") == []


def test_a_shell_and_a_terminal_of_choice(box: Sandbox, state: State):
    box.run("echo $0", shell="/bin/zsh")
    box.run("ls", pty=True)
    first, second = state.sent("ConnectProcess")
    assert list(first.start.argv) == ["/bin/zsh", "-c", "echo $0"]
    assert (second.start.terminal.rows, second.start.terminal.cols) == (24, 80)


def test_processes_by_identifier_name_and_pid(box: Sandbox, processes: Processes, state: State):
    processes.scripts["serve"] = Script([(OUT, b"up\n"), (ERR, b"log\n")], None)
    info = box.start_process("serve", name="web", restart="always", stdin_mode="pipe", terminal=TerminalSize(30, 90))
    assert (info.name, info.running, info.pid, info.exit_code) == ("web", True, 101, None)
    assert info.terminal == TerminalSize(30, 90)
    for ref in ({"process": "web"}, {"process": info.process_id}, {"pid": 101}, {"process": 101}):
        assert box.get_process(**ref).process_id == info.process_id
    assert [found.name for found in box.list_processes(page_size=1)] == ["web"]
    with pytest.raises(errors.ProcessNotFoundError, match="77"):
        box.get_process(pid=77)
    output = box.get_output("web")
    assert (output.stdout, output.stderr, output.lines, output.stdout_offset) == ("up\n", "log\n", ["up", "log"], 3)
    assert (box.get_stdout(pid=101).lines, box.get_stderr("web").lines) == (["up"], ["log"])
    assert box.restart_process("web").restarts == 1
    box.write_stdin("web", "text")
    box.send_signal("web", 1)
    follower = box.follow_stdout("web")
    assert next(follower).data == "up\n"
    follower.close()
    assert next(box.follow_stderr("web", offset=2)).data == "g\n"
    box.close_stdin("web")
    assert [chunk.data for chunk in box.follow_output("web")] == ["up\n", "log\n"]
    assert [chunk.data for chunk in box.follow_output("web", stdout_offset=-1, stderr_offset=-1)] == []
    box.kill_process("web")
    assert box.get_process("web").exit_code == 4
    assert len(state.sent("RestartProcess")) == 1


def test_what_is_sent_once_is_not_repeated(box: Sandbox, processes: Processes, state: State):
    processes.scripts["serve"] = Script(exit_code=None)
    box.start_process("serve", name="web")
    for method, call in (
        ("RestartProcess", lambda: box.restart_process("web")),
        ("SignalProcess", lambda: box.send_signal("web", 1)),
        ("WriteProcessInput", lambda: box.write_stdin("web", "x")),
    ):
        state.fail(method, LOST)
        with pytest.raises(errors.SandboxConnectionError, match="not sent again"):
            call()
        assert len(state.sent(method)) == 1


def test_a_start_whose_answer_was_lost_starts_once(box: Sandbox, processes: Processes, state: State):
    state.fail("StartProcess", LOST_ANSWER, LOST)
    info = box.start_process("make")
    assert len(processes.entries) == processes.starts == 1
    assert info.exit_code == 3
    sent = state.sent("StartProcess")
    assert isinstance(sent[0], pb.StartProcessRequest)
    assert len({request.process_id for request in sent}) == 1


def test_another_error_than_a_lost_connection_ends_it(box: Sandbox, state: State):
    import grpc

    state.fail("ConnectProcess", Failure(grpc.StatusCode.FAILED_PRECONDITION, "no such program"))
    with pytest.raises(errors.ResourceStateError, match="no such program"):
        box.run("make")
