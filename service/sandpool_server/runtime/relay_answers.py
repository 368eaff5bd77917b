"""What an answer of an agent must look like to be passed on. An agent may have been replaced by hostile code.

A message is as large as its channel takes at most; here is what else the contract promises to callers.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import file_service_pb2, monitor_service_pb2, port_service_pb2, process_pb2, process_service_pb2
from sandpool_server.runtime.agent_messages import nonsense

_MAX_COUNT: Final = 2**62
_MAX_OUTPUT: Final = 64 * 1024
_MAX_DATA: Final = 1024 * 1024
_KEEP_ALIVE_SECS: Final = 15.0
"""How often an agent sends something on streams on which nothing happens."""
_MISSED: Final = 3
_GRACE_SECS: Final = 10.0
_SILENCE_SECS: Final = 120.0
"""How long an agent may take for the next part of a file, a folder or a list."""

_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799
"""The first and the last second of the years that a Timestamp has."""
_LONGEST_SECS = 315576000000
_NANOS = 1_000_000_000


def check_answer(answer: Message) -> None:
    """Return if an honest agent could have said this. Raises `Unavailable`."""
    special = _SPECIAL.get(type(answer))
    # What carries most of the bytes has nothing else to be checked.
    if special is None or not special(answer):
        _check_values(answer)


def silence_limit(request: Any) -> float | None:
    """Seconds without an answer after which the agent is given up; `request` is the first of the call.

    A tunnel may be silent as long as its two ends like.
    """
    if isinstance(request, port_service_pb2.OpenTunnelRequest):
        return None
    if isinstance(request, process_service_pb2.AttachProcessRequest):
        keep_alive = request.keep_alive_secs if request.HasField("keep_alive_secs") else _KEEP_ALIVE_SECS
        return _MISSED * keep_alive + _GRACE_SECS
    if isinstance(request, process_service_pb2.ConnectProcessRequest):
        return silence_limit(request.attach)
    if isinstance(request, monitor_service_pb2.WatchStatsRequest):
        interval = request.interval_secs if request.HasField("interval_secs") else 1.0
        return _MISSED * interval + _GRACE_SECS
    return _SILENCE_SECS


def _event(answer: Any) -> bool:
    """A process's event; true for output that is in order."""
    which = answer.event.WhichOneof("event")
    if which is None:
        raise nonsense()
    if which != "output":
        return False
    output = answer.event.output
    if not output.data or len(output.data) > _MAX_OUTPUT or not 0 <= output.offset <= _MAX_COUNT:
        raise nonsense()
    if output.stream not in (process_pb2.OUTPUT_STREAM_STDOUT, process_pb2.OUTPUT_STREAM_STDERR):
        raise nonsense()
    return True


def _part(most: int) -> Callable[[Any], bool]:
    def check(answer: Any) -> bool:
        which = answer.WhichOneof("part")
        if which is None or len(answer.data) > most:
            raise nonsense()
        return bool(which == "data")

    return check


def _archive(answer: Any) -> bool:
    if len(answer.data) > _MAX_DATA:
        raise nonsense()
    return True


_SPECIAL: Final[dict[type[Message], Callable[[Any], bool]]] = {
    process_service_pb2.AttachProcessResponse: _event,
    process_service_pb2.ConnectProcessResponse: _event,
    file_service_pb2.ReadFileResponse: _part(_MAX_DATA),
    file_service_pb2.DownloadFolderResponse: _archive,
    port_service_pb2.OpenTunnelResponse: _part(_MAX_OUTPUT),
}


def _check_values(message: Message) -> None:
    """Refuse counts that are none and times that no clock has, at any depth: clients and JSON would choke on them."""
    if isinstance(message, Timestamp):
        if not (_FIRST_SECOND <= message.seconds <= _LAST_SECOND and 0 <= message.nanos < _NANOS):
            raise nonsense()
        return
    if isinstance(message, Duration):
        if not (0 <= message.seconds <= _LONGEST_SECS and 0 <= message.nanos < _NANOS):
            raise nonsense()
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                _check_values(one)
        elif field.type == FieldDescriptor.TYPE_INT64 and not 0 <= value <= _MAX_COUNT:
            raise nonsense()
