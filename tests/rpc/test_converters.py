"""Domain values as messages: every word of one has a word of the other, and what a message leaves out."""

from dataclasses import fields, replace

import pytest
from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import pool_pb2, sandbox_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    Claim,
    CommandEndReason,
    CommandResult,
    ContainerSpec,
    DiskEnforcement,
    EndReason,
    Member,
    MemberEnd,
    PoolCondition,
    PullPolicy,
    StartKind,
)
from sandpool_server.rpc import converters, requests
from sandpool_server.rpc.converters import run_command_answer, sandbox_message
from sandpool_server.usecases.values import SpecFields, WatchEvent, WhenEmpty
from tests.support.fake_usecases import NOW


def test_output_that_is_no_text_comes_as_both() -> None:
    answer = run_command_answer(
        CommandResult(b"a\xff\xfeb", "ü€".encode(), None, 9, CommandEndReason.OOM_KILLED, 61.5, 3, 4)
    )
    assert (answer.stdout, answer.stdout_bytes) == ("a\ufffd\ufffdb", b"a\xff\xfeb")
    assert (answer.stderr, answer.stderr_bytes) == ("ü€", b"")
    assert (answer.WhichOneof("exit"), answer.signal) == ("signal", 9)
    assert answer.duration == Duration(seconds=61, nanos=500_000_000)
    assert (answer.stdout_dropped_bytes, answer.stderr_dropped_bytes) == (3, 4)


def ended(state: MemberState, **more: object) -> Member:
    claim = Claim(NOW, 0, StartKind.COLD)
    return replace(
        Member("sbx-1", "default", "", "", "", ContainerSpec("i"), state, 1, NOW, claim=claim),
        **more,  # type: ignore[arg-type]
    )


def test_a_starting_sandbox_does_not_say_how_it_started() -> None:
    message = sandbox_message(ended(MemberState.STARTING))
    assert (message.state, message.start) == (sandbox_pb2.SANDBOX_STATE_STARTING, 0)
    assert not message.HasField("start_duration")


def test_an_ended_sandbox_says_why() -> None:
    end = MemberEnd(EndReason.EXITED, NOW, "bye", 0)
    message = sandbox_message(ended(MemberState.GONE, end=end))
    assert message.start == sandbox_pb2.SANDBOX_START_COLD
    assert (message.end_reason, message.end_message) == (sandbox_pb2.SANDBOX_END_REASON_EXITED, "bye")
    assert message.HasField("exit_code")
    assert not sandbox_message(ended(MemberState.GONE, end=replace(end, exit_code=None))).HasField("exit_code")


def test_a_member_that_nobody_claimed_is_never_shown_as_a_sandbox() -> None:
    with pytest.raises(ValueError, match="not a sandbox"):
        sandbox_message(ended(MemberState.WARM, claim=None))


@pytest.mark.parametrize(
    ("table", "words", "prefix"),
    [
        (converters.POOL_STATES, PoolCondition, "POOL_STATE"),
        (converters.POOL_ERROR_REASONS, FailureReason, "POOL_ERROR_REASON"),
        (converters.PULL_POLICIES, PullPolicy, "PULL_POLICY"),
        (converters.STARTS, StartKind, "SANDBOX_START"),
        (converters.END_REASONS, EndReason, "SANDBOX_END_REASON"),
        (converters.COMMAND_END_REASONS, CommandEndReason, "COMMAND_END_REASON"),
        (converters.WATCH_EVENT_TYPES, WatchEvent, "WATCH_EVENT_TYPE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_word_of_the_domain_is_one_of_the_contract(table: dict, words: type, prefix: str) -> None:
    file = p.DESCRIPTOR if prefix == "WATCH_EVENT_TYPE" else pool_pb2.DESCRIPTOR
    values = {**file.enum_types_by_name, **sandbox_pb2.DESCRIPTOR.enum_types_by_name}
    enum = next(enum for enum in values.values() if enum.values[0].name == f"{prefix}_UNSPECIFIED")
    assert {f"{prefix}_{word.name}": number for word, number in table.items()} == {
        value.name: value.number for value in enum.values if value.number
    }
    assert set(table) == set(words)


def test_every_way_to_enforce_disk_limits_is_one_of_the_contract() -> None:
    assert {getattr(key, "name", "UNSPECIFIED"): number for key, number in converters.DISK_ENFORCEMENTS.items()} == {
        name.removeprefix("DISK_ENFORCEMENT_"): number for name, number in pool_pb2.DiskEnforcement.items()
    }
    assert set(converters.DISK_ENFORCEMENTS) == {None, *DiskEnforcement}


def test_every_choice_of_the_contract_is_one_of_the_use_cases() -> None:
    assert {number: f"WHEN_EMPTY_{choice.name}" for number, choice in requests.WHEN_EMPTY.items()} == {
        number: name.replace("UNSPECIFIED", "START_COLD") for name, number in s.WhenEmpty.items()
    }
    assert set(requests.WHEN_EMPTY.values()) == set(WhenEmpty)


def test_every_state_of_a_sandbox_is_one_of_the_contract() -> None:
    assert set(converters.SANDBOX_STATES) == set(MemberState) - {MemberState.CREATING, MemberState.WARM}
    assert len(set(converters.SANDBOX_STATES.values())) == len(sandbox_pb2.SandboxState.values()) - 1


def test_specifications_have_the_fields_of_the_contract() -> None:
    names = {field.name for field in fields(SpecFields)}
    for request in (p.CreatePoolRequest, p.UpdatePoolRequest, t.UpdateTemplateRequest, s.CreateSandboxRequest):
        assert names <= set(request.DESCRIPTOR.fields_by_name)
