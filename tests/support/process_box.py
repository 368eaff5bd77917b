"""A sandbox and its processes, called through the gRPC stubs, and the events that an attached client receives."""

from dataclasses import dataclass, field
from typing import Any

from sandpool import SandboxClient
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as pb
from sandpool_server.gen.v1.process_service_pb2_grpc import ProcessServiceStub

SECS = 30.0


@dataclass
class Seen:
    """The events that an attached client received."""

    stdout: bytes = b""
    stderr: bytes = b""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    end: process_pb2.ProcessExit | None = None
    records: list[process_pb2.Process] = field(default_factory=list)

    def take(self, event: process_pb2.ProcessEvent) -> None:
        which = event.WhichOneof("event")
        if which == "output":
            stream = "stdout" if event.output.stream == process_pb2.OUTPUT_STREAM_STDOUT else "stderr"
            setattr(self, stream, getattr(self, stream) + event.output.data)
        elif which == "gap":
            self.gaps.append((event.gap.start_offset, event.gap.end_offset))
        elif which == "process":
            self.records.append(event.process)
        elif which == "exited":
            self.end = event.exited


class Box:
    """A sandbox and its processes."""

    def __init__(self, client: SandboxClient, stub: ProcessServiceStub, image: str, **fields: Any) -> None:
        self.client = client
        self.stub = stub
        self.sandbox = client.create(image=image, **fields)
        self.id = self.sandbox.sandbox_id

    def start(self, process_id: str, *argv: str, command: str = "", **fields: Any) -> process_pb2.Process:
        request = pb.StartProcessRequest(
            sandbox_id=self.id, process_id=process_id, argv=argv, command=command, **fields
        )
        return self.stub.StartProcess(request, timeout=SECS).process

    def attach(self, process_id: str, **fields: Any) -> Any:
        request = pb.AttachProcessRequest(sandbox_id=self.id, process_id=process_id, **fields)
        return self.stub.AttachProcess(request, timeout=SECS)

    def seen(self, process_id: str, **fields: Any) -> Seen:
        """Attach to the process and return all events until it exits."""
        seen = Seen()
        for response in self.attach(process_id, **fields):
            seen.take(response.event)
        return seen

    def seen_so_far(self, process_id: str) -> str:
        """Return the output that the process has printed so far, as text. The process continues."""
        end_offset = self.get(process_id).stdout.end_offset
        printed = b""
        for response in self.attach(process_id):
            printed += response.event.output.data
            if len(printed) >= end_offset:
                break
        return printed.decode()

    def get(self, process_id: str) -> process_pb2.Process:
        return self.stub.GetProcess(pb.GetProcessRequest(sandbox_id=self.id, process_id=process_id)).process

    def write(self, process_id: str, data: bytes, **fields: Any) -> int:
        request = pb.WriteProcessInputRequest(
            sandbox_id=self.id, process_id=process_id, input=pb.ProcessInput(data=data, **fields)
        )
        return self.stub.WriteProcessInput(request, timeout=SECS).stdin_bytes

    def text(self, command: str) -> str:
        return self.sandbox.run(command).stdout

    def names(self) -> str:
        """Return the commands of all processes in the sandbox."""
        return self.text("ps -o args 2>/dev/null || cat /proc/[0-9]*/cmdline | tr '\\\\0' ' '")
