"""Every request against the rules written in the proto, before anything is done with it.

The rules are in the server's own descriptors (`contract`) and not in the generated messages, so a request is serialized
and parsed again as the message class that has them. That takes 2 µs for a request of usual size. Bulk data is not
copied, because that takes milliseconds for a few MiB.

protovalidate checks every item of a list that is too long, and a violation costs some 30 µs: one request of a few MiB
would hold the event loop for half a minute. So lengths are checked first, and of a request with many items only the
first violation is reported.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.rpc.contract import Contract, public_contract

_LONGEST_KEY = 64
"""How many characters of a map's key a path repeats: the path becomes part of the response's headers."""


_MANY_ENTRIES = 1000
"""From how many items in all its lists and maps on a request's check ends at the first violation."""

_BULK_BYTES = 16 * 1024
"""Up to how many bytes a field of bulk data is copied for the check: less costs less than leaving it out."""

_LENGTH_ALONE = ["buf.validate.FieldRules.bytes", "buf.validate.BytesRules.max_len"]
"""The rules of a field of bulk data."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """A list or map of a request, and how long it may be."""

    path: str
    read: Callable[[Message], Sized]
    most: int


@dataclass(frozen=True, slots=True)
class _Bulk:
    """A field of bulk data that has no other rule than a maximum length."""

    path: str
    read: Callable[[Message], Sized]
    most: int


@dataclass(frozen=True, slots=True)
class _Rules:
    """How requests of one type are checked."""

    message_class: type[Message]
    """The class that has the rules."""
    bounds: tuple[_Bound, ...]
    bulk: tuple[_Bulk, ...]

    def with_rules(self, request: Message) -> Message:
        """Return the request as a message that has the rules, with as little of bulk data as rules can depend on."""
        lengths = [(bulk, len(bulk.read(request))) for bulk in self.bulk]
        shortened = frozenset(bulk.path for bulk, length in lengths if _BULK_BYTES < length <= bulk.most)
        if not shortened:
            return self.message_class.FromString(request.SerializeToString())
        message = self.message_class()
        _copy(request, message, shortened)
        return message


class RequestValidator:
    """Checks requests with protovalidate. It keeps the compiled rules, so one validator serves all calls."""

    def __init__(self, contract: Contract | None = None) -> None:
        self._contract = contract or public_contract()
        self._validator = protovalidate.Validator()
        self._rules: dict[str, _Rules] = {}

    def warm(self, request_types: Iterable[type[Message]]) -> None:
        """Compile the rules of these types now (some 15 ms each) and not in the first call."""
        for request_type in request_types:
            name = cast(Descriptor, request_type.DESCRIPTOR).full_name
            message_class = self._contract.message_class(name)
            self._validator.collect_violations(message_class())
            message = cast(Descriptor, message_class.DESCRIPTOR)
            bounds = tuple(_bounds(self._contract, message))
            self._rules[name] = _Rules(message_class, bounds, tuple(_bulk(self._contract, message)))

    def check(self, request: Message) -> None:
        """Return if the request, of a type that was warmed, keeps every rule.

        Else raises `InvalidArgument`: all violations; or those of lengths alone; or of a large request the first.
        """
        rules = self._rules[cast(Descriptor, request.DESCRIPTOR).full_name]
        too_long, entries = [], 0
        for bound in rules.bounds:
            length = len(bound.read(request))
            entries += length
            if length > bound.most:
                too_long.append(FieldViolation(bound.path, f"must have at most {bound.most} entries, not {length}"))
        if too_long:
            raise InvalidArgument(*too_long)
        message = rules.with_rules(request)
        found = self._validator.collect_violations(message, fail_fast=entries > _MANY_ENTRIES)
        if found:
            raise InvalidArgument(*(_violation(cast(Descriptor, message.DESCRIPTOR), one) for one in found))


def _bounds(contract: Contract, message: Descriptor, prefix: str = "") -> Iterator[_Bound]:
    """Find the lists and maps of a request and of the contract's messages in it, with what their rules allow."""
    for field in message.fields:
        path = prefix + field.name
        if field.is_repeated:
            rules = contract.field_rules(field)
            yield _Bound(path, attrgetter(path), rules.map.max_pairs or rules.repeated.max_items)
        elif field.message_type is not None and field.message_type.file.package == message.file.package:
            yield from _bounds(contract, field.message_type, f"{path}.")


def _bulk(contract: Contract, message: Descriptor, prefix: str = "", around: str = "") -> Iterator[_Bulk]:
    """Find the fields of bulk data. `around` has the rules of the messages around this one.

    A field counts when its only rule is a maximum length, no rule of a whole message mentions it, and `_copy` can copy
    what is next to it.
    """
    if any(field.is_repeated for field in message.fields):
        return
    around += str(contract.message_rules(message))
    for field in message.fields:
        rules = contract.field_rules(field)
        path = prefix + field.name
        if field.type == FieldDescriptor.TYPE_BYTES:
            alone = [rule.full_name for rule, _ in (*rules.ListFields(), *rules.bytes.ListFields())] == _LENGTH_ALONE
            if alone and not re.search(rf"\b{field.name}\b", around):
                yield _Bulk(path, attrgetter(path), rules.bytes.max_len)
        elif field.message_type is not None and field.message_type.file.package == message.file.package:
            yield from _bulk(contract, field.message_type, f"{path}.", around + str(rules.cel))


def _copy(source: Any, target: Any, shortened: Collection[str], prefix: str = "") -> None:
    """Copy a message to one of another class, but one byte instead of the fields at the paths `shortened`."""
    for field in source.DESCRIPTOR.fields:
        path = prefix + field.name
        if path in shortened:
            setattr(target, field.name, b"\0")
        elif field.has_presence and not source.HasField(field.name):
            continue
        elif field.message_type is None:
            setattr(target, field.name, getattr(source, field.name))
        elif any(each.startswith(f"{path}.") for each in shortened):
            _copy(getattr(source, field.name), getattr(target, field.name), shortened, f"{path}.")
        else:
            getattr(target, field.name).SetInParent()
            getattr(target, field.name).MergeFromString(getattr(source, field.name).SerializeToString())


def _violation(message: Descriptor, found: protovalidate.Violation) -> FieldViolation:
    """Convert a violation: where it is and what would be right."""
    proto = found.proto
    path, last = _path(message, proto.field.elements if proto.field is not None else ())
    if proto.rule is None and proto.rule_id == "required":
        return FieldViolation(path, "is required: give one of its kinds")
    if proto.rule is None:
        # A rule on a whole message names no field; its id continues with the path to blame.
        blamed = proto.rule_id.partition(".")[2]
        return FieldViolation(f"{path}.{blamed}" if path else blamed, proto.message)
    description = proto.message
    if proto.rule_id == "required":
        description = "is required"
    elif proto.rule_id.startswith("enum.") and last is not None and last.enum_type is not None:
        names = ", ".join(value.name for value in last.enum_type.values if value.number)
        description = f"must be one of {names}"
    return FieldViolation(path, f"the key {description}" if proto.for_key else description)


def _path(message: Descriptor, elements: Iterable[Any]) -> tuple[str, FieldDescriptor | None]:
    """Return the path, for example `spec.env["KEY"]` or `secret_names[1]`, and the descriptor of its last field."""
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
