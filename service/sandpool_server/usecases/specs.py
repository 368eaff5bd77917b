"""Specifications: from what a caller gave, and from what a caller changes."""

from dataclasses import MISSING, fields, replace

from sandpool_server.domain.errors import FieldViolation, InvalidArgument, NotFound
from sandpool_server.domain.model import ContainerSpec
from sandpool_server.usecases.values import SpecChanges, SpecFields

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
    """Return a specification that can be kept.

    Raises:
        NotFound: a secret that it names does not exist. This server keeps no secrets, so that is any name.
    """
    for name in spec.secret_names:
        raise NotFound("secret", name, "this server keeps no secrets; leave secret_names empty")
    return spec
