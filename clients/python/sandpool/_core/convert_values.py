"""Conversion of single values of messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool._models.enums import ApiEnum

EnumT = TypeVar("EnumT", bound=ApiEnum)

_NANOS = 1_000_000_000


def enum_value(kind: type[EnumT], name: Callable[[Any], str], prefix: str, number: int) -> EnumT:
    """Return the enum member for a number of the API, or UNKNOWN for a number that this version does not know."""
    try:
        return kind(name(number).removeprefix(prefix).lower())
    except ValueError:
        return kind("unknown")


def moment(message: Message, field: str) -> datetime | None:
    """Return a timestamp of a message in UTC, or None if it is absent."""
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(tzinfo=timezone.utc) if message.HasField(field) else None


def seconds(value: Duration) -> float:
    """Return a duration in seconds; an int if it is a whole number of seconds."""
    return value.seconds + value.nanos / _NANOS if value.nanos else value.seconds


def optional_seconds(message: Message, field: str) -> float | None:
    """Return a duration of a message in seconds, or None if it is absent."""
    return seconds(getattr(message, field)) if message.HasField(field) else None
