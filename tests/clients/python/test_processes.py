"""Commands and processes that survive broken connections: output, input, exit."""

import signal
from datetime import timedelta

import grpc
import pytest

from sandpool import (
    AsyncSandboxClient,
    ExitReason,
    HealthCheck,
    OutputChunk,
    OutputStream,
    ProcessState,
    RetryPolicy,
    Sandbox,
    SandboxClient,
    TerminalSize,
    errors,
)
from sandpool._core import output_stream
from sandpool.v1 import process_service_pb2 as pb
from tests.clients.python.conftest import FAST
from tests.clients.python.processes import ERR, OUT, Processes, Script
from tests.clients.python.state import Failure, State
from tests.clients.python.test_retries import LOST, LOST_RESPONSE

MAKE = Script([(OUT, b"one\n"), (ERR, b"warning\n"), (OUT, "zwö".encode()[:-1]), (OUT, "zwö".encode()[-1:])], 3)
"""A character is split between two pieces."""


@pytest.fixture
def box(client: SandboxClient, processes: Processes) -> Sandbox:
    processes.scripts["make"] = MAKE
    return client.create(pool_id="p")


def test_returns_the_output_and_the_exit(box: Sandbox, state: State):
    result = box.run("make")
    assert (result.stdout, result.stderr, result.exit_code, result.success) == ("one\nzwö", "warning\n", 3, False)
    assert (result.stdout_bytes, result.reason) == ("one\nzwö".encode(), ExitReason.EXITED)
    assert isinstance(result.duration, float)
    (sent,) = state.sent("ConnectProcess")
    assert (sent.start.timeout.seconds, sent.start.idle_timeout.seconds) == (60, 300)
    assert not sent.start.stdin
    assert sent.start.HasField("retention") is False


def test_a_command_without_a_limit_has_no_timeout_and_no_deadline(box: Sandbox, state: State):
    assert box.run("make", timeout=None).exit_code == 3
    (sent,) = state.sent("ConnectProcess")
    assert not sent.start.HasField("timeout")
    assert state.remaining[-1] is None


@pytest.mark.parametrize("cuts", [[1], [2], [3, 1, 2], [4], [0, 0, 1, 1, 1, 1], [-1, -1]])
def test_a_broken_connection_loses_nothing_and_starts_nothing_twice(
    box: Sandbox, processes: Processes, cuts: list[int]
):
    processes.cuts.extend(cuts)
    received: list[str] = []
    result = box.run("make", on_stdout=received.append, on_stderr=received.append)
    assert (result.stdout, result.stderr, result.exit_code) == ("one\nzwö", "warning\n", 3)
    assert "".join(received) == "one\nwarning\nzwö"
    assert processes.starts == 1
    assert processes.cuts == []


def test_resumes_output_that_ends_before_the_exit(box: Sandbox, processes: Processes):
    processes.quiet = True
    processes.cuts.extend([2, 1, 3])
    assert box.run("make").stdout == "one\nzwö"
    assert processes.starts == 1


def test_raises_when_the_exit_is_never_reported(
    box: Sandbox, processes: Processes, state: State, monkeypatch: pytest.MonkeyPatch
):
    """The server responds and sends nothing. While output arrives, the client keeps waiting."""
    monkeypatch.setattr(output_stream, "_MARGIN", 0.3)
    monkeypatch.setattr(output_stream, "_LEAST_SECONDS", 0.3)
    processes.scripts["hangs"] = Script([(OUT, b"some\n")], None)
    received: list[str] = []
    with pytest.raises(errors.CommandTimeoutError) as caught:
        box.run("hangs", timeout=0.2, on_stdout=received.append)
    assert (caught.value.timeout, received) == (0.2, ["some\n"])
    assert len(state.sent("ConnectProcess")) == len(state.sent("AttachProcess")) == processes.starts == 1


def test_a_detached_handle_has_no_output_and_no_result(box: Sandbox, processes: Processes):
    processes.scripts["sleep"] = Script(exit_code=None)
    process = box.processes.start("sleep")
    process.detach()
    assert list(process) == []
    with pytest.raises(errors.ClientClosedError, match=r"processes\.attach"):
        process.wait()


async def test_runs_with_asyncio(address: str, processes: Processes):
    processes.scripts["make"] = MAKE
    processes.cuts.extend([3, 1, 2])
    received: list[str] = []

    async def listen(text: str) -> None:
        received.append(text)

    async with AsyncSandboxClient(address, retry=FAST) as client:
        box = await client.create(pool_id="p")
        result = await box.run("make", on_stdout=listen)
        assert (result.stdout, result.exit_code, "".join(received)) == ("one\nzwö", 3, "one\nzwö")
        processes.cuts.extend([2, 2])
        process = await box.processes.start("make")
        assert (await process.wait()).stdout == "one\nzwö"
        assert (await process.wait()).exit_code == 3, "a second call returns the same result"
    assert processes.starts == 2


async def test_detach_ends_an_iteration_of_another_task(address: str, processes: Processes):
    import asyncio

    processes.scripts["sleep"] = Script([(OUT, b"a")], exit_code=None)
    async with AsyncSandboxClient(address, retry=FAST) as client:
        box = await client.create(pool_id="p")
        process = await box.processes.start("sleep")
        received = asyncio.Event()

        async def read() -> list[str]:
            found = []
            async for chunk in process:
                found.append(chunk.data)
                received.set()
            return found

        reading = asyncio.create_task(read())
        await received.wait()
        process.detach()
        assert await asyncio.wait_for(reading, 5) == ["a"]


def test_a_handle_iterates_over_the_output(box: Sandbox, state: State):
    process = box.processes.start("make")
    assert process.pid == 101
    assert process.process_id == state.sent("StartProcess")[0].process_id
    assert not state.sent("StartProcess")[0].stdin
    first, *rest = list(process)
    assert first == OutputChunk(OutputStream.STDOUT, "one\n", 0, b"one\n")
    assert [(chunk.stream, chunk.data, chunk.offset) for chunk in rest] == [
        ("stderr", "warning\n", 0),
        ("stdout", "zw", 4),
        ("stdout", "ö", 7),
    ]
    assert list(process) == []
    assert process.wait().exit_code == 3
    assert (process.stdout_offset, process.stderr_offset) == (8, 8)


def test_attaches_at_offsets(box: Sandbox):
    process = box.processes.start("make")
    later = box.processes.attach(process.process_id, stdout_offset=4, stderr_offset=8).wait()
    assert (later.stdout, later.stderr) == ("zwö", "")
    with pytest.raises(errors.ProcessNotFoundError):
        box.processes.attach("other")


def test_reports_output_that_is_no_longer_buffered(box: Sandbox, processes: Processes):
    processes.scripts["noisy"] = Script([(OUT, b"0123456789")], 0, gap=6)
    process = box.processes.start("noisy")
    assert [(chunk.data, chunk.offset, chunk.dropped_bytes) for chunk in process] == [("6789", 6, 6)]
    assert process.wait().stdout_dropped_bytes == 6
    output = box.processes.output(process.process_id)
    assert (output.stdout, output.stdout_dropped_bytes, output.stderr_dropped_bytes) == ("6789", 6, 0)


def test_reports_a_gap_at_the_end_of_the_output(box: Sandbox, processes: Processes):
    processes.scripts["noisy"] = Script([(OUT, b"0123")], 0, gap=4)
    chunks = list(box.processes.start("noisy"))
    assert [(chunk.data, chunk.offset, chunk.dropped_bytes) for chunk in chunks] == [("", 4, 4)]


def test_writes_input_once_over_broken_connections(box: Sandbox, processes: Processes, state: State):
    processes.scripts["cat"] = Script(exit_code=None)
    process = box.processes.start("cat", stdin=True)
    state.fail("WriteProcessInput", LOST_RESPONSE, LOST)
    process.write_stdin("hello ")
    process.write_stdin(b"x" * (1024 * 1024 + 1))
    state.fail("WriteProcessInput", LOST_RESPONSE)
    process.close_stdin()
    process.close_stdin()
    with pytest.raises(errors.ResourceStateError):
        process.write_stdin("late")
    entry = processes.entries[process.process_id]
    assert bytes(entry.stdin) == b"hello " + b"x" * (1024 * 1024 + 1)
    assert process.wait().exit_code == len(entry.stdin) % 256


def test_run_feeds_standard_input(box: Sandbox, processes: Processes, state: State):
    processes.scripts["cat"] = Script(exit_code=None)
    result = box.run("cat", stdin="grüße")
    assert result.exit_code == len("grüße".encode())
    (sent,) = state.sent("StartProcess")
    assert sent.stdin
    assert bytes(processes.entries[sent.process_id].stdin) == "grüße".encode()
    assert box.run("cat", stdin=b"").exit_code == 0


def test_run_ignores_input_that_the_command_does_not_read(box: Sandbox, processes: Processes, state: State):
    reason = errors_info("STDIN_CLOSED")
    state.fail("WriteProcessInput", *[Failure(grpc.StatusCode.FAILED_PRECONDITION, "closed", reason)] * 2)
    assert box.run("make", stdin="x").exit_code == 3


def test_run_raises_when_the_input_cannot_be_written(box: Sandbox, processes: Processes, state: State):
    processes.scripts["cat"] = Script(exit_code=None)
    state.fail("WriteProcessInput", *[LOST] * 9)
    with pytest.raises(errors.SandboxConnectionError, match="WriteProcessInput"):
        box.run("cat", stdin="x")


def errors_info(reason: str) -> tuple[object, ...]:
    from google.rpc import error_details_pb2 as rpc

    return (rpc.ErrorInfo(reason=reason, domain="sandpool"),)


def test_kills_and_signals_a_process(box: Sandbox, processes: Processes, state: State):
    processes.scripts["sleep"] = Script(exit_code=None)
    process = box.processes.start("sleep")
    process.signal(signal.SIGHUP, tree=True)
    process.kill()
    result = process.wait()
    assert (result.signal, result.exit_code, result.reason) == (9, None, ExitReason.KILLED)
    (sent,) = state.sent("SignalProcess")
    assert (sent.signal, sent.tree) == (1, True)


def test_kills_the_command_when_a_callback_fails(box: Sandbox, processes: Processes, state: State):
    def fail(_: str) -> None:
        raise KeyError("mine")

    processes.scripts["long"] = Script([(OUT, b"a")], None)
    with pytest.raises(KeyError, match="mine"):
        box.run("long", on_stdout=fail)
    assert len(state.sent("KillProcess")) == 1


def test_gives_up_soon_when_the_command_never_started(box: Sandbox, processes: Processes):
    processes.cuts.extend([-1] * 20)
    with pytest.raises(errors.SandboxConnectionError):
        box.run("make")
    assert processes.starts == 0


def test_does_not_resume_without_retries(address: str, processes: Processes):
    processes.scripts["make"] = MAKE
    processes.cuts.append(2)
    with SandboxClient(address, retry=RetryPolicy(max_attempts=1)) as client:
        box = client.create(pool_id="p")
        with pytest.raises(errors.SandboxConnectionError):
            box.run("make")


@pytest.mark.parametrize(
    ("kind", "message", "arguments"),
    [
        (TypeError, "require name", {"restart_policy": "always"}),
        (TypeError, "require name", {"health_check": HealthCheck(80)}),
        (TypeError, "env must be a mapping", {"env": ["A=1"]}),
        (TypeError, "idle_timeout must be a number", {"idle_timeout": timedelta(seconds=1)}),
        (ValueError, "restart_policy must be one of", {"name": "n", "restart_policy": "sometimes"}),
        (ValueError, "output_overflow must be one of", {"output_overflow": "explode"}),
    ],
)
def test_rejects_wrong_arguments_before_sending(box: Sandbox, state: State, kind, message, arguments):
    with pytest.raises(kind, match=message):
        box.processes.start("x", **arguments)
    assert state.sent("StartProcess") == []


def test_sends_every_field_of_a_process(box: Sandbox, state: State):
    box.processes.start(
        ["sleep", "1"],
        process_id="mine",
        env={"A": "1"},
        cwd="/tmp",
        user="nobody",
        stdin=True,
        terminal=TerminalSize(30, 90),
        timeout=1.5,
        idle_timeout=2,
        kill_on_disconnect=True,
        retention=0,
        output_buffer_bytes=4096,
        output_overflow="drop_oldest",
    )
    box.processes.start(
        "serve", name="web", restart_policy="on_failure", health_check=HealthCheck(80, "/", 0.5, 1, failure_threshold=2)
    )
    first, second = state.sent("StartProcess")
    assert (first.process_id, list(first.argv), dict(first.env)) == ("mine", ["sleep", "1"], {"A": "1"})
    assert (first.working_dir, first.user, first.stdin) == ("/tmp", "nobody", True)
    assert (first.terminal.rows, first.terminal.cols) == (30, 90)
    assert (first.timeout.nanos, first.idle_timeout.seconds, first.kill_on_disconnect) == (500_000_000, 2, True)
    assert first.HasField("retention")
    assert (first.output_buffer_bytes, first.output_overflow) == (4096, pb.OUTPUT_OVERFLOW_DROP_OLDEST)
    check = second.service.health_check
    assert (second.service.name, second.service.restart_policy) == ("web", 2)
    assert (check.http.port, check.http.path, check.interval.nanos, check.timeout.seconds) == (80, "/", 500_000_000, 1)
    assert check.failure_threshold == 2


def test_manages_a_service_by_its_name(box: Sandbox, processes: Processes, state: State):
    processes.scripts["serve"] = Script([(OUT, b"up\n"), (ERR, b"log\n")], None)
    process = box.processes.start("serve", name="web", restart_policy="always", stdin=True)
    info = box.processes.get("web")
    assert (info.name, info.state, info.pid, info.exit) == ("web", ProcessState.RUNNING, 101, None)
    assert (info.command, info.argv, info.user, info.terminal) == ("serve", None, None, None)
    assert box.processes.get(process.process_id) == info
    assert [found.name for found in box.processes.list(page_size=1)] == ["web"]
    assert list(box.processes.list(states=["exited"])) == []
    output = box.processes.output("web")
    assert (output.stdout, output.stderr, output.stdout_offset, output.stderr_offset) == ("up\n", "log\n", 3, 4)
    assert box.processes.restart("web").restarts == 1
    box.processes.write_stdin("web", "text")
    box.processes.signal("web", 1)
    follower = box.processes.follow("web")
    assert next(follower).data == "up\n"
    follower.close()
    box.processes.close_stdin("web")
    assert [chunk.data for chunk in box.processes.follow("web")] == ["up\n", "log\n"]
    assert [chunk.data for chunk in box.processes.follow("web", stdout_offset=-1, stderr_offset=-1)] == []
    assert next(box.processes.follow("web", stdout_offset=2)).data == "\n"
    box.processes.kill("web")
    found = box.processes.get("web").exit
    assert found is not None
    assert (found.exit_code, found.signal, found.reason) == (4, None, ExitReason.EXITED)
    assert len(state.sent("RestartProcess")) == 1


def test_calls_that_are_sent_once_are_not_retried(box: Sandbox, processes: Processes, state: State):
    processes.scripts["serve"] = Script(exit_code=None)
    process = box.processes.start("serve", name="web")
    for method, call in (
        ("RestartProcess", lambda: box.processes.restart("web")),
        ("SignalProcess", lambda: box.processes.signal("web", 1)),
        ("WriteProcessInput", lambda: box.processes.write_stdin("web", "x")),
        ("SignalProcess", lambda: process.signal(1)),
    ):
        before = len(state.sent(method))
        state.fail(method, LOST)
        with pytest.raises(errors.SandboxConnectionError, match="did not send it again"):
            call()
        assert len(state.sent(method)) == before + 1


def test_a_start_whose_response_was_lost_starts_once(box: Sandbox, processes: Processes, state: State):
    state.fail("StartProcess", LOST_RESPONSE, LOST)
    assert box.processes.start("make").wait().exit_code == 3
    assert len(processes.entries) == processes.starts == 1
    sent = state.sent("StartProcess")
    assert isinstance(sent[0], pb.StartProcessRequest)
    assert len({request.process_id for request in sent}) == 1


def test_other_errors_are_not_retried(box: Sandbox, state: State):
    state.fail("ConnectProcess", Failure(grpc.StatusCode.FAILED_PRECONDITION, "no such program"))
    with pytest.raises(errors.ResourceStateError, match="no such program"):
        box.run("make")


def test_a_terminal_passes_output_to_a_callback(box: Sandbox, processes: Processes, state: State):
    processes.scripts["top"] = Script([(OUT, b"a"), (OUT, b"b")], 7)
    received: list[bytes] = []
    terminal = box.terminals.create("top", rows=30, cols=90, env={"A": "1"}, on_data=received.append)
    assert terminal.wait() == 7
    assert b"".join(received) == b"ab"
    with pytest.raises(TypeError, match="on_data"):
        next(iter(terminal))
    (sent,) = state.sent("StartProcess")
    assert (sent.terminal.rows, sent.terminal.cols) == (30, 90)
    assert dict(sent.env) == {"TERM": "xterm-256color", "A": "1"}


def test_a_terminal_iterates_over_bytes_and_is_killed_at_the_end_of_a_block(box: Sandbox, processes: Processes):
    processes.scripts["sh"] = Script([(OUT, b"$ ")], None)
    with box.terminals.create("sh") as terminal:
        assert next(iter(terminal)) == b"$ "
        terminal.write("ls\n")
        terminal.resize(40, 120)
        again = box.terminals.attach(terminal.process_id, offset=1)
        assert (again.process_id, next(iter(again))) == (terminal.process_id, b" ")
        again.detach()
    entry = processes.entries[terminal.process_id]
    assert (bytes(entry.stdin), entry.message.terminal.rows) == (b"ls\n", 40)
    assert box.processes.get(terminal.process_id).terminal == TerminalSize(40, 120)
    assert box.terminals.attach(terminal.process_id).wait() == 137
    with pytest.raises(errors.ProcessNotFoundError):
        box.terminals.attach("other")
