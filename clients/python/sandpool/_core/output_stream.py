"""The output of a process, read over any number of connections."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any, Final

from sandpool._core import convert_sandbox_io, processes
from sandpool._core.call import Call
from sandpool._core.resumption import RESUME_TIMEOUT, resume_pause
from sandpool._core.retry import RetryPolicy
from sandpool._core.sandboxes import COMMAND_MARGIN
from sandpool._models.enums import OutputStream
from sandpool._models.process import OutputChunk, ProcessExit, ProcessInfo
from sandpool._models.sandbox import CommandResult
from sandpool.errors import ServerError
from sandpool.v1 import process_pb2, process_service_pb2

RESULT_BYTES: Final = 64 * 1024 * 1024
"""The maximum size of each stream in a result. Further bytes are counted and dropped."""
_MARGIN: Final = RESUME_TIMEOUT + COMMAND_MARGIN
"""The time after a command's timeout within which the result must arrive, in seconds: a broken connection, and the time
that the server needs to kill the command."""
_LEAST_SECONDS: Final = 10.0
_FROM_NOW: Final = -1
"""The offset that requests only output that the process writes from now on."""


class _StreamReader:
    """One output stream: its position, the bytes for the result, and an incomplete character."""

    def __init__(self, stream: OutputStream, offset: int, result_bytes: int) -> None:
        self.stream = stream
        self.offset = offset
        self.dropped = 0
        self.pending_gap = 0
        """The number of missing bytes that the next chunk reports."""
        self._limit = result_bytes
        self._size = 0
        self._parts: list[bytes] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, offset: int, data: bytes) -> OutputChunk | None:
        """Return the chunk for received bytes, or None if all of them were received before."""
        if self.offset == _FROM_NOW:
            self.offset = offset
        if offset < self.offset:  # The attach started at an earlier offset: skip the bytes that are known.
            data, offset = data[self.offset - offset :], self.offset
        if not data:
            return None
        self.offset = offset + len(data)
        room = max(0, self._limit - self._size)
        self.dropped += max(0, len(data) - room)
        if room:
            self._parts.append(data[:room])
            self._size += min(room, len(data))
        gap, self.pending_gap = self.pending_gap, 0
        return OutputChunk(self.stream, self._decoder.decode(data), offset, data, gap)

    def skip(self, start: int, end: int) -> None:
        """Skip bytes that are no longer buffered."""
        missing = max(0, end - max(start, self.offset)) if self.offset != _FROM_NOW else 0
        self._decoder.reset()
        self.offset = max(self.offset, end)
        self.dropped += missing
        self.pending_gap += missing

    def finish(self) -> OutputChunk | None:
        """Return the chunk for the end of the stream: an incomplete character, or a gap that no output followed."""
        rest = self._decoder.decode(b"", final=True)
        gap, self.pending_gap = self.pending_gap, 0
        return OutputChunk(self.stream, rest, self.offset, dropped_bytes=gap) if rest or gap else None

    def content(self) -> bytes:
        """Return the bytes for the result."""
        return b"".join(self._parts)


class OutputReader:
    """Reads the output of one process until it exits.

    With `start`, the first connection starts the process. If that connection breaks before a response arrives, the next
    one sends the same request: the process has an identifier, so it starts once. Later connections attach at the
    offsets that were reached.
    """

    def __init__(
        self,
        sandbox_id: str,
        process_id: str,
        clock: Callable[[], float],
        *,
        start: process_service_pb2.StartProcessRequest | None = None,
        stdout_offset: int = 0,
        stderr_offset: int = 0,
        result_bytes: int = RESULT_BYTES,
        command_timeout: float | None = None,
    ) -> None:
        self.sandbox_id = sandbox_id
        self.process_id = process_id
        self.process: ProcessInfo | None = None
        self.exit: ProcessExit | None = None
        self._start = start
        self._streams = {
            OutputStream.STDOUT: _StreamReader(OutputStream.STDOUT, stdout_offset, result_bytes),
            OutputStream.STDERR: _StreamReader(OutputStream.STDERR, stderr_offset, result_bytes),
        }
        self._failures = 0
        self._last_progress: float | None = None
        self._clock = clock
        self._command_timeout = command_timeout
        self._received_output = False
        self._start_time = clock()
        self._duration = 0.0

    @property
    def stdout_offset(self) -> int:
        """The offset of the next byte of standard output."""
        return self._streams[OutputStream.STDOUT].offset

    @property
    def stderr_offset(self) -> int:
        """The offset of the next byte of standard error."""
        return self._streams[OutputStream.STDERR].offset

    def call(self) -> Call[Any, process_pb2.ProcessEvent]:
        """Return the call that continues the output. With a command timeout, the call has a time limit."""
        limit, timeout = self._command_timeout, None
        if limit is not None:
            timeout = max(self._start_time + limit + _MARGIN - self._clock(), _LEAST_SECONDS)
        self._received_output = False
        if self._start is not None and self.process is None:
            return processes.connect_process(self._start, timeout, limit)
        request = process_service_pb2.AttachProcessRequest(
            sandbox_id=self.sandbox_id,
            process_id=self.process_id,
            stdout_offset=self.stdout_offset,
            stderr_offset=self.stderr_offset,
        )
        return processes.attach_process(request, timeout, limit)

    def received_output(self) -> bool:
        """Return whether the last call received output. If so, its timeout only shows that a callback is slow."""
        return self._received_output

    def take(self, event: process_pb2.ProcessEvent) -> Iterator[OutputChunk]:
        """Return the chunks of an event."""
        self._failures, self._last_progress = 0, None
        kind = event.WhichOneof("event")
        if kind == "process":
            self.process = convert_sandbox_io.process(event.process)
            # An attach from now on starts at the current end, also if this connection breaks.
            for stream, buffer in (
                (OutputStream.STDOUT, self.process.stdout),
                (OutputStream.STDERR, self.process.stderr),
            ):
                if self._streams[stream].offset == _FROM_NOW:
                    self._streams[stream].offset = buffer.end_offset
        elif kind == "output":
            yield from self._output(event.output)
        elif kind == "gap":
            self._stream(event.gap.stream).skip(event.gap.start_offset, event.gap.end_offset)
        elif kind == "exited":
            self.exit = convert_sandbox_io.process_exit(event.exited)
            self._duration = self._clock() - self._start_time
            for reader in self._streams.values():
                rest = reader.finish()
                if rest is not None:
                    yield rest

    def _output(self, output: process_pb2.ProcessOutput) -> Iterator[OutputChunk]:
        stream = self._stream(output.stream)
        if 0 <= stream.offset < output.offset:  # A gap that the server did not report is reported too.
            stream.skip(stream.offset, output.offset)
        self._received_output = True
        chunk = stream.take(output.offset, output.data)
        if chunk is not None:
            yield chunk

    def _stream(self, number: int) -> _StreamReader:
        found = self._streams.get(convert_sandbox_io.output_stream(number))
        if found is None:
            raise ServerError(f"the server sent output of the unknown stream {number}; update the sandpool package")
        return found

    def pause(self, retry: RetryPolicy, retry_after: float | None) -> float | None:
        """Return the delay before the next connection in seconds, or None to give up."""
        now = self._clock()
        if self._last_progress is None:
            self._last_progress = now
        self._failures += 1
        remaining = self._last_progress + RESUME_TIMEOUT - now
        return resume_pause(retry, self._failures, remaining, retry_after, self.process is not None)

    def result(self) -> CommandResult:
        """Return the result of the process. Raise ValueError before it has exited."""
        if self.exit is None:
            raise ValueError(f"process {self.process_id} has not exited")
        out, err = self._streams[OutputStream.STDOUT], self._streams[OutputStream.STDERR]
        started = self.process.start_time if self.process else None
        ended = self.process.end_time if self.process else None
        known = (ended - started).total_seconds() if started is not None and ended is not None else None
        return CommandResult(
            stdout=out.content().decode("utf-8", "replace"),
            stderr=err.content().decode("utf-8", "replace"),
            stdout_bytes=out.content(),
            stderr_bytes=err.content(),
            exit_code=self.exit.exit_code,
            signal=self.exit.signal,
            reason=self.exit.reason,
            duration=known if known is not None else self._duration,
            stdout_dropped_bytes=out.dropped,
            stderr_dropped_bytes=err.dropped,
        )
