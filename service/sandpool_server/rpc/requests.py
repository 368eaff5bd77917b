"""Conversion of validated requests of the public contract to values of the use cases."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import pool_service_pb2, sandbox_service_pb2, template_service_pb2
from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.domain.model import Command
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.rpc.converters import SANDBOX_STATES
from sandpool_server.rpc.specs import SPEC_FIELDS, seconds, spec_fields
from sandpool_server.usecases.values import (
    NewPool,
    NewSandbox,
    NewTemplate,
    PoolChanges,
    SandboxChanges,
    SpecFields,
    TemplateChanges,
    WhenEmpty,
)

COMMAND_TIMEOUT_SECS = 60.0
"""The time limit of a command if the request sets none (the contract's default)."""

QUEUE_TIMEOUT_SECS = 30.0
"""The time limit in the wait queue if the request sets none (the contract's default)."""

POOL_FIELDS = (
    "name",
    "warm_containers",
    "max_containers",
    "timeout",
    "paused",
    "drained",
    "image_refresh_interval",
    "warm_ttl",
)
TEMPLATE_FIELDS = ("name", "timeout")
SANDBOX_FIELDS = ("name", "metadata", "timeout")

WHEN_EMPTY = {
    sandbox_service_pb2.WHEN_EMPTY_UNSPECIFIED: WhenEmpty.START_COLD,
    sandbox_service_pb2.WHEN_EMPTY_START_COLD: WhenEmpty.START_COLD,
    sandbox_service_pb2.WHEN_EMPTY_WAIT: WhenEmpty.WAIT,
    sandbox_service_pb2.WHEN_EMPTY_FAIL: WhenEmpty.FAIL,
}
_INSTANCE_STATES = {number: state for state, number in SANDBOX_STATES.items()}
_SHOWN_PATHS = 5
_MAX_PATHS = 100


def new_pool(request: pool_service_pb2.CreatePoolRequest) -> NewPool:
    """Return the pool to create."""
    return NewPool(
        spec=spec_fields(request.spec),
        template_name=request.template_name,
        name=request.name,
        warm_containers=request.warm_containers if request.HasField("warm_containers") else None,
        max_containers=request.max_containers if request.HasField("max_containers") else None,
        timeout_secs=seconds(request.timeout) if request.HasField("timeout") else None,
        paused=request.paused,
        drained=request.drained,
        image_refresh_interval_secs=seconds(request.image_refresh_interval),
        warm_ttl_secs=seconds(request.warm_ttl),
    )


def new_template(request: template_service_pb2.CreateTemplateRequest) -> NewTemplate:
    """Return the template to create."""
    return NewTemplate(name=request.name, spec=spec_fields(request.spec), timeout_secs=seconds(request.timeout))


def new_sandbox(request: sandbox_service_pb2.CreateSandboxRequest) -> NewSandbox:
    """Return the sandbox, or each sandbox of a batch, to create. `when_empty` applies to a batch as a whole."""
    return NewSandbox(
        pool_id=request.pool_id,
        template_name=request.template_name,
        spec=spec_fields(request.spec),
        timeout_secs=seconds(request.timeout) if request.HasField("timeout") else None,
        name=request.name,
        metadata=dict(request.metadata),
        env=dict(request.env),
        when_empty=WHEN_EMPTY[request.when_empty],
        queue_timeout_secs=seconds(request.queue_timeout) if request.HasField("queue_timeout") else QUEUE_TIMEOUT_SECS,
    )


def pool_changes(request: pool_service_pb2.UpdatePoolRequest) -> PoolChanges:
    """Return the changes of a pool. Raises `InvalidArgument` (`update_mask`)."""
    changes = _changes(request, POOL_FIELDS)
    return PoolChanges(spec=_spec_changes(request), **changes)


def template_changes(request: template_service_pb2.UpdateTemplateRequest) -> TemplateChanges:
    """Return the changes of a template. Raises `InvalidArgument` (`update_mask`)."""
    changes = _changes(request, TEMPLATE_FIELDS)
    return TemplateChanges(spec=_spec_changes(request), **changes)


def sandbox_changes(request: sandbox_service_pb2.UpdateSandboxRequest) -> SandboxChanges:
    """Return the changes of a sandbox. Raises `InvalidArgument` (`update_mask`)."""
    return SandboxChanges(**_changes(request, SANDBOX_FIELDS))


def sandbox_filter(request: sandbox_service_pb2.ListSandboxesRequest) -> SandboxFilter:
    """Return the filter of the sandboxes to list."""
    return SandboxFilter(
        pool_ref=request.pool_id,
        template_ref=request.template_name,
        states=frozenset(_INSTANCE_STATES[state] for state in request.states),
        metadata=dict(request.metadata),
    )


def command(request: sandbox_service_pb2.RunCommandRequest) -> Command:
    """Return the command to run."""
    return Command(
        timeout_secs=seconds(request.timeout) if request.HasField("timeout") else COMMAND_TIMEOUT_SECS,
        shell=request.command,
        argv=tuple(request.argv),
        env=dict(request.env),
        working_dir=request.working_dir,
        user=request.user,
    )


def _changes(request: Any, updatable: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields outside of `spec` to change, by their name in the domain; None restores the default.

    Without a mask, every field that is present; of maps, every one that is not empty. Raises `InvalidArgument`.
    """
    paths = _paths(request, updatable)
    named = updatable if not paths or "*" in paths else [path for path in paths if path in updatable]
    present = {name: value for name in updatable if (value := _present(request, name)) is not None}
    return {_DOMAIN_NAMES.get(name, name): present.get(name) for name in named if paths or name in present}


def _spec_changes(request: Any) -> SpecFields:
    """Return the fields of `spec` to change; None restores the default. The mask is valid already."""
    present = spec_fields(request.spec)
    paths = request.update_mask.paths
    if not paths:
        return present
    named = SPEC_FIELDS if "*" in paths or "spec" in paths else [p.removeprefix("spec.") for p in paths if "." in p]
    return {name: present.get(name) for name in named}


def _paths(request: Any, updatable: tuple[str, ...]) -> Sequence[str]:
    """Return the paths of the update mask. Raises `InvalidArgument` for a path that cannot be updated."""
    paths: Sequence[str] = request.update_mask.paths
    if len(paths) > _MAX_PATHS:
        raise InvalidArgument(FieldViolation("update_mask", f"has {len(paths)} paths; the maximum is {_MAX_PATHS}"))
    allowed = set(updatable) | {"*"}
    if "spec" in request.DESCRIPTOR.fields_by_name:
        allowed |= {"spec", *(f"spec.{name}" for name in SPEC_FIELDS)}
    wrong = [path for path in paths if path not in allowed]
    if wrong:
        named = ", ".join(repr(path[:64]) for path in wrong[:_SHOWN_PATHS])
        raise InvalidArgument(
            FieldViolation("update_mask", f"cannot contain {named}; allowed paths: {', '.join(sorted(allowed))}")
        )
    return paths


def _present(request: Any, name: str) -> Any:
    """Return the field's value as the use cases expect it; None if it is absent or empty."""
    value = getattr(request, name)
    if request.DESCRIPTOR.fields_by_name[name].is_repeated:
        return dict(value) or None
    if not request.HasField(name):
        return None
    return seconds(value) if isinstance(value, Duration) else value


_DOMAIN_NAMES = {
    "timeout": "timeout_secs",
    "image_refresh_interval": "image_refresh_interval_secs",
    "warm_ttl": "warm_ttl_secs",
}
"""The domain's names of durations, which are numbers of seconds there."""
