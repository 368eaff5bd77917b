"""Validation of an agent's responses before the server passes them on. Hostile code may have replaced the agent.

The channel limits the size of messages; this module checks the other guarantees of the contract.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import file_service_pb2, monitor_service_pb2, port_service_pb2, process_pb2, process_service_pb2
from sandpool_server.runtime.agent_messages import invalid_response

_MAX_COUNT: Final = 2**62
_MAX_OUTPUT: Final = 64 * 1024
_MAX_DATA: Final = 1024 * 1024
_KEEP_ALIVE_SECS: Final = 15.0
"""Interval at which an agent sends keep-alive messages on idle streams."""
_MISSED: Final = 3
_GRACE_SECS: Final = 10.0
_SILENCE_SECS: Final = 120.0
"""Maximum time between two parts of a file, a directory or a list."""

_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799
"""The first and the last second of a valid Timestamp."""
_LONGEST_SECS = 315576000000
_NANOS = 1_000_000_000


def check_response(response: Message) -> None:
    """Check that a response conforms to the contract. Raises `Unavailable` if it does not."""
    special = _SPECIAL.get(type(response))
    # Messages with bulk data need no further checks, which saves time.
    if special is None or not special(response):
        _check_values(response)


def silence_limit(request: Any) -> float | None:
    """Return the maximum time without a response in seconds, for a call with this first request.

    Returns None for a tunnel, which may be idle without a limit.
    """
    if isinstance(request, port_service_pb2.OpenTunnelRequest):
        return None
    if isinstance(request, process_service_pb2.AttachProcessRequest):
        keep_alive = (
            _seconds(request.keep_alive_interval) if request.HasField("keep_alive_interval") else _KEEP_ALIVE_SECS
        )
        return _MISSED * keep_alive + _GRACE_SECS
    if isinstance(request, process_service_pb2.ConnectProcessRequest):
        return silence_limit(request.attach)
    if isinstance(request, monitor_service_pb2.WatchMetricsRequest):
        interval = _seconds(request.interval) if request.HasField("interval") else 1.0
        return _MISSED * interval + _GRACE_SECS
    return _SILENCE_SECS


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / _NANOS


def _check_event(response: Any) -> bool:
    """Check the event of a process. Returns whether it is output, which needs no further checks."""
    which = response.event.WhichOneof("event")
    if which is None:
        raise invalid_response()
    if which != "output":
        return False
    output = response.event.output
    if not output.data or len(output.data) > _MAX_OUTPUT or not 0 <= output.offset <= _MAX_COUNT:
        raise invalid_response()
    if output.stream not in (process_pb2.OUTPUT_STREAM_STDOUT, process_pb2.OUTPUT_STREAM_STDERR):
        raise invalid_response()
    return True


def _check_part(max_bytes: int) -> Callable[[Any], bool]:
    def check(response: Any) -> bool:
        which = response.WhichOneof("part")
        if which is None or len(response.data) > max_bytes:
            raise invalid_response()
        return bool(which == "data")

    return check


def _check_archive(response: Any) -> bool:
    if len(response.data) > _MAX_DATA:
        raise invalid_response()
    return True


_SPECIAL: Final[dict[type[Message], Callable[[Any], bool]]] = {
    process_service_pb2.AttachProcessResponse: _check_event,
    process_service_pb2.ConnectProcessResponse: _check_event,
    file_service_pb2.ReadFileResponse: _check_part(_MAX_DATA),
    file_service_pb2.DownloadDirectoryResponse: _check_archive,
    port_service_pb2.OpenTunnelResponse: _check_part(_MAX_OUTPUT),
}


def _check_values(message: Message) -> None:
    """Reject invalid numbers, timestamps and durations at any depth, because clients and JSON cannot represent them."""
    if isinstance(message, Timestamp):
        if not (_FIRST_SECOND <= message.seconds <= _LAST_SECOND and 0 <= message.nanos < _NANOS):
            raise invalid_response()
        return
    if isinstance(message, Duration):
        if not (0 <= message.seconds <= _LONGEST_SECS and 0 <= message.nanos < _NANOS):
            raise invalid_response()
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                _check_values(one)
        elif field.type == FieldDescriptor.TYPE_INT64 and not 0 <= value <= _MAX_COUNT:
            raise invalid_response()
