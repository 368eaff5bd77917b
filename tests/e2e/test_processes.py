"""Processes that survive the call that started them, in Debian, busybox and an image of one static binary.

Row numbers refer to tests/user-demands.md.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from sandpool import SandboxClient
from sandpool.v1 import process_pb2, sandbox_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.durations import seconds
from tests.support.process_box import SECS, Box, Seen
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

BUSYBOX = "busybox:latest"
PYTHON = "python:3.11-slim"
DOUBLE_FORK = "setsid sh -c 'sleep {secs} & exec sleep {secs}' & sleep {secs}"
"""A process, its child in a separate session, and a grandchild whose parent continues as another program."""
BARE_FORK = (
    "/busybox setsid /busybox sh -c '/busybox sleep {secs} & exec /busybox sleep {secs}' & /busybox sleep {secs}"
)
"""The same in an image that contains only this binary."""


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[ProcessServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ProcessServiceStub(channel)


@pytest.fixture(scope="module")
def module_client(server: ServerProcess) -> Iterator[SandboxClient]:
    with SandboxClient(server.address) as made:
        yield made


@pytest.fixture(scope="module")
def busybox(module_client: SandboxClient, stub: ProcessServiceStub) -> Box:
    return Box(module_client, stub, BUSYBOX)


@pytest.fixture(scope="module", params=[BUSYBOX, PYTHON])
def box(request: pytest.FixtureRequest, module_client: SandboxClient, stub: ProcessServiceStub) -> Box:
    return Box(module_client, stub, request.param)


def test_returns_output_and_exit_to_several_clients(box: Box) -> None:
    box.start("two", command="echo out; echo err >&2; exit 3")
    for _ in range(2):
        seen = box.seen("two")
        assert (seen.stdout, seen.stderr) == (b"out\n", b"err\n")
        assert seen.end is not None
        assert (seen.end.exit_code, seen.end.reason) == (3, sandbox_pb2.EXIT_REASON_EXITED)
    late = box.seen("two", stdout_offset=2, stderr_offset=-1)
    assert (late.stdout, late.stderr) == (b"t\n", b"")


def test_retry_never_runs_a_command_twice(box: Box) -> None:
    """Row 21: the same request with the same id returns the process; a different request is rejected."""
    command = "echo run >> /tmp/runs; sleep 0.2"
    first = box.start("once", command=command)
    again = box.start("once", command=command)
    assert first.pid == again.pid
    box.seen("once")
    assert box.text("cat /tmp/runs") == "run\n"
    with pytest.raises(grpc.RpcError) as other:
        box.start("once", command="true")
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_applies_environment_user_and_working_directory(box: Box) -> None:
    box.start("who", command="id -u; id -g; pwd; echo $A", user="12:34", working_dir="/tmp", env={"A": "b"})
    assert box.seen("who").stdout.split() == [b"12", b"34", b"/tmp", b"b"]


def test_reports_why_a_process_cannot_start(box: Box) -> None:
    for fields, code, text in (
        ({"argv": ["no-such"]}, grpc.StatusCode.FAILED_PRECONDITION, "no-such"),
        ({"command": "true", "user": "nobody-knows"}, grpc.StatusCode.INVALID_ARGUMENT, "user"),
        ({"command": "true", "working_dir": "/none"}, grpc.StatusCode.INVALID_ARGUMENT, "working_dir"),
    ):
        request = pb.StartProcessRequest(sandbox_id=box.id, process_id="bad", **fields)
        with pytest.raises(grpc.RpcError, match=text) as refused:
            box.stub.StartProcess(request)
        assert refused.value.code() is code
    with pytest.raises(grpc.RpcError) as missing:
        box.get("bad")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_repeated_input_is_written_once(box: Box) -> None:
    """Row 21: an offset identifies input that was already written."""
    box.start("cat", "cat", stdin=True)
    assert box.write("cat", b"hello ") == 6
    for _ in range(2):
        assert box.write("cat", b"lo you", offset=3) == 9
    with pytest.raises(grpc.RpcError) as gap:
        box.write("cat", b"x", offset=10)
    assert gap.value.code() is grpc.StatusCode.OUT_OF_RANGE
    box.write("cat", b"", close=True)
    assert box.seen("cat").stdout == b"hello you"


@pytest.mark.parametrize("cause", ["timeout", "idle", "kill", "disconnect"])
def test_terminates_a_process_with_all_its_descendants(box: Box, cause: str) -> None:
    """Row 20: this includes descendants in another session or without their parent; no zombie remains."""
    limits = {
        "timeout": {"timeout": seconds(0.5)},
        "idle": {"idle_timeout": seconds(0.5)},
        "kill": {},
        "disconnect": {"kill_on_disconnect": True},
    }
    reasons = {
        "timeout": sandbox_pb2.EXIT_REASON_TIMED_OUT,
        "idle": sandbox_pb2.EXIT_REASON_IDLE_TIMED_OUT,
        "kill": sandbox_pb2.EXIT_REASON_KILLED,
        "disconnect": sandbox_pb2.EXIT_REASON_DISCONNECTED,
    }
    secs = 4000 + len(cause)
    box.start(cause, command=DOUBLE_FORK.format(secs=secs), **limits[cause])
    if cause == "kill":
        request = pb.KillProcessRequest(sandbox_id=box.id, process_id=cause)
        assert box.stub.KillProcess(request, timeout=SECS).process.state == process_pb2.PROCESS_STATE_EXITED
    elif cause == "disconnect":
        watching = box.attach(cause)
        next(watching)
        watching.cancel()
    until = time.monotonic() + SECS
    while box.get(cause).state != process_pb2.PROCESS_STATE_EXITED:
        assert time.monotonic() < until
        time.sleep(0.05)
    end = box.get(cause).exit
    assert (end.reason, end.signal) == (reasons[cause], 9)
    assert f"sleep {secs}" not in box.names()
    assert "Z" not in box.text("cat /proc/[0-9]*/stat | cut -d' ' -f3").split()


def test_reports_out_of_memory_as_the_exit_reason(module_client: SandboxClient, stub: ProcessServiceStub) -> None:
    box = Box(module_client, stub, PYTHON, memory_mb=64)
    box.start("eater", "python3", "-c", "x = bytearray(512 * 1024 * 1024)")
    seen = box.seen("eater")
    assert seen.end is not None
    assert seen.end.reason == sandbox_pb2.EXIT_REASON_OOM_KILLED


def test_resumes_output_after_the_server_was_killed(tmp_path: Path) -> None:
    """Row 21: a client that reconnects with its offsets after restarts of the server loses no output."""
    lines = 400
    command = f"i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.01; done"
    with ServerProcess(tmp_path / "data") as server:
        with SandboxClient(server.address) as client:
            sandbox_id = client.create(image=BUSYBOX).sandbox_id
        seen = Seen()
        for attempt in range(3):
            with grpc.insecure_channel(server.address) as channel:
                stub = ProcessServiceStub(channel)
                request = pb.StartProcessRequest(sandbox_id=sandbox_id, process_id="long", command=command)
                stub.StartProcess(request, timeout=SECS, wait_for_ready=True)
                attach = pb.AttachProcessRequest(
                    sandbox_id=sandbox_id,
                    process_id="long",
                    stdout_offset=len(seen.stdout),
                    stderr_offset=len(seen.stderr),
                )
                enough = (attempt + 1) * 100
                with contextlib.suppress(grpc.RpcError):
                    for response in stub.AttachProcess(attach, timeout=SECS):
                        seen.take(response.event)
                        if attempt < 2 and seen.stdout.count(b"\n") >= enough:
                            server.kill()
            if attempt < 2:
                server.start()
        assert seen.stdout.decode().splitlines() == [f"line {i + 1}" for i in range(lines)]
        assert seen.stderr.decode().splitlines() == [f"error {i + 1}" for i in range(lines)]
        assert seen.end is not None
        assert seen.end.exit_code == 0


def test_stream_ends_with_its_sandbox(module_client: SandboxClient, stub: ProcessServiceStub) -> None:
    """Row 21: the stream ends with an error that reports the state of the sandbox."""
    box = Box(module_client, stub, BUSYBOX)
    box.start("long", "sleep", "4711")
    watching = box.attach("long")
    next(watching)
    threading.Timer(0.1, lambda: module_client.delete_sandbox(box.id)).start()
    with pytest.raises(grpc.RpcError) as terminated:
        list(watching)
    assert terminated.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(grpc.RpcError) as after:
        box.get("long")
    assert after.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_stalled_reader_stops_the_process_and_uses_bounded_memory(server: ServerProcess, busybox: Box) -> None:
    """Row 21: a client reads one GiB of output late and receives all of it."""
    size = 1 << 30

    def resident() -> int:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) * 1024

    before = resident()
    busybox.start("flood", command=f"read go; head -c {size} /dev/zero", stdin=True)
    request = pb.AttachProcessRequest(sandbox_id=busybox.id, process_id="flood")
    watching = busybox.stub.AttachProcess(request, timeout=120)
    next(watching)
    busybox.write("flood", b"go\n")
    printed, last = 0, -1
    while printed != last:
        last = printed
        time.sleep(0.5)
        printed = busybox.get("flood").stdout.end_offset
    assert 0 < printed < 64 << 20, "the process continues although no client reads"
    received = 0
    for response in watching:
        if response.event.HasField("output"):
            assert response.event.output.offset == received
            received += len(response.event.output.data)
        assert not response.event.HasField("gap")
    assert received == size
    assert resident() - before < 64 << 20


def test_serves_two_hundred_concurrent_streams(busybox: Box) -> None:
    busybox.start("slow", command="read go; echo done", stdin=True)
    streams = [busybox.attach("slow") for _ in range(200)]
    for stream in streams:
        assert next(stream).event.HasField("process")
    busybox.write("slow", b"go\n")
    for stream in streams:
        seen = Seen()
        for response in stream:
            seen.take(response.event)
        assert (seen.stdout, seen.end is not None) == (b"done\n", True)


def test_lists_processes_page_by_page(box: Box) -> None:
    for number in range(3):
        box.start(f"listed-{number}", "sleep", "4711")
    running = [process_pb2.PROCESS_STATE_RUNNING]
    ids, token = [], ""
    while True:
        request = pb.ListProcessesRequest(sandbox_id=box.id, page_size=2, page_token=token, states=running)
        page = box.stub.ListProcesses(request, timeout=SECS)
        ids += [process.process_id for process in page.processes]
        token = page.next_page_token
        if not token:
            break
    assert [name for name in ids if name.startswith("listed-")] == ["listed-0", "listed-1", "listed-2"]
    for number in range(3):
        box.stub.KillProcess(pb.KillProcessRequest(sandbox_id=box.id, process_id=f"listed-{number}"))


def test_reports_output_that_is_no_longer_buffered_as_a_gap(box: Box) -> None:
    box.start("much", command="head -c 100000 /dev/zero; printf end", output_buffer_bytes=4096)
    box.seen("much", stdout_offset=-1)
    seen = box.seen("much")
    ((begin, end),) = seen.gaps
    assert (begin, end + len(seen.stdout)) == (0, 100_003)
    assert seen.stdout.endswith(b"end")
    buffered = box.get("much").stdout
    assert (buffered.start_offset, buffered.end_offset) == (end, 100_003)


def test_sends_keep_alives_on_an_idle_stream(box: Box) -> None:
    """Row 21: a client can distinguish an idle stream from a broken one."""
    box.start("quiet", "sleep", "4711")
    watching = box.attach("quiet", keep_alive_interval=seconds(0.1))
    kinds = [next(watching).event.WhichOneof("event") for _ in range(4)]
    watching.cancel()
    assert kinds == ["process", "keep_alive", "keep_alive", "keep_alive"]


def test_overflow_wait_loses_no_output_without_an_attached_client(box: Box) -> None:
    size = 5 << 20
    box.start("waits", command=f"head -c {size} /dev/zero; printf end", output_overflow=pb.OUTPUT_OVERFLOW_WAIT)
    seen = box.seen("waits")
    assert (len(seen.stdout), seen.gaps) == (size + 3, [])


def test_removes_a_process_record_after_its_ttl(box: Box) -> None:
    box.start("short", "true", retention=seconds(0.2))
    box.seen("short")
    with pytest.raises(grpc.RpcError) as missing:
        list(iter(lambda: box.get("short").process_id, ""))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_in_an_image_of_one_static_binary(
    module_client: SandboxClient, stub: ProcessServiceStub, bare_image: str
) -> None:
    box = Box(module_client, stub, bare_image)
    with pytest.raises(grpc.RpcError, match="argv") as no_shell:
        box.start("shell", command="true")
    assert no_shell.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    box.start("echo", "/busybox", "echo", "hello")
    assert box.seen("echo").stdout == b"hello\n"
    box.start("cat", "/busybox", "cat", stdin=True)
    box.write("cat", b"there", close=True)
    assert box.seen("cat").stdout == b"there"
    box.start("late", "/busybox", "sh", "-c", BARE_FORK.format(secs=4101), timeout=seconds(0.5))
    box.start("left", "/busybox", "sh", "-c", BARE_FORK.format(secs=4102), idle_timeout=seconds(0.5))
    box.start("killed", "/busybox", "sh", "-c", BARE_FORK.format(secs=4103))
    box.stub.KillProcess(pb.KillProcessRequest(sandbox_id=box.id, process_id="killed"), timeout=SECS)
    for process_id, reason in (
        ("late", sandbox_pb2.EXIT_REASON_TIMED_OUT),
        ("left", sandbox_pb2.EXIT_REASON_IDLE_TIMED_OUT),
        ("killed", sandbox_pb2.EXIT_REASON_KILLED),
    ):
        until = time.monotonic() + SECS
        while box.get(process_id).state != process_pb2.PROCESS_STATE_EXITED:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert box.get(process_id).exit.reason == reason
    box.start("ps", "/busybox", "ps", "-o", "stat,args")
    assert b"sleep" not in box.seen("ps").stdout
    box.start("much", "/busybox", "head", "-c", "100000", "/dev/zero", output_buffer_bytes=4096)
    box.seen("much", stdout_offset=-1)
    ((begin, end),) = box.seen("much").gaps
    assert (begin, end) == (0, box.get("much").stdout.start_offset)
    size = process_pb2.TerminalSize(rows=5, cols=7)
    box.start("tty", "/busybox", "stty", "size", terminal=size)
    assert box.seen("tty").stdout == b"5 7\r\n"
