"""Every request against the rules written in the proto, before anything is done with it.

protovalidate looks at every item of a list that is too long, and a violation costs some 30 µs: one request of a few MiB
would hold the event loop for half a minute. So lengths are looked at first, and of a request with many items only the
first violation is told.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from sandpool_server.domain.errors import FieldViolation, InvalidArgument

_LONGEST_KEY = 64
"""How many characters of a map's key a path repeats: the path goes into the answer's headers."""


_MANY_ENTRIES = 1000
"""From how many items in all its lists and maps on a request's check ends at the first violation."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """A list or map of a request, and how long it may be."""

    path: str
    read: Callable[[Message], Sized]
    most: int


class RequestValidator:
    """Checks requests with protovalidate. Compiled rules are kept, so one of these serves all calls."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()
        self._bounds: dict[str, tuple[_Bound, ...]] = {}

    def warm(self, request_types: Iterable[type[Message]]) -> None:
        """Compile the rules of these types now (some 15 ms each) and not in the first call."""
        for request_type in request_types:
            self._validator.collect_violations(request_type())
            descriptor = cast(Descriptor, request_type.DESCRIPTOR)
            self._bounds[descriptor.full_name] = tuple(_bounds(descriptor))

    def check(self, request: Message) -> None:
        """Return if the request, of a type that was warmed, keeps every rule.

        Else raises `InvalidArgument`: all violations; or those of lengths alone; or of a large request the first.
        """
        message = cast(Descriptor, request.DESCRIPTOR)
        too_long, entries = [], 0
        for bound in self._bounds[message.full_name]:
            length = len(bound.read(request))
            entries += length
            if length > bound.most:
                too_long.append(FieldViolation(bound.path, f"must have at most {bound.most} entries, not {length}"))
        if too_long:
            raise InvalidArgument(*too_long)
        found = self._validator.collect_violations(request, fail_fast=entries > _MANY_ENTRIES)
        if found:
            raise InvalidArgument(*(_violation(message, one) for one in found))


def _bounds(message: Descriptor, prefix: str = "") -> Iterator[_Bound]:
    """The lists and maps of a request and of the messages of ours in it, with what their rules allow."""
    for field in message.fields:
        path = prefix + field.name
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.is_repeated:
            yield _Bound(path, attrgetter(path), rules.map.max_pairs or rules.repeated.max_items)
        elif field.message_type is not None and field.message_type.file.package == message.file.package:
            yield from _bounds(field.message_type, f"{path}.")


def _violation(message: Descriptor, found: protovalidate.Violation) -> FieldViolation:
    """A violation in our words: where it is and what would be right."""
    proto = found.proto
    path, last = _path(message, proto.field.elements if proto.field is not None else ())
    if proto.rule is None and proto.rule_id == "required":
        return FieldViolation(path, "is required: give one of its kinds")
    if proto.rule is None:
        # A rule on a whole message names no field; its id ends in the one to blame.
        blamed = proto.rule_id.rpartition(".")[2]
        return FieldViolation(f"{path}.{blamed}" if path else blamed, proto.message)
    description = proto.message
    if proto.rule_id == "required":
        description = "is required"
    elif proto.rule_id.startswith("enum.") and last is not None and last.enum_type is not None:
        names = ", ".join(value.name for value in last.enum_type.values if value.number)
        description = f"must be one of {names}"
    return FieldViolation(path, f"the key {description}" if proto.for_key else description)


def _path(message: Descriptor, elements: Iterable[Any]) -> tuple[str, FieldDescriptor | None]:
    """The path in the form `sandbox.metadata["key"]` or `secret_names[1]`, and the descriptor of its last field."""
    parts: list[str] = []
    scope: Descriptor | None = message
    last: FieldDescriptor | None = None
    for element in elements:
        last = scope.fields_by_name.get(element.field_name) if scope is not None else None
        scope = last.message_type if last is not None else None
        parts.append(element.field_name + _subscript(element.subscript))
    return ".".join(parts), last


def _subscript(subscript: Any) -> str:
    """`[index]` or `["key"]`; long keys are cut."""
    if subscript is None:
        return ""
    value = subscript.value
    if isinstance(value, str):
        value = json.dumps(value if len(value) <= _LONGEST_KEY else f"{value[:_LONGEST_KEY]}…", ensure_ascii=False)
    return f"[{value}]"
