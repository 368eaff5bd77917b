"""ProcessService in memory: commands follow a script, their output is buffered, and a test breaks connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2 as rpc

from sandpool.v1 import process_pb2, process_service_pb2, sandbox_pb2
from sandpool_server.gen.v1 import process_service_pb2_grpc
from tests.clients.python.state import Failure, State, abort, not_found

OUT, ERR = process_pb2.OUTPUT_STREAM_STDOUT, process_pb2.OUTPUT_STREAM_STDERR
STDIN_CLOSED = rpc.ErrorInfo(reason="STDIN_CLOSED", domain="sandpool")
LOST = Failure(grpc.StatusCode.UNAVAILABLE, "connection cut")


@dataclass
class Script:
    """The output of a command in pieces, and its exit code. None: it exits when it is killed or its input is closed."""

    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    exit_code: int | None = 0
    gap: int = 0
    """The number of bytes at the start of standard output that are no longer buffered."""


@dataclass
class Entry:
    message: process_pb2.Process
    script: Script
    request: process_service_pb2.StartProcessRequest
    stdin: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)


class Processes(process_service_pb2_grpc.ProcessServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state
        self.scripts: dict[str, Script] = {}
        """By command line."""
        self.entries: dict[str, Entry] = {}
        self.cuts: list[int] = []
        """The number of events after which each next stream breaks."""
        self.quiet = False
        """Whether a broken stream ends without an error."""
        self.starts = 0

    def stop(self) -> None:
        """End the streams that wait for an exit: their threads delay the exit of this process."""
        for entry in self.entries.values():
            entry.ended.set()

    def _start(self, request: process_service_pb2.StartProcessRequest) -> Entry:
        found = self.entries.get(request.process_id)
        if found is not None:
            return found
        self.starts += 1
        script = self.scripts.get(request.command, Script())
        message = process_pb2.Process(
            process_id=request.process_id,
            name=request.service.name,
            state=process_pb2.PROCESS_STATE_RUNNING,
            pid=100 + self.starts,
            command=request.command,
            argv=request.argv,
            stdin_open=request.stdin,
            terminal=request.terminal if request.HasField("terminal") else None,
        )
        for stream, data in script.pieces:
            kept = message.stdout if stream == OUT else message.stderr
            kept.end_offset += len(data)
        message.stdout.start_offset = script.gap
        entry = self.entries[request.process_id] = Entry(message, script, request)
        if script.exit_code is not None:
            self._finish(entry, process_pb2.ProcessExit(exit_code=script.exit_code, reason="EXIT_REASON_EXITED"))
        return entry

    def _finish(self, entry: Entry, end: process_pb2.ProcessExit) -> None:
        if not entry.ended.is_set():
            entry.message.state = process_pb2.PROCESS_STATE_EXITED
            entry.message.exit.CopyFrom(end)
            entry.ended.set()

    def _entry(self, request: Any, context: grpc.ServicerContext) -> Entry:
        for entry in self.entries.values():
            if request.process_id in {entry.message.process_id, entry.message.name}:
                return entry
        abort(context, not_found("process", request.process_id))
        raise AssertionError

    def _events(self, entry: Entry, out: int, err: int) -> Iterator[process_pb2.ProcessEvent]:
        event = process_pb2.ProcessEvent
        yield event(process=entry.message)
        kept = entry.message
        places = {OUT: kept.stdout.end_offset if out < 0 else out, ERR: kept.stderr.end_offset if err < 0 else err}
        if places[OUT] < kept.stdout.start_offset:
            gap = process_pb2.OutputGap(stream=OUT, start_offset=places[OUT], end_offset=kept.stdout.start_offset)
            yield event(gap=gap)
            places[OUT] = kept.stdout.start_offset
        at = {OUT: 0, ERR: 0}
        for stream, data in entry.script.pieces:
            begin, at[stream] = at[stream], at[stream] + len(data)
            if at[stream] > places[stream]:
                skip = max(0, places[stream] - begin)
                output = process_pb2.ProcessOutput(stream=stream, offset=begin + skip, data=data[skip:])
                yield event(output=output)
        yield event(keep_alive=process_pb2.KeepAlive())
        if entry.ended.wait(20):
            yield event(exited=entry.message.exit)

    def _stream(
        self, events: Iterator[process_pb2.ProcessEvent], context: grpc.ServicerContext
    ) -> Iterator[process_pb2.ProcessEvent]:
        left = self.cuts.pop(0) if self.cuts else -1
        for item in events:
            if left == 0 and self.quiet:
                return
            if left == 0:
                abort(context, LOST)
            left -= 1
            yield item

    def StartProcess(self, request, context):
        def work():
            return process_service_pb2.StartProcessResponse(process=self._start(request).message)

        return self.state.respond("StartProcess", request, context, work)

    def ConnectProcess(self, requests, context):
        first = next(requests)
        self.state.respond("ConnectProcess", first, context, lambda: None)
        if self.cuts[:1] == [-1]:  # The connection breaks before the server receives the request.
            self.cuts.pop(0)
            abort(context, LOST)
        entry = self._start(first.start)
        for event in self._stream(self._events(entry, 0, 0), context):
            yield process_service_pb2.ConnectProcessResponse(event=event)

    def AttachProcess(self, request, context):
        self.state.respond("AttachProcess", request, context, lambda: None)
        entry = self._entry(request, context)
        for event in self._stream(self._events(entry, request.stdout_offset, request.stderr_offset), context):
            yield process_service_pb2.AttachProcessResponse(event=event)

    def WriteProcessInput(self, request, context):
        entry = self._entry(request, context)

        def work():
            if not (entry.message.stdin_open or entry.message.HasField("terminal")):
                abort(
                    context, Failure(grpc.StatusCode.FAILED_PRECONDITION, "standard input is closed", (STDIN_CLOSED,))
                )
            data = request.input.data
            if request.input.HasField("offset"):
                data = data[len(entry.stdin) - request.input.offset :]
            entry.stdin += data
            if request.input.close:
                entry.message.stdin_open = False
                end = process_pb2.ProcessExit(exit_code=len(entry.stdin) % 256, reason="EXIT_REASON_EXITED")
                self._finish(entry, end)
            return process_service_pb2.WriteProcessInputResponse(stdin_bytes=len(entry.stdin))

        return self.state.respond("WriteProcessInput", request, context, work)

    def ResizeProcess(self, request, context):
        entry = self._entry(request, context)

        def work():
            entry.message.terminal.CopyFrom(request.terminal)
            return process_service_pb2.ResizeProcessResponse()

        return self.state.respond("ResizeProcess", request, context, work)

    def SignalProcess(self, request, context):
        self._entry(request, context)
        return self.state.respond("SignalProcess", request, context, process_service_pb2.SignalProcessResponse)

    def KillProcess(self, request, context):
        entry = self._entry(request, context)

        def work():
            end = process_pb2.ProcessExit(signal=9, reason=sandbox_pb2.EXIT_REASON_KILLED)
            self._finish(entry, end)
            return process_service_pb2.KillProcessResponse(process=entry.message)

        return self.state.respond("KillProcess", request, context, work)

    def GetProcess(self, request, context):
        entry = self._entry(request, context)
        return self.state.respond(
            "GetProcess", request, context, lambda: process_service_pb2.GetProcessResponse(process=entry.message)
        )

    def ListProcesses(self, request, context):
        def work():
            found = [
                entry.message
                for entry in self.entries.values()
                if not request.states or entry.message.state in request.states
            ]
            start = int(request.page_token or 0)
            end = start + (request.page_size or 100)
            token = str(end) if end < len(found) else ""
            return process_service_pb2.ListProcessesResponse(processes=found[start:end], next_page_token=token)

        return self.state.respond("ListProcesses", request, context, work)

    def RestartProcess(self, request, context):
        entry = self._entry(request, context)

        def work():
            entry.message.restarts += 1
            return process_service_pb2.RestartProcessResponse(process=entry.message)

        return self.state.respond("RestartProcess", request, context, work)
