"""A process as a client sees it that follows it over any number of connections: what came, and where to go on."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from sandpool._core import convert_inside, processes
from sandpool._core.call import Call
from sandpool._core.enums import OutputStream
from sandpool._core.inside import OutputChunk, ProcessEnd, ProcessInfo
from sandpool._core.model import CommandResult
from sandpool._core.retry import RetryPolicy
from sandpool.errors import RemoteAPIError
from sandpool.v1 import process_pb2, process_service_pb2

KEPT_BYTES: Final = 64 * 1024 * 1024
"""How much of each stream a result holds; what is beyond that is counted and dropped."""
PATIENCE_SECS: Final = 60.0
"""How long a process that ran is looked for again and again while nothing answers."""
_MARGIN_SECS: Final = PATIENCE_SECS + 10.0
"""What may pass beyond a command's own timeout until its end must have come: a broken connection, its killing."""
_LEAST_SECS: Final = 10.0
_LATEST: Final = -1
"""The offset that means: what is printed from now on."""


class _Tail:
    """One stream of output: where it is, what was kept of it, and the character that is not whole yet."""

    def __init__(self, stream: OutputStream, offset: int, most: int) -> None:
        self.stream = stream
        self.offset = offset
        self.dropped = 0
        self._most = most
        self._size = 0
        self._parts: list[bytes] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, offset: int, data: bytes, lost: int) -> OutputChunk | None:
        """The chunk of an output's bytes; None where all of them came before."""
        if self.offset == _LATEST:
            self.offset = offset
        if offset < self.offset:  # an answer to an attach that began before: take what is new of it
            data, offset = data[self.offset - offset :], self.offset
        if not data:
            return None
        self.offset = offset + len(data)
        room = max(0, self._most - self._size)
        self.dropped += max(0, len(data) - room)
        if room:
            self._parts.append(data[:room])
            self._size += min(room, len(data))
        return OutputChunk(self.stream, self._decoder.decode(data), offset, data, lost)

    def skip(self, begin: int, end: int) -> int:
        """Go over bytes that cannot be had any more; gives how many."""
        lost = end - max(begin, self.offset) if self.offset != _LATEST else 0
        self._decoder.reset()
        self.offset = max(self.offset, end)
        self.dropped += max(0, lost)
        return max(0, lost)

    def finish(self) -> OutputChunk | None:
        """What is left of a character that was cut for good."""
        rest = self._decoder.decode(b"", final=True)
        return OutputChunk(self.stream, rest, self.offset) if rest else None

    def kept(self) -> bytes:
        """What was kept."""
        return b"".join(self._parts)


class Following:
    """Follows one process.

    With `start` the first connection starts it, and so does the next if that one broke before anything came: the
    process has an identifier, so it is started once. Later connections attach at the offsets that were reached.
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
        kept_bytes: int = KEPT_BYTES,
        command_timeout: float | None = None,
    ) -> None:
        self.sandbox_id = sandbox_id
        self.process_id = process_id
        self.process: ProcessInfo | None = None
        self.end: ProcessEnd | None = None
        self._start = start
        self._tails = {
            OutputStream.STDOUT: _Tail(OutputStream.STDOUT, stdout_offset, kept_bytes),
            OutputStream.STDERR: _Tail(OutputStream.STDERR, stderr_offset, kept_bytes),
        }
        self._lost = {OutputStream.STDOUT: 0, OutputStream.STDERR: 0}
        self._failures = 0
        self._silent_since: float | None = None
        self._clock = clock
        self._command_timeout = command_timeout
        self._brought = False
        self._began = clock()
        self._duration = 0.0

    @property
    def stdout_offset(self) -> int:
        """Where standard output goes on."""
        return self._tails[OutputStream.STDOUT].offset

    @property
    def stderr_offset(self) -> int:
        """Where standard error goes on."""
        return self._tails[OutputStream.STDERR].offset

    def call(self) -> Call[Any, process_pb2.ProcessEvent]:
        """The call that goes on. Where the command has a timeout, its end is not waited for much longer than that."""
        limit, timeout = self._command_timeout, None
        if limit is not None:
            timeout = max(self._began + limit + _MARGIN_SECS - self._clock(), _LEAST_SECS)
        self._brought = False
        if self._start is not None and self.process is None:
            return processes.connect_process(self._start, timeout, limit)
        request = process_service_pb2.AttachProcessRequest(
            sandbox_id=self.sandbox_id,
            process_id=self.process_id,
            stdout_offset=self.stdout_offset,
            stderr_offset=self.stderr_offset,
        )
        return processes.attach_process(request, timeout, limit)

    def goes_on(self) -> bool:
        """Whether the last call brought output, so that its timeout means no more than that a listener is slow."""
        return self._brought

    def take(self, event: process_pb2.ProcessEvent) -> Iterator[OutputChunk]:
        """What an event brings."""
        self._failures, self._silent_since = 0, None
        kind = event.WhichOneof("event")
        if kind == "process":
            self.process = convert_inside.process(event.process)
            # What was printed before an attach at "from now on" is behind us, also when this connection breaks.
            for stream, kept in (
                (OutputStream.STDOUT, self.process.stdout),
                (OutputStream.STDERR, self.process.stderr),
            ):
                if self._tails[stream].offset == _LATEST:
                    self._tails[stream].offset = kept.end
        elif kind == "output":
            yield from self._output(event.output)
        elif kind == "gap":
            tail = self._tail(event.gap.stream)
            self._lost[tail.stream] += tail.skip(event.gap.begin, event.gap.end)
        elif kind == "ended":
            self.end = convert_inside.process_end(event.ended)
            self._duration = self._clock() - self._began
            for tail in self._tails.values():
                rest = tail.finish()
                if rest is not None:
                    yield rest

    def _output(self, output: process_pb2.ProcessOutput) -> Iterator[OutputChunk]:
        tail = self._tail(output.stream)
        if 0 <= tail.offset < output.offset:  # a gap that nobody told: it is not hidden either
            self._lost[tail.stream] += tail.skip(tail.offset, output.offset)
        self._brought = True
        chunk = tail.take(output.offset, output.data, self._lost[tail.stream])
        if chunk is not None:
            self._lost[tail.stream] = 0
            yield chunk

    def _tail(self, stream: int) -> _Tail:
        found = self._tails.get(convert_inside.output_stream(stream))
        if found is None:
            raise RemoteAPIError(f"the server sent output of a stream that this client does not know ({stream})")
        return found

    def pause(self, retry: RetryPolicy, retry_after: float | None) -> float | None:
        """Seconds to wait before the next connection after one broke; None when it is time to give up."""
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        self._failures += 1
        if self.process is None or retry.max_attempts == 1:
            return retry.pause(self._failures, PATIENCE_SECS, retry_after)
        left = self._silent_since + PATIENCE_SECS - now
        # The policy's bound on attempts is for single calls: a process that runs is worth more patience.
        return retry.pause(min(self._failures, retry.max_attempts - 1), left, retry_after)

    def result(self) -> CommandResult:
        """How it ended and what it printed since it was followed. Raises ValueError before its end."""
        if self.end is None:
            raise ValueError("it has not ended")
        out, err = self._tails[OutputStream.STDOUT], self._tails[OutputStream.STDERR]
        started = self.process.start_time if self.process else None
        ended = self.process.end_time if self.process else None
        known = ended - started if started is not None and ended is not None else None
        return CommandResult(
            stdout=out.kept().decode("utf-8", "replace"),
            stderr=err.kept().decode("utf-8", "replace"),
            stdout_bytes=out.kept(),
            stderr_bytes=err.kept(),
            exit_code=self.end.exit_code,
            signal=self.end.signal,
            reason=self.end.reason,
            duration=known if known is not None else timedelta(seconds=self._duration),
            stdout_dropped_bytes=out.dropped,
            stderr_dropped_bytes=err.dropped,
        )
