"""Requests of the public contract, already validated, as what the use cases take."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from sandpool.v1 import pool_pb2, pool_service_pb2, sandbox_service_pb2, template_service_pb2
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.domain.model import Command, PullPolicy
from sandpool_server.ports import SandboxFilter
from sandpool_server.rpc.converters import PULL_POLICIES, SANDBOX_STATES
from sandpool_server.usecases.values import (
    NewPool,
    NewSandbox,
    NewTemplate,
    PoolChanges,
    SandboxChanges,
    SpecChanges,
    SpecFields,
    TemplateChanges,
    WhenEmpty,
)

COMMAND_TIMEOUT_SECS = 60.0
"""How long a command may run unless its request says otherwise (the contract's default)."""

WAIT_SECS = 30.0
"""How long a creation waits in line unless its request says otherwise (the contract's default)."""

SPEC_FIELDS = (
    "image",
    "cpus",
    "memory_mb",
    "ephemeral_disk_mb",
    "secret_names",
    "entrypoint",
    "env",
    "readiness_command",
    "readiness_interval_secs",
    "readiness_timeout_secs",
    "readiness_retries",
)
POOL_FIELDS = (
    *SPEC_FIELDS,
    "name",
    "warm_containers",
    "max_containers",
    "timeout_secs",
    "paused",
    "pull_policy",
    "image_check_secs",
    "max_age_secs",
    "drain",
)
TEMPLATE_FIELDS = (*SPEC_FIELDS, "name", "timeout_secs")
SANDBOX_FIELDS = ("name", "metadata", "timeout_secs")

WHEN_EMPTY = {
    sandbox_service_pb2.WHEN_EMPTY_UNSPECIFIED: WhenEmpty.START_COLD,
    sandbox_service_pb2.WHEN_EMPTY_START_COLD: WhenEmpty.START_COLD,
    sandbox_service_pb2.WHEN_EMPTY_WAIT: WhenEmpty.WAIT,
    sandbox_service_pb2.WHEN_EMPTY_FAIL: WhenEmpty.FAIL,
}
_PULL_POLICIES = {
    pool_pb2.PULL_POLICY_UNSPECIFIED: PullPolicy.MISSING,
    **{number: policy for policy, number in PULL_POLICIES.items()},
}
_MEMBER_STATES = {number: state for state, number in SANDBOX_STATES.items()}
_NO_SPEC = SpecFields()
_SHOWN_PATHS = 5
_MOST_PATHS = 100


def new_pool(request: pool_service_pb2.CreatePoolRequest) -> NewPool:
    """The pool to create."""
    return NewPool(
        spec=_spec_fields(request),
        template_name=request.template_name,
        name=request.name,
        warm_containers=request.warm_containers,
        max_containers=_optional(request, "max_containers"),
        timeout_secs=_optional(request, "timeout_secs"),
        paused=request.paused,
        pull_policy=_PULL_POLICIES[request.pull_policy],
        image_check_secs=request.image_check_secs,
        max_age_secs=request.max_age_secs,
        drain=request.drain,
    )


def new_template(request: template_service_pb2.CreateTemplateRequest) -> NewTemplate:
    """The template to create."""
    return NewTemplate(name=request.name, spec=_spec_fields(request), timeout_secs=request.timeout_secs)


def new_sandbox(request: sandbox_service_pb2.CreateSandboxRequest) -> NewSandbox:
    """The sandbox, or each of a batch, to create. What to do when nothing is ready holds for a batch as a whole."""
    from_image = bool(request.image)
    return NewSandbox(
        pool_id=request.pool_id,
        template_name=request.template_name,
        spec=_spec_fields(request) if from_image else _NO_SPEC,
        timeout_secs=_optional(request, "timeout_secs"),
        name=request.name,
        metadata=dict(request.metadata),
        env={} if from_image else dict(request.env),
        when_empty=WHEN_EMPTY[request.when_empty],
        wait_secs=request.wait_secs if request.HasField("wait_secs") else WAIT_SECS,
    )


def pool_changes(request: pool_service_pb2.UpdatePoolRequest) -> PoolChanges:
    """What to change of a pool. Raises `InvalidArgument` (`update_mask`)."""
    spec, rest = _split(_changes(request, POOL_FIELDS))
    return PoolChanges(spec=spec, **rest)


def template_changes(request: template_service_pb2.UpdateTemplateRequest) -> TemplateChanges:
    """What to change of a template. Raises `InvalidArgument` (`update_mask`)."""
    spec, rest = _split(_changes(request, TEMPLATE_FIELDS))
    return TemplateChanges(spec=spec, **rest)


def sandbox_changes(request: sandbox_service_pb2.UpdateSandboxRequest) -> SandboxChanges:
    """What to change of a sandbox. Raises `InvalidArgument` (`update_mask`)."""
    return SandboxChanges(**_changes(request, SANDBOX_FIELDS))


def sandbox_filter(request: sandbox_service_pb2.ListSandboxesRequest) -> SandboxFilter:
    """Which sandboxes to list."""
    return SandboxFilter(
        pool_ref=request.pool_id,
        template_ref=request.template_name,
        states=frozenset(_MEMBER_STATES[state] for state in request.states),
        metadata=dict(request.metadata),
    )


def command(request: sandbox_service_pb2.RunCommandRequest) -> Command:
    """The command to run."""
    return Command(
        timeout_secs=request.timeout_secs if request.HasField("timeout_secs") else COMMAND_TIMEOUT_SECS,
        shell=request.command,
        argv=tuple(request.argv),
        env=dict(request.env),
        working_dir=request.working_dir,
        user=request.user,
    )


def _spec_fields(request: Any) -> SpecFields:
    """The specification in a Create request; they all name its fields alike."""
    return SpecFields(
        image=request.image or None,
        cpus=_optional(request, "cpus"),
        memory_mb=_optional(request, "memory_mb"),
        ephemeral_disk_mb=_optional(request, "ephemeral_disk_mb"),
        secret_names=tuple(request.secret_names),
        entrypoint=tuple(request.entrypoint),
        env=_pairs(request.env),
        readiness_command=tuple(request.readiness_command),
        readiness_interval_secs=_optional(request, "readiness_interval_secs"),
        readiness_timeout_secs=_optional(request, "readiness_timeout_secs"),
        readiness_retries=_optional(request, "readiness_retries"),
    )


def _pairs(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """An environment as specifications keep it: equal ones are equal, whatever the order on the wire."""
    return tuple(sorted(env.items()))


def _optional(request: Message, name: str) -> Any:
    """The field's value, None where it is absent."""
    return getattr(request, name) if request.HasField(name) else None


def _split(changes: dict[str, Any]) -> tuple[SpecChanges, dict[str, Any]]:
    """The changes of the specification, and the others."""
    spec = SpecChanges(**{name: value for name, value in changes.items() if name in SPEC_FIELDS})
    return spec, {name: value for name, value in changes.items() if name not in SPEC_FIELDS}


def _changes(request: Any, updatable: tuple[str, ...]) -> dict[str, Any]:
    """The fields to change, by name: None for one that the mask names and the request leaves out.

    Without a mask, every field that is present; of lists and maps, every one that is not empty.
    """
    present = {name: value for name in updatable if (value := _present(request, name)) is not None}
    paths = request.update_mask.paths
    if not paths:
        return present
    if len(paths) > _MOST_PATHS:
        raise InvalidArgument(
            FieldViolation("update_mask", f"must name at most {_MOST_PATHS} fields, not {len(paths)}")
        )
    wrong = [path for path in paths if path != "*" and path not in updatable]
    if wrong:
        named = ", ".join(repr(path[:64]) for path in wrong[:_SHOWN_PATHS])
        allowed = ", ".join(sorted(updatable))
        raise InvalidArgument(FieldViolation("update_mask", f"may name {allowed}, or * for all of them; not {named}"))
    return {name: present.get(name) for name in (updatable if "*" in paths else paths)}


def _present(request: Any, name: str) -> Any:
    """The field's value as the use cases take it, None where it is absent or empty."""
    value = getattr(request, name)
    if request.DESCRIPTOR.fields_by_name[name].is_repeated:
        return _TAKEN_AS.get(name, tuple)(value) if value else None
    if not request.HasField(name):
        return None
    return _TAKEN_AS[name](value) if name in _TAKEN_AS else value


_TAKEN_AS: dict[str, Callable[[Any], Any]] = {
    "env": _pairs,
    "metadata": dict,
    "pull_policy": _PULL_POLICIES.__getitem__,
}
"""How the use cases take fields that are not simply values or tuples."""
