"""Specifications: from what a caller gave, and from what a caller changes."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace

from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.domain.model import ContainerSpec
from sandpool_server.usecases.values import SpecChanges, SpecFields

MAX_ENVIRONMENT_BYTES = 1024 * 1024
"""What the agent takes; the kernel takes about twice that, arguments included."""

_DEFAULTS = {f.name: f.default for f in fields(ContainerSpec) if f.default is not MISSING}


def spec_of(given: SpecFields) -> ContainerSpec:
    """The full specification, with defaults where nothing was given. Raises as `check_spec`."""
    values = {f.name: value for f in fields(given) if (value := getattr(given, f.name)) is not None}
    if "image" not in values:
        raise InvalidArgument(FieldViolation("image", "is required"))
    return check_spec(ContainerSpec(**values))


def changed_spec(spec: ContainerSpec, changes: SpecChanges) -> ContainerSpec:
    """The specification after the changes; None goes back to the default. Raises as `check_spec`."""
    given = changes.given()
    if "image" in given and not given["image"]:
        raise InvalidArgument(FieldViolation("image", "cannot be taken away; give the new image"))
    values = {name: _DEFAULTS[name] if value is None else value for name, value in given.items()}
    return check_spec(replace(spec, **values))  # type: ignore[arg-type]


def check_spec(spec: ContainerSpec) -> ContainerSpec:
    """Return a specification that can be kept; that its secrets exist is for the store to say.

    Raises:
        InvalidArgument: its environment is more than a process can be given.
    """
    check_environment(dict(spec.env))
    return spec


def check_environment(env: Mapping[str, str]) -> None:
    """Raises `InvalidArgument` on `env` when it is more than a process can be given beside its arguments."""
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in env.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidArgument(
            FieldViolation("env", f"is {size} bytes in all; at most {MAX_ENVIRONMENT_BYTES} fit, put data into a file")
        )
