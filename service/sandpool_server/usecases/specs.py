"""Specifications: creation from the fields of a request, and changes by an update."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from sandpool_server.domain.errors import FieldViolation, InvalidArgument
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.usecases.values import SpecFields

MAX_ENVIRONMENT_BYTES = 1024 * 1024
"""The limit of the agent, in bytes. The kernel accepts about twice as much, including the arguments."""

_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(ContainerSpec) if f.default is not MISSING}


def spec_of(given: SpecFields) -> ContainerSpec:
    """Return the specification with the default of every field that is not given.

    Raises:
        InvalidArgument: the image is missing, or the environment is too large.
    """
    if not given.get("image"):
        raise InvalidArgument(FieldViolation("spec.image", "is required"))
    return _checked(ContainerSpec(**dict(given)))  # type: ignore[arg-type]


def changed_spec(spec: ContainerSpec, changes: SpecFields) -> ContainerSpec:
    """Return the specification after the changes; a value of None restores the default.

    Raises:
        InvalidArgument: the image would be removed, or the environment is too large.
    """
    if "image" in changes and not changes["image"]:
        raise InvalidArgument(FieldViolation("spec.image", "cannot be removed; set the new image"))
    values: dict[str, Any] = {name: _DEFAULTS[name] if value is None else value for name, value in changes.items()}
    return _checked(replace(spec, **values))


def _checked(spec: ContainerSpec) -> ContainerSpec:
    check_environment(dict(spec.env), "spec.env")
    return spec


def check_environment(env: Mapping[str, str], path: str) -> None:
    """Raise `InvalidArgument` for the field `path` if the environment is larger than a process can receive."""
    size = sum(len(name.encode()) + len(value.encode()) + 2 for name, value in env.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidArgument(
            FieldViolation(
                path, f"has {size} bytes in total; the maximum is {MAX_ENVIRONMENT_BYTES}; pass large data in a file"
            )
        )
