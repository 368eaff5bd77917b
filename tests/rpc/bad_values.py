"""Invalid values for every field of a message, derived from its descriptor and its validation rules."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sandpool_server.rpc.contract import public_contract
from tests.rpc.bases import FIELD_RULES, MESSAGE_RULES, UNCONSTRAINED

CONTRACT = public_contract()

NUL = "a\0b"


@dataclass(frozen=True)
class Case:
    """One way to make a valid request invalid, and the path that the server must report."""

    path: str
    label: str
    corrupt: Callable[[Any], Any]

    def __str__(self) -> str:
        return f"{self.path} {self.label}"


class Unknown(Exception):
    """The generator does not support a rule or a type."""


PREDEFINED: dict[str, tuple[str, ...]] = {
    "resource_name": ("", "Upper", "-a", "a-", "a b", "a_b", "ü", "a\n", NUL, "x" * 64, "pool-" + "0" * 20),
    "resource_name_or_empty": ("Upper", "-a", "a-", "a b", "ü", "a\n", NUL, "x" * 64, "sbx-" + "a" * 20),
    "resource_ref": ("", "Upper", "-a", "a-", "a/b", "../a", "ü", "a\n", NUL, "x" * 64),
    "image_ref": ("", "two words", "UPPER", "a:", ":tag", "a//b", "a@sha256:12", NUL, "é", "x" * 513),
    "variable_name": ("", "1A", "A-B", "A=B", "A B", "É", "A\n", NUL, "A" * 129, "SANDPOOL_A"),
    "no_nul": (NUL, "\0"),
    "request_token": ("a b", "a/b", "é", "a\n", NUL, "x" * 65),
    "absolute_path": ("relative", "./a", "/a\0b", "/" + "x" * 4096),
    "user_ref": ("a b", "1000:", ":1000", "a:b:c", "é", "a\n", NUL, "x" * 65),
}
"""Invalid values for each rule of rules.proto."""

VALID_TEXT: dict[str, Callable[[int], str]] = {
    "resource_ref": lambda i: f"ref-{i}",
    "resource_name": lambda i: f"name-{i}",
    "variable_name": lambda i: f"NAME_{i}",
    "no_nul": lambda i: f"text {i}",
}
"""The i-th valid value under a rule, for lists and maps that are too long."""


def cases_of(message: Descriptor) -> Iterator[Case]:
    """Yield every case of a message: its own rules, its fields, and its nested messages."""
    for rule in CONTRACT.message_rules(message).cel:
        if rule.id not in MESSAGE_RULES:
            raise Unknown(f"{message.full_name}: add ways to break the rule {rule.id!r} to bases.MESSAGE_RULES")
        path = rule.id.partition(".")[2]
        for number, corrupt in enumerate(MESSAGE_RULES[rule.id]):
            yield Case(path, f"against {rule.id}, way {number}", corrupt)
    for oneof in message.oneofs:
        if not oneof.name.startswith("_") and CONTRACT.oneof_rules(oneof).required:
            yield Case(oneof.name, "absent", lambda m, oneof=oneof: _clear(m, oneof.name))
    for field in message.fields:
        found = list(_field_cases(field))
        if not found and field.full_name not in UNCONSTRAINED:
            raise Unknown(
                f"{field.full_name}: the field has no rule; write a rule in the proto, or if every value is valid, "
                "add the field to bases.UNCONSTRAINED"
            )
        yield from found


def _field_cases(field: FieldDescriptor) -> Iterator[Case]:
    rules = CONTRACT.field_rules(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from _map_cases(field, rules.map)
    elif field.is_repeated:
        yield from _list_cases(field, rules.repeated)
    elif field.message_type is not None:
        yield from _message_cases(field, rules)
    else:
        for label, value in bad_values(field, rules):
            yield Case(field.name, label, _setter(field.name, value))


def _message_cases(field: FieldDescriptor, rules: Any) -> Iterator[Case]:
    """Yield the cases of a nested message: absent, and every invalid field in it."""
    if rules.required:
        yield Case(field.name, "absent", lambda m: m.ClearField(field.name))
    if rules.WhichOneof("type") == "duration":
        yield from _duration_cases(field, rules.duration)
    if field.message_type.full_name.startswith("sandpool."):
        for case in cases_of(field.message_type):
            corrupt = case.corrupt
            yield Case(
                f"{field.name}.{case.path}", case.label, lambda m, corrupt=corrupt: corrupt(getattr(m, field.name))
            )


def _duration_cases(field: FieldDescriptor, rules: Any) -> Iterator[Case]:
    if not (rules.HasField("gte") and rules.HasField("lte")):
        raise Unknown(f"{field.full_name}: every duration needs gte and lte")
    minimum, maximum = rules.gte.ToNanoseconds(), rules.lte.ToNanoseconds()
    for label, value in (("just below", minimum - 1), ("just above", maximum + 1), ("negative", -(10**9))):
        yield Case(field.name, label, lambda m, value=value: getattr(m, field.name).FromNanoseconds(value))


def _list_cases(field: FieldDescriptor, rules: Any) -> Iterator[Case]:
    valid = [_valid(field, rules.items, i) for i in range(max(rules.max_items + 1, 2))]
    if not rules.max_items:
        raise Unknown(f"{field.full_name}: every list needs max_items")
    yield Case(field.name, "too many", lambda m: getattr(m, field.name).extend(valid))
    if rules.unique:
        yield Case(field.name, "duplicate", lambda m: getattr(m, field.name).extend([valid[0], valid[0]]))
    for label, value in bad_values(field, rules.items):
        items = [valid[0], value]
        yield Case(f"{field.name}[1]", label, lambda m, items=items: getattr(m, field.name).extend(items))


def _map_cases(field: FieldDescriptor, rules: Any) -> Iterator[Case]:
    entry = field.message_type.fields_by_name
    if not rules.max_pairs:
        raise Unknown(f"{field.full_name}: every map needs max_pairs")

    def put(**pairs: Any) -> Callable[[Any], Any]:
        return lambda m: getattr(m, field.name).update(pairs["pairs"])

    key = _valid(entry["key"], rules.keys, 0)
    value = _valid(entry["value"], rules.values, 0)
    many = {_valid(entry["key"], rules.keys, i): value for i in range(rules.max_pairs + 1)}
    yield Case(field.name, "too many", put(pairs=many))
    keys = list(bad_values(entry["key"], rules.keys))
    values = list(bad_values(entry["value"], rules.values))
    if not keys or not values:
        raise Unknown(f"{field.full_name}: keys and values of every map need a rule")
    for label, bad in keys:
        yield Case(f"{field.name}[{_quoted(bad)}]", f"key {label}", put(pairs={bad: value}))
    for label, bad in values:
        yield Case(f"{field.name}[{_quoted(key)}]", f"value {label}", put(pairs={key: bad}))


def bad_values(field: FieldDescriptor, rules: Any) -> Iterator[tuple[str, Any]]:
    """Yield invalid values for one scalar under its rules, each with a label."""
    kind = rules.WhichOneof("type")
    kinds = rules.DESCRIPTOR.fields_by_name["ignore"].enum_type.values_by_name
    ignores_zero = rules.ignore == kinds["IGNORE_IF_ZERO_VALUE"].number
    for rule in rules.cel:
        if rule.id not in FIELD_RULES:
            raise Unknown(f"{field.full_name}: add invalid values for the rule {rule.id!r} to bases.FIELD_RULES")
        yield from ((f"{value[:12]!r} against {rule.id}", value) for value in FIELD_RULES[rule.id])
    if kind == "string":
        found = _bad_strings(field, rules.string)
    elif kind == "bytes":
        found = iter((("too long", bytes(rules.bytes.max_len + 1)),))
    elif kind in ("int32", "int64", "uint32", "double"):
        found = _bad_numbers(field, kind, getattr(rules, kind))
    elif kind == "enum":
        found = _bad_enums(field, rules.enum)
    elif kind is None:
        found = iter(())
    else:
        raise Unknown(f"{field.full_name}: add support for rules of kind {kind!r}")
    yield from ((label, value) for label, value in found if not (ignores_zero and not value))


def _bad_strings(field: FieldDescriptor, rules: Any) -> Iterator[tuple[str, str]]:
    for rule, value in rules.ListFields():
        if rule.is_extension and rule.containing_type.name == "StringRules":
            if rule.name not in PREDEFINED:
                raise Unknown(f"{field.full_name}: add invalid values for the rule {rule.name!r} to PREDEFINED")
            yield from ((f"{bad[:12]!r} ({len(bad)}) against {rule.name}", bad) for bad in PREDEFINED[rule.name])
        elif rule.name == "max_len":
            yield "too long", "x" * (value + 1)
            yield "too long with non-ASCII characters", "ü" * (value + 1)
        elif rule.name == "min_len":
            yield "too short", "x" * (value - 1)
        else:
            raise Unknown(f"{field.full_name}: add support for the string rule {rule.name!r}")


def _bad_numbers(field: FieldDescriptor, kind: str, rules: Any) -> Iterator[tuple[str, float]]:
    known = {"gte", "lte", "finite"}
    if unknown := {rule.name for rule, _ in rules.ListFields()} - known:
        raise Unknown(f"{field.full_name}: add support for the number rules {unknown}")
    if kind == "uint32":
        yield from (("just above", rules.lte + 1), ("largest", 2**32 - 1))
        return
    if not (rules.HasField("gte") and rules.HasField("lte")):
        raise Unknown(f"{field.full_name}: every number needs gte and lte")
    if kind == "double":
        yield "just below", math.nextafter(rules.gte, -math.inf)
        yield "just above", math.nextafter(rules.lte, math.inf)
        yield from (("negative", -1.0), ("not a number", math.nan), ("infinite", math.inf), ("-infinite", -math.inf))
        return
    bits = 31 if kind == "int32" else 63
    yield "just below", rules.gte - 1
    yield "just above", rules.lte + 1
    yield "smallest", -(2**bits)
    yield "largest", 2**bits - 1


def _bad_enums(field: FieldDescriptor, rules: Any) -> Iterator[tuple[str, int]]:
    if not rules.defined_only:
        raise Unknown(f"{field.full_name}: every enum needs defined_only")
    yield "undefined", 1 + max(value.number for value in field.enum_type.values)
    yield "negative", -1
    yield from (("excluded", number) for number in rules.not_in)


def _valid(field: FieldDescriptor, rules: Any, number: int) -> Any:
    """Return a valid value: different values for different numbers if the type has enough values."""
    if field.enum_type is not None:
        values = [value.number for value in field.enum_type.values if value.number]
        return values[number % len(values)]
    names = [rule.name for rule, _ in rules.string.ListFields() if rule.is_extension]
    make = next((VALID_TEXT[name] for name in names if name in VALID_TEXT), None)
    if make is None or not rules.HasField("string"):
        raise Unknown(f"{field.full_name}: add valid values for its rules {names} to VALID_TEXT")
    return make(number)


def _clear(message: Any, oneof: str) -> None:
    """Clear a oneof. If the message is absent, make it present."""
    message.SetInParent()
    if which := message.WhichOneof(oneof):
        message.ClearField(which)


def _setter(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda m: setattr(m, name, value)


def _quoted(key: str) -> str:
    """Return a key as the server writes it in a path: as JSON, with at most 64 characters."""
    return json.dumps(key if len(key) <= 64 else key[:64] + "…", ensure_ascii=False)


KNOWN_EXTENSIONS = set(CONTRACT.pool.FindFileByName("sandpool/v1/rules.proto").extensions_by_name)
