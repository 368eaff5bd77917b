"""Conversion of domain values to messages: corresponding enum values, and absent fields."""

from dataclasses import fields, replace

import pytest
from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import container_pb2, pool_pb2, sandbox_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    Claim,
    CommandResult,
    DiskEnforcement,
    ExitReason,
    Instance,
    PoolCondition,
    StartType,
    Termination,
    TerminationReason,
)
from sandpool_server.domain.spec import ContainerSpec, PullPolicy, ReadinessProbe
from sandpool_server.rpc import converters, requests, specs
from sandpool_server.rpc.converters import run_command_response, sandbox_message
from sandpool_server.usecases.values import WatchEvent, WhenEmpty
from tests.support.fake_usecases import NOW


def test_returns_binary_output_as_text_and_bytes() -> None:
    response = run_command_response(
        CommandResult(b"a\xff\xfeb", "ü€".encode(), None, 9, ExitReason.OOM_KILLED, 61.5, 3, 4)
    )
    assert (response.stdout, response.stdout_bytes) == ("a\ufffd\ufffdb", b"a\xff\xfeb")
    assert (response.stderr, response.stderr_bytes) == ("ü€", b"")
    assert (response.WhichOneof("status"), response.signal) == ("signal", 9)
    assert response.duration == Duration(seconds=61, nanos=500_000_000)
    assert (response.stdout_dropped_bytes, response.stderr_dropped_bytes) == (3, 4)


def claimed(state: InstanceState, **more: object) -> Instance:
    claim = Claim(NOW, 0, StartType.COLD)
    return replace(
        Instance("sbx-1", "default", "", "", "", ContainerSpec("i"), state, 1, NOW, claim=claim),
        **more,  # type: ignore[arg-type]
    )


def test_starting_sandbox_has_no_start_type() -> None:
    message = sandbox_message(claimed(InstanceState.STARTING))
    assert (message.state, message.start_type) == (sandbox_pb2.SANDBOX_STATE_STARTING, 0)
    assert not message.HasField("start_duration")


def test_terminated_sandbox_has_termination_reason() -> None:
    end = Termination(TerminationReason.EXITED, NOW, "bye", 0)
    message = sandbox_message(claimed(InstanceState.REMOVED, end=end))
    assert message.start_type == sandbox_pb2.START_TYPE_COLD
    assert (message.termination_reason, message.termination_message) == (sandbox_pb2.TERMINATION_REASON_EXITED, "bye")
    assert message.HasField("exit_code")
    assert not sandbox_message(claimed(InstanceState.REMOVED, end=replace(end, exit_code=None))).HasField("exit_code")


def test_rejects_unclaimed_instance_as_sandbox() -> None:
    with pytest.raises(ValueError, match="not a sandbox"):
        sandbox_message(claimed(InstanceState.WARM, claim=None))


@pytest.mark.parametrize(
    ("table", "domain", "prefix"),
    [
        (converters.POOL_STATES, PoolCondition, "POOL_STATE"),
        (converters.POOL_ERROR_REASONS, FailureReason, "POOL_ERROR_REASON"),
        (specs.PULL_POLICIES, PullPolicy, "PULL_POLICY"),
        (converters.START_TYPES, StartType, "START_TYPE"),
        (converters.TERMINATION_REASONS, TerminationReason, "TERMINATION_REASON"),
        (converters.EXIT_REASONS, ExitReason, "EXIT_REASON"),
        (converters.WATCH_EVENT_TYPES, WatchEvent, "WATCH_EVENT_TYPE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_enum_value_of_domain_has_value_of_contract(table: dict, domain: type, prefix: str) -> None:
    file = p.DESCRIPTOR if prefix == "WATCH_EVENT_TYPE" else pool_pb2.DESCRIPTOR
    values = {
        **file.enum_types_by_name,
        **sandbox_pb2.DESCRIPTOR.enum_types_by_name,
        **container_pb2.DESCRIPTOR.enum_types_by_name,
    }
    enum = next(enum for enum in values.values() if enum.values[0].name == f"{prefix}_UNSPECIFIED")
    assert {f"{prefix}_{value.name}": number for value, number in table.items()} == {
        value.name: value.number for value in enum.values if value.number
    }
    assert set(table) == set(domain)


def test_every_disk_enforcement_has_value_of_contract() -> None:
    assert {getattr(key, "name", "UNSPECIFIED"): number for key, number in converters.DISK_ENFORCEMENTS.items()} == {
        name.removeprefix("DISK_ENFORCEMENT_"): number for name, number in pool_pb2.DiskEnforcement.items()
    }
    assert set(converters.DISK_ENFORCEMENTS) == {None, *DiskEnforcement}


def test_every_when_empty_value_of_contract_has_value_of_use_cases() -> None:
    assert {number: f"WHEN_EMPTY_{choice.name}" for number, choice in requests.WHEN_EMPTY.items()} == {
        number: name.replace("UNSPECIFIED", "START_COLD") for name, number in s.WhenEmpty.items()
    }
    assert set(requests.WHEN_EMPTY.values()) == set(WhenEmpty)


def test_every_sandbox_state_has_value_of_contract() -> None:
    assert set(converters.SANDBOX_STATES) == set(InstanceState) - {InstanceState.CREATING, InstanceState.WARM}
    assert len(set(converters.SANDBOX_STATES.values())) == len(sandbox_pb2.SandboxState.values()) - 1


def test_specifications_have_the_fields_of_the_contract() -> None:
    assert [field.name for field in fields(ContainerSpec)] == list(specs.SPEC_FIELDS)
    probe = container_pb2.ReadinessProbe.DESCRIPTOR.fields_by_name
    assert [field.name.removesuffix("_secs") for field in fields(ReadinessProbe)] == list(probe)


def test_specification_is_equal_after_round_trip() -> None:
    probe = ReadinessProbe(("test", "-e", "/ready"), 0.25, 1.5, 7)
    spec = ContainerSpec("i", 2.5, 256, 2048, (("A", "1"),), ("sleep",), ("KEY",), PullPolicy.NEVER, probe)
    assert ContainerSpec(**specs.spec_fields(specs.spec_message(spec))) == spec
    default = ContainerSpec("i")
    assert ContainerSpec(**specs.spec_fields(specs.spec_message(default))) == default
