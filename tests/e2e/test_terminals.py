"""Shells on terminals in containers. The tests type input and read the screen."""

import queue
from collections.abc import Iterator

import grpc
import pytest

from sandpool import SandboxClient
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub
from tests.support.process_box import Box
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

SECS = 60.0
PROMPT = "@> "
CTRL_C, CTRL_D, CTRL_Z = b"\x03", b"\x04", b"\x1a"


class Screen:
    """An open terminal."""

    def __init__(self, stub: ProcessServiceStub, first: pb.ConnectProcessRequest) -> None:
        self._requests: queue.SimpleQueue[pb.ConnectProcessRequest | None] = queue.SimpleQueue()
        self._requests.put(first)
        self._responses = stub.ConnectProcess(iter(self._requests.get, None), timeout=SECS)
        self.text = ""
        self.offset = 0
        self.end: process_pb2.ProcessExit | None = None

    def send(self, **fields: object) -> None:
        self._requests.put(pb.ConnectProcessRequest(**fields))

    def type(self, keys: bytes) -> None:
        self.send(input=pb.ProcessInput(data=keys))

    def read(self) -> bool:
        """Read the next event. Return false after the last one."""
        for response in self._responses:
            which = response.event.WhichOneof("event")
            if which == "output":
                self.text += response.event.output.data.decode()
                self.offset = response.event.output.offset + len(response.event.output.data)
            elif which == "exited":
                self.end = response.event.exited
            return True
        return False

    def until(self, text: str) -> str:
        """Wait for a text on the screen. Return the screen and clear it."""
        while text not in self.text:
            assert self.read(), f"{text!r} did not appear: {self.text!r}"
        seen, self.text = self.text, ""
        return seen

    def exited(self) -> process_pb2.ProcessExit:
        while self.end is None:
            assert self.read(), self.text
        return self.end

    def disconnect(self) -> None:
        self._responses.cancel()
        self._requests.put(None)


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[ProcessServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ProcessServiceStub(channel)


@pytest.fixture(scope="module")
def debian(server: ServerProcess, stub: ProcessServiceStub) -> Iterator[Box]:
    with SandboxClient(server.address) as client:
        yield Box(client, stub, "python:3.11-slim")


def shell(box: Box, process_id: str, *argv: str) -> Screen:
    size = process_pb2.TerminalSize(rows=24, cols=80)
    request = pb.StartProcessRequest(
        sandbox_id=box.id, process_id=process_id, argv=argv, env={"PS1": PROMPT}, terminal=size
    )
    return Screen(box.stub, pb.ConnectProcessRequest(start=request))


def test_shell_has_a_terminal_with_job_control(debian: Box) -> None:
    screen = shell(debian, "bash", "bash", "--norc", "--noprofile")
    screen.until(PROMPT)
    screen.type(b"stty size; echo $TERM; tty\n")
    seen = screen.until("/dev/pts/")
    assert "24 80\r\n" in seen
    assert "xterm-256color" in seen
    screen.send(resize=process_pb2.TerminalSize(rows=50, cols=132))
    screen.type(b"stty size\n")
    screen.until("50 132\r\n")

    # The output of the command, not the echo of the input, shows that the command has the terminal.
    screen.type(b"sh -c 'echo be\"\"gun; exec sleep 4711'\n")
    screen.until("begun\r\n")
    screen.type(CTRL_C)
    screen.until(PROMPT)
    screen.type(b"echo code $?\n")
    screen.until("code 130\r\n")

    screen.type(b"sh -c 'echo be\"\"gun; exec sleep 4712'\n")
    screen.until("begun\r\n")
    screen.type(CTRL_Z)
    screen.until("Stopped")
    screen.type(b"bg; jobs\n")
    screen.until("Running")
    screen.type(b"fg\n")
    screen.until("sleep 4712")
    screen.type(CTRL_C)
    screen.until(PROMPT)

    screen.type(CTRL_D)
    assert screen.exited().exit_code == 130
    assert "sleep 471" not in debian.names()


def test_resumes_a_terminal_after_a_disconnect(debian: Box) -> None:
    first = shell(debian, "resumed", "bash", "--norc", "--noprofile")
    first.until(PROMPT)
    first.type(b'x=secret-of-this-shell; echo se""t\n')
    first.until("set\r\n")
    first.disconnect()
    attach = pb.AttachProcessRequest(sandbox_id=debian.id, process_id="resumed", stdout_offset=first.offset)
    second = Screen(debian.stub, pb.ConnectProcessRequest(attach=attach))
    second.type(b"echo $x\n")
    second.until("secret-of-this-shell\r\n")
    second.send(signal=1)
    assert second.exited().signal == 1


def test_terminal_belongs_to_the_requested_user(server: ServerProcess, stub: ProcessServiceStub) -> None:
    with SandboxClient(server.address) as client:
        box = Box(client, stub, "busybox:latest")
        size = process_pb2.TerminalSize(rows=3, cols=4)
        request = pb.StartProcessRequest(
            sandbox_id=box.id, process_id="sh", argv=["sh"], user="1000:1000", env={"PS1": PROMPT}, terminal=size
        )
        screen = Screen(stub, pb.ConnectProcessRequest(start=request))
        screen.until(PROMPT)
        screen.type(b"id -u; stty size; echo ok > $(tty)\n")
        seen = screen.until(f"ok\r\n{PROMPT}")
        assert "1000\r\n3 4\r\n" in seen
        screen.send(input=pb.ProcessInput(close=True))
        assert screen.exited().exit_code == 0


def test_unexpected_message_ends_the_stream(debian: Box) -> None:
    screen = shell(debian, "wrong", "cat")
    screen.send(attach=pb.AttachProcessRequest(sandbox_id=debian.id, process_id="wrong"))
    with pytest.raises(grpc.RpcError, match="first message only") as refused:
        screen.exited()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    no_first = Screen(debian.stub, pb.ConnectProcessRequest(signal=9))
    with pytest.raises(grpc.RpcError, match="start or attach") as refused:
        no_first.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
