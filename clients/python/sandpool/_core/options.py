"""Groups of keyword arguments that several methods share.

The methods declare them with `**options: Unpack[...]`, so that type checkers and editors know every argument.
`expand_options` adds them to the signature that `help()` shows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from typing_extensions import TypedDict

from sandpool._core.arguments import Maybe, Timeout
from sandpool._models.container import ReadinessProbe
from sandpool._models.enums import PullPolicy, WhenEmpty

PullPolicyValue: TypeAlias = PullPolicy | Literal["missing", "always", "never"]
"""A pull policy, or its value."""
WhenEmptyValue: TypeAlias = WhenEmpty | Literal["start_cold", "wait", "fail"]
"""What to do when no warm container is available, or its value."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class SpecOptions(TypedDict, total=False):
    """Fields of a container specification apart from `image` and `env`."""

    cpus: float | None
    memory_mb: int | None
    ephemeral_disk_mb: int | None
    entrypoint: Sequence[str] | None
    secret_names: Sequence[str] | None
    pull_policy: PullPolicyValue | None
    readiness_probe: ReadinessProbe | None


class RequestOptions(TypedDict, total=False):
    """Options of the request itself."""

    request_id: str | None
    request_timeout: Timeout


class PoolOptions(RequestOptions, total=False):
    """Fields of a pool apart from its name and its specification."""

    warm_containers: int | None
    max_containers: int | None
    timeout_secs: float | None
    paused: bool | None
    drained: bool | None
    image_refresh_interval: float | None
    warm_ttl: float | None


class ImagePoolOptions(SpecOptions, PoolOptions, total=False):
    """Fields of a pool with its own specification."""

    env: Mapping[str, str] | None


class TemplatePoolOptions(PoolOptions, total=False):
    """Fields of a pool with a template."""

    size: int | None


class AnyPoolOptions(ImagePoolOptions, TemplatePoolOptions, total=False):
    """Fields of a pool with either source."""


class TemplateOptions(SpecOptions, RequestOptions, total=False):
    """Fields of a template apart from its name and its image."""

    env: Mapping[str, str] | None
    timeout_secs: float | None


class UpdateOptions(RequestOptions, total=False):
    """Options of an update request."""

    etag: str | None


class SpecSettings(TypedDict, total=False):
    """Changes of a container specification apart from its image. None resets a field to its default."""

    cpus: Maybe[float | None]
    memory_mb: Maybe[int | None]
    ephemeral_disk_mb: Maybe[int | None]
    env: Maybe[Mapping[str, str] | None]
    entrypoint: Maybe[Sequence[str] | None]
    secret_names: Maybe[Sequence[str] | None]
    pull_policy: Maybe[PullPolicyValue | None]
    readiness_probe: Maybe[ReadinessProbe | None]


class ImageChange(TypedDict, total=False):
    """A change of an image."""

    image: Maybe[str]


class SpecChanges(ImageChange, SpecSettings, total=False):
    """Changes of a container specification. None resets a field to its default."""


class PoolSettings(SpecSettings, UpdateOptions, total=False):
    """Changes of a pool apart from its name and its image. None resets a field to its default."""

    warm_containers: Maybe[int | None]
    max_containers: Maybe[int | None]
    timeout_secs: Maybe[float | None]
    paused: Maybe[bool | None]
    drained: Maybe[bool | None]
    image_refresh_interval: Maybe[float | None]
    warm_ttl: Maybe[float | None]


class PoolChanges(ImageChange, PoolSettings, total=False):
    """Changes of a pool. None resets a field to its default."""

    name: Maybe[str | None]


class TemplateSettings(SpecSettings, UpdateOptions, total=False):
    """Changes of a template apart from its name and its image. None resets a field to its default."""

    timeout_secs: Maybe[float | None]


class TemplateChanges(ImageChange, TemplateSettings, total=False):
    """Changes of a template. None resets a field to its default."""

    name: Maybe[str]


class SandboxChanges(UpdateOptions, total=False):
    """Changes of a sandbox. None resets a field to its default."""

    name: Maybe[str | None]
    metadata: Maybe[Mapping[str, str] | None]
    timeout_secs: Maybe[float | None]


class BatchOptions(RequestOptions, total=False):
    """Fields of a new sandbox apart from its name and its source."""

    metadata: Mapping[str, str] | None
    timeout_secs: float | None
    env: Mapping[str, str] | None


class SandboxOptions(BatchOptions, total=False):
    """Fields of a new sandbox apart from its source."""

    name: str | None


class QueueOptions(TypedDict, total=False):
    """What to do when no warm container is available."""

    when_empty: WhenEmptyValue | None
    queue_timeout: float | None


class PooledBatchOptions(BatchOptions, QueueOptions, total=False):
    """Fields of new sandboxes from a pool or a template."""


class PooledSandboxOptions(SandboxOptions, QueueOptions, total=False):
    """Fields of a new sandbox from a pool or a template."""


class ImageBatchOptions(BatchOptions, SpecOptions, total=False):
    """Fields of new sandboxes from an image."""


class ImageSandboxOptions(SandboxOptions, SpecOptions, total=False):
    """Fields of a new sandbox from an image."""


class AnyBatchOptions(BatchOptions, QueueOptions, SpecOptions, total=False):
    """Fields of new sandboxes from any source."""


class AnySandboxOptions(SandboxOptions, QueueOptions, SpecOptions, total=False):
    """Fields of a new sandbox from any source."""


def names(group: Any) -> tuple[str, ...]:
    """Return the names of the arguments in a group."""
    return tuple(group.__annotations__)


def expand_options(group: Any) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that shows the arguments of a group in the signature, in place of `**options`."""
    last = names(UpdateOptions)
    annotations = sorted(group.__annotations__.items(), key=lambda item: item[0] in last)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_NOT_GIVEN,
            annotation=getattr(annotation, "__forward_arg__", annotation),
        )
        for name, annotation in annotations
    ]

    def decorate(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return function

    return decorate


class _NotGiven:
    """The default value that the signature of an optional argument shows."""

    def __repr__(self) -> str:
        return "..."


_NOT_GIVEN = _NotGiven()
